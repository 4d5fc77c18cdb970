"""Suites of comparisons: one file each, named as they are registered; `suite` returns one."""
