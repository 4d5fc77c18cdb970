"""How many clients one job takes, by what they need."""

import pytest

from fedjoint.training.chunk import Need, most_on_cpu, most_on_gpu

MB = 1 << 20


@pytest.mark.parametrize(
    ("need", "most"),
    [
        (Need(100, 100, 0), 256),  # the most
        (Need(MB // 8, MB // 8, 0), 32),  # what the cache holds
        (Need(MB, MB, 0), 32),  # enough to pay for starting the operations
        (Need(7 * MB, MB, 0), 8),  # what may lie in memory
        (Need(7 * MB, MB, 56 * MB), 1),
        (Need(700 * MB, MB, 0), 1),
    ],
)
def test_on_the_cpu(need, most):
    assert most_on_cpu(need) == most


@pytest.mark.parametrize(
    ("need", "memory", "most"),
    [
        (Need(100, 100, 100), 80_000 * MB, 1024),
        (Need(4 * MB, 20 * MB, 20 * MB), 10_000 * MB, 70),  # 7,000 MB for 100 MB each
        (Need(4 * MB, 20 * MB, 20 * MB), 10 * MB, 1),
        (Need(4 * MB, 20 * MB, 20 * MB), 0, 1),
    ],
)
def test_on_a_gpu(need, memory, most):
    assert most_on_gpu(need, memory) == most
