"""The built-in rules that weigh losses, one class each, named as its file."""
