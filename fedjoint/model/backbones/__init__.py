"""The built-in backbones, one each, named as its file: what an input is -> a module."""
