"""Kinds of task whose labels are alike: what losses and metrics are for."""

CLASSES = ("multiclass", "segmentation", "tokens", "language", "preference")
LABELS = ("multilabel",)
TARGETS = ("regression", "dense_regression")
