"""The built-in augmentations, one each, named as its file: a minibatch -> the same, changed."""
