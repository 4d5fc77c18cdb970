"""Which kinds of task losses are for."""

CLASSES = ("multiclass", "segmentation", "tokens", "language", "preference")
LABELS = ("multilabel",)
TARGETS = ("regression", "dense_regression")
