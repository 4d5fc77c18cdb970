"""How the gradients of a client's local steps add up to its update."""

from __future__ import annotations

import numpy as np

from fedjoint.config.schema import LocalConfig


def scales(local: LocalConfig, clients: np.ndarray) -> np.ndarray:
    """Return ``[clients]`` float32, what each client multiplies the learning rate by.

    Args:
        local: has ``lr_scales``.
        clients: ``[clients]`` ids.
    """
    if not local.lr_scales:
        return np.ones(len(clients), np.float32)
    return np.asarray(local.lr_scales, np.float32)[clients % len(local.lr_scales)]


def accumulated(
    steps: np.ndarray, momentum: float = 0.0, pull: np.ndarray | float = 0.0
) -> np.ndarray:
    """Return ``[clients]`` float64, the sums of the coefficients a of the gradients.

    After so many steps of SGD, an update is ``-rate * sum_k a_k * gradient_k``. Plain SGD has
    ``a_k = 1``; with momentum, ``a_k = (1 - momentum^(steps - k)) / (1 - momentum)``, k from 0;
    with a proximal term ``mu / 2 * |backbone - received|^2``,
    ``a_k = (1 - rate * mu)^(steps - 1 - k)``. As long as none is negative, which takes
    ``rate * mu`` near one or beyond, their sum is the norm ``|a|_1``.

    Args:
        steps: ``[clients]`` steps taken.
        momentum: of SGD, as in PyTorch: without dampening.
        pull: ``rate * mu``, one number or ``[clients]``.

    Paper: Wang et al., "Tackling the Objective Inconsistency Problem in Heterogeneous Federated
    Optimization", NeurIPS 2020, https://arxiv.org/abs/2007.07481
    """
    # The way that a gradient of one leads, at a rate of one.
    way, buffer = np.zeros(len(steps)), np.zeros(len(steps))
    for step in range(int(steps.max(initial=0))):
        buffer = momentum * buffer + 1 - pull * way
        way = np.where(step < steps, way + buffer, way)
    return way
