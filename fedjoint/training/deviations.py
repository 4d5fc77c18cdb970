"""What a client would have sent for each of its tasks alone, beside its one update.

A client with T tasks trains them together and has one update ``u`` ``[P]``. Before that, it takes
the gradient of each task's part of what it minimises, ``g_t`` ``[P]``, at the backbone that it
received, over all of its training examples: the task's *pull*. The update of task t is

    ``u_t = u + d_t`` with the deviation ``d_t = factor * (mean of the pulls - g_t)``.

Deviations sum to zero, so the mean of the ``u_t`` is ``u``, whatever the factor: a rule that only
averages sees no difference. The factor makes ``factor * |mean of the pulls| = |u|``, but is never
above that of the steps taken: ``T * rate * sum_k a_k`` for SGD (see
:func:`fedjoint.training.accumulation.accumulated`). So after one step of SGD on all examples,
``u_t = -T * rate * g_t``, and where pulls cancel out, deviations stay as long as those steps go.
For Adam, whose steps move no parameter by much more than its rate, ``factor * g_t`` is no longer
than that.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fedjoint.config.schema import OptimiserConfig
from fedjoint.training.accumulation import accumulated
from fedjoint.training.job import Job
from fedjoint.training.within import TaskGradients


def pulls(job: Job, found: TaskGradients) -> Tensor:
    """Return ``[clients, tasks, P]``, by which the tasks' parts of the loss pull at the backbone.

    Args:
        job: before it trains.
        found: the gradients of its tasks, over the training examples.
    """
    of, losses = found.mean()
    state = {n: t for n, t in job.private.items() if n.startswith("balance.")}
    slope = torch.func.grad(job.balance.total)
    weights = torch.vmap(slope)(losses, job.weights(job.private), state, found.known)
    shapes = job.layout.parameters.shapes
    out = losses.new_zeros(*losses.shape, job.layout.parameters.size)
    for name, view in job.layout.parameters.views(out).items():
        if name in of:  # the others are not trained
            view.copy_(of[name] * weights.view(*weights.shape, *(1,) * len(shapes[name])))
    return out


def deviations(job: Job, pulls: Tensor, update: Tensor, rule: OptimiserConfig) -> Tensor:
    """Return ``[clients, tasks - 1, P]``, by how much the tasks' updates differ from the clients'.

    That of the last task is what makes them sum to zero.

    Args:
        job: has trained.
        pulls: ``[clients, tasks, P]``, see :func:`pulls`.
        update: ``[clients, P]``.
        rule: the optimiser.
    """
    mean = pulls.mean(1)
    length = torch.linalg.vector_norm(mean, dim=1)
    ratio = torch.linalg.vector_norm(update, dim=1) / length
    most = _most(job, pulls, rule)
    factor = torch.where(length > 0, ratio, torch.inf).minimum(most)
    return factor[:, None, None] * (mean[:, None] - pulls[:, :-1])


def _most(job: Job, pulls: Tensor, rule: OptimiserConfig) -> Tensor:
    """Return ``[clients]``, the factors of tasks that had gone all of their steps alone."""
    steps = accumulated(job.steps, job.momentum if rule.name == "sgd" else 0.0)
    way = pulls.shape[1] * job.rate * torch.from_numpy(steps).to(pulls)
    if rule.name == "sgd":
        return way
    longest = torch.linalg.vector_norm(pulls, dim=2).amax(1)
    return torch.where(longest > 0, way * pulls.shape[2] ** 0.5 / longest, 0)
