"""Flower's own log lines, in our format."""

from __future__ import annotations

import logging


def as_ours() -> None:
    """Have what Flower logs in this process be written as ours, without colours of its own."""
    flower = logging.getLogger("flwr")
    flower.handlers.clear()
    flower.propagate = True
    flower.setLevel(logging.NOTSET)
