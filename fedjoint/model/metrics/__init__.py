"""The built-in metrics, one each, named as its file."""
