"""The built-in ways to compress updates, one class each, named as its file."""
