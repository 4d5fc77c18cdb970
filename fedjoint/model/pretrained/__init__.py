"""Pretrained models of other libraries as backbones, and written for these again."""
