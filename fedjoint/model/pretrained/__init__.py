"""Pretrained models of other libraries as backbones: loaded, adapted, and written for them again."""
