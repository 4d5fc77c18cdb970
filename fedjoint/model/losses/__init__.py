"""The built-in losses, one each, named as its file."""
