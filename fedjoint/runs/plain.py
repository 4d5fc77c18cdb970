"""Values of any kind in the types of JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor


def plain(value: Any, nonfinite: Any = lambda number: None) -> Any:
    """Return ``value`` in the types of JSON, numbers that are not finite as ``nonfinite`` says."""
    if isinstance(value, Mapping):
        return {str(k): plain(v, nonfinite) for k, v in value.items()}
    if isinstance(value, np.ndarray | np.generic | Tensor):
        value = value.tolist()
    if isinstance(value, list | tuple):
        if all(type(item) is int for item in value):  # the ids of very many clients
            return list(value)
        return [plain(item, nonfinite) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return nonfinite(value)
    return value
