"""How gradients add up, against PyTorch's own optimiser on losses with a constant gradient."""

import numpy as np
import pytest
import torch

from fedjoint.config.schema import LocalConfig
from fedjoint.training.accumulation import accumulated, scales


def way(steps, rate, momentum, mu):
    """Return how far PyTorch's SGD goes, over the rate, where the loss has a slope of one."""
    x = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.SGD([x], lr=rate, momentum=momentum)
    for _ in range(steps):
        optimiser.zero_grad()
        (x + mu / 2 * x.square()).sum().backward()
        optimiser.step()
    return -x.item() / rate


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("mu", [0.0, 0.5, 3.0])
def test_it_is_how_far_pytorch_goes(momentum, mu):
    steps, rate = np.array([0, 1, 2, 10, 37]), 0.1
    expected = [way(int(n), rate, momentum, mu) for n in steps]
    np.testing.assert_allclose(accumulated(steps, momentum, rate * mu), expected, rtol=1e-12)


def test_every_client_has_its_own_pull():
    pull = np.array([0.0, 0.05, 0.2])
    expected = [way(8, 1.0, 0.5, mu) for mu in pull]
    found = accumulated(np.array([8, 8, 8]), 0.5, pull)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_the_papers_sums():
    """Wang et al., 2020: SGD tau; momentum; proximal (1 - (1 - alpha)^tau) / alpha."""
    tau, m, alpha = 7, 0.9, 0.05
    steps = np.array([tau])
    assert accumulated(steps) == pytest.approx(tau)
    assert accumulated(steps, m) == pytest.approx((tau - m * (1 - m**tau) / (1 - m)) / (1 - m))
    assert accumulated(steps, 0.0, alpha) == pytest.approx((1 - (1 - alpha) ** tau) / alpha)


def test_clients_take_turns_in_the_list_of_scales():
    local = LocalConfig(epochs=1, lr_scales=[1.0, 0.5])
    assert scales(local, np.array([4, 7, 9])).tolist() == [1.0, 0.5, 0.5]
    assert scales(LocalConfig(epochs=1), np.array([4, 7])).tolist() == [1.0, 1.0]
