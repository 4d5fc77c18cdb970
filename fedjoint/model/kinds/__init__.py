"""The kinds of task, one each, named as its file."""
