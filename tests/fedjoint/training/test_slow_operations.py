"""What PyTorch warns of in a batched program is said once, in a line of fedjoint's own."""

import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn

from fedjoint import Examples
from fedjoint.training.slow_operations import slow_operations

SLOW = "aten::renorm"


class Shortened(nn.Module):
    """Features no longer than 1, by an operation that has no batching rule."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(12, 12)

    def forward(self, x):
        return torch.renorm(self.layer(x), 2, 0, 1.0)


def examples(count, rng):
    x = torch.randn(count, 12, generator=rng)
    return Examples(x, {"side": (x[:, 0] > 0).long()})


def test_pytorch_still_warns_of_it():
    x = torch.randn(2, 3, 12)
    with slow_operations() as found:
        torch.vmap(Shortened())(x)
    assert found == [SLOW]


def test_other_warnings_are_shown(recwarn):
    with slow_operations() as found:
        warnings.warn("something else", stacklevel=1)
    assert not found and [str(each.message) for each in recwarn] == ["something else"]


RUN = """
import sys
import torch
from fedjoint import Problem, Task, simulate
from support.people import Unequal
sys.path.insert(0, {here!r})
from test_slow_operations import Shortened, examples

tasks = [Task("side", "multiclass", 2)]
problem = Problem(tasks, Shortened, Unequal(tasks, examples, 1), torch.zeros(1, 12))
result = simulate({{"rounds": 2, "engine": "inline", "output": {{"dir": {runs!r}}}}}, problem)
print("one by one:", result.records[-1].fallback)
"""


@pytest.mark.slow
def test_a_run_says_one_line(tmp_path):
    here = Path(__file__).parent
    library = here.parents[1] / "lib"
    done = subprocess.run(
        [sys.executable, "-c", RUN.format(here=str(here), runs=str(tmp_path))],
        env={**os.environ, "PYTHONPATH": str(library)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and done.stdout == "one by one: None\n"
    (line,) = done.stderr.splitlines()
    assert SLOW in line and "local.path = 'sequential'" in line
