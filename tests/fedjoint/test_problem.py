"""A problem whose data do not fit together is refused where it is made."""

import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from fedjoint import Problem, Task
from fedjoint.errors import UserError

FITS = {"task_names": ("a",), "sizes": np.array([3, 2]), "tasks": np.ones((2, 1), bool)}


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"sizes": [3, 2]}, "data.sizes is list, not a NumPy array of shape (2,)"),
        ({"sizes": np.array(3)}, "data.sizes is (), not a NumPy array of shape (1,)"),
        ({"tasks": [[True], [True]]}, "data.tasks is list, not a NumPy array of shape (2, 1)"),
        ({"tasks": np.ones(2, bool)}, "data.tasks is (2,), not a NumPy array of shape (2, 1)"),
        ({"sizes": np.array([3, -2])}, "negative number of examples"),
        ({"sizes": np.array([0, 0])}, "no client has a training example"),
        ({"task_names": ("b",)}, "the data's are ('b',)"),
    ],
)
def test_data_that_do_not_fit_together(other, words):
    data = SimpleNamespace(**(FITS | other))
    with pytest.raises(UserError, match=re.escape(words)):
        Problem([Task("a", "regression", 1)], lambda: nn.Linear(2, 2), data, torch.zeros(1, 2))
