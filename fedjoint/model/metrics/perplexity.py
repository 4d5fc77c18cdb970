"""Perplexity: the exponential of the cross-entropy of a token; lower is better."""

from __future__ import annotations

from fedjoint.model.families import CLASSES
from fedjoint.model.metric import pooled, ratio
from fedjoint.model.metrics.cross_entropy import log_losses

perplexity = pooled(
    "perplexity",
    log_losses,
    lambda s: ratio(s[:, 2], s[:, 1]).exp(),
    CLASSES,
    higher_is_better=False,
)
