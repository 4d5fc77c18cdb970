"""How tasks that move the same way share their vectors."""

from __future__ import annotations

from torch import Tensor

from fedjoint.server.updates import rough_inner_products


def shared_along(vectors: Tensor, threshold: float) -> Tensor:
    """Mix every row of ``vectors`` ``[tasks, P]`` with those of a similar direction.

    Args:
        vectors: of tasks.
        threshold: a row takes in another, weighted by their similarity, where that is above it: the
            share of coordinates on which signs agree minus the share on which they differ.
    """
    similarity = rough_inner_products(vectors.sign()) / max(1, vectors.shape[1])
    share = similarity * (similarity > threshold)
    share = share.fill_diagonal_(1.0)
    return (share / share.sum(1, keepdim=True)).to(vectors) @ vectors
