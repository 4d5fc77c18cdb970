"""The built-in data sources, one class each, named as its file."""
