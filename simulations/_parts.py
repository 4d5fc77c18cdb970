"""A dataset of parts, each with labels of some tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

import fedjoint
from fedjoint.data.dataset import TEST, TRAIN


def dataset(
    tasks: Sequence[fedjoint.Task], parts: Sequence[tuple[Tensor, Mapping[str, Tensor], bool]]
) -> fedjoint.Dataset:
    """Return the examples of all parts; a task without labels in a part has none there.

    Args:
        tasks: the tasks.
        parts: inputs, labels of some tasks, and whether they are the test set.
    """
    x = torch.cat([inputs for inputs, _, _ in parts])
    y = {
        task.name: torch.cat([own.get(task.name, task.missing(len(x))) for x, own, _ in parts])
        for task in tasks
    }
    split = np.concatenate([np.full(len(x), TEST if test else TRAIN) for x, _, test in parts])
    names = sorted({name for _, own, _ in parts for name in own})
    origins = [tuple(name in own for name in names) for _, own, _ in parts]
    kinds = list(dict.fromkeys(origins))
    origin = np.repeat([kinds.index(o) for o in origins], [len(x) for x, _, _ in parts])
    return fedjoint.Dataset(tuple(tasks), fedjoint.Examples(x, y), origin, split=split)
