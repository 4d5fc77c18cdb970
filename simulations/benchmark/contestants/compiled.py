"""This project's engine with ``local.compile``: ``torch.compile`` instead of a replayed trace."""

from functools import partial

from . import engine

measure = partial(engine.measure, compiled=True)
