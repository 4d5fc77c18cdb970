"""Named tensors, compared."""

import torch


def same(found, expected):
    """Say whether the same names have the same tensors, bit for bit."""
    return found.keys() == expected.keys() and all(
        found[name].dtype == expected[name].dtype and torch.equal(found[name], expected[name])
        for name in expected
    )
