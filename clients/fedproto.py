"""FedProto's local method: features are pulled to the prototypes of their classes.

The server's half is :mod:`fedjoint.strategies.fedproto`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fedjoint.model.tree import Input
from fedjoint.options import NotNegative
from fedjoint.training.gradients import passes
from fedjoint.training.job import Batch, Job
from fedjoint.training.method import Tensors
from fedjoint.training.terms import (
    Compute,
    Term,
    computed,
    features_of,
    for_all,
    make_term,
    rest_of,
)

from ._backbones import OwnBackbones

_ROWS = 1024  # examples in a pass


class FedProto(OwnBackbones):
    """Minimise ``loss + pull * sum_tasks mean |f - C_y|^2``, f being an example's features.

    The mean is over the task's labelled examples of a minibatch whose class has a prototype C_y,
    and over the F features, which are those of evaluation mode, as prototypes are. The server
    broadcasts ``prototypes/<task>`` ``[classes, F]`` and ``seen/<task>`` ``[classes]``, one where
    a class has a prototype. After training, a client sends of every class the sum of its training
    examples' features ``heard.sums/<task>`` ``[classes, F]`` and their number
    ``heard.counts/<task>`` ``[classes]``. Only multiclass tasks have classes.

    Args:
        pull: the paper's lambda.
        merge: whether backbones are merged, too.

    Paper: Tan et al., "FedProto: Federated Prototype Learning across Heterogeneous Clients",
    AAAI 2022, https://arxiv.org/abs/2105.00243
    """

    half_of = "fedproto"
    omits = "prediction by the nearest prototype"

    def __init__(self, pull: NotNegative = 1.0, merge: bool = False) -> None:
        super().__init__(merge)
        self.pull = pull

    def train(self, job: Job) -> Tensors:
        names = [task.name for task in job.cohort.tasks if task.kind == "multiclass"]
        known = {
            f"{what}/{name}": job.broadcast[f"{what}/{name}"]
            for name in names
            for what in ("prototypes", "seen")
            if job.broadcast.get(f"seen/{name}") is not None
        }
        self._descend(job, known)
        return self._told(job)

    def _descend(self, job: Job, known: Tensors) -> None:
        if not known:
            job.descend(shared=self.backbones(job))
            return
        features, now = features_of(job.model), list[Batch]()
        gradient = make_term(
            _distance(features, known), job.model, batched=job.batched, evaluating=True
        )

        def remember(batch: Batch) -> None:
            now[:] = [batch]

        def correct(gradients: Tensors, parameters: Tensors, _active: Tensor | None) -> None:
            further = now[0].y | for_all(known, len(job.cohort))
            rest = rest_of(self.weights(job), parameters)
            of = gradient(parameters, rest, now[0].x, further)
            for name in gradients:
                gradients[name] = gradients[name] + self.pull * of[name]

        job.descend(shared=self.backbones(job), beside=remember, correct=correct)

    def _told(self, job: Job) -> Tensors:
        tasks = [task for task in job.cohort.tasks if task.kind == "multiclass"]
        if not tasks:
            return {}
        train = job.cohort.train if job.batched else job.cohort.train.alone
        told: Tensors = {}
        for at in passes(train.rows, _ROWS, job.least):
            x, y = train.at(at)
            found = computed(
                features_of(job.model),
                job.model,
                self.weights(job),
                x,
                batched=job.batched,
                rows=_ROWS,
                least=job.least,
            )
            for task in tasks:
                member = y[task.name][..., None] == torch.arange(task.outputs, device=found.device)
                sums, counts = f"heard.sums/{task.name}", f"heard.counts/{task.name}"
                told[sums] = told.get(sums, 0) + member.float().mT @ found
                told[counts] = told.get(counts, 0) + member.sum(1).float()
        return told


def _distance(features: Compute, known: Tensors) -> Term:
    names = [name.removeprefix("seen/") for name in known if name.startswith("seen/")]

    def distance(weights: Tensors, x: Input, further: Tensors) -> Tensor:
        found = features(weights, x)
        total = found.new_zeros(())
        for name in names:
            classes = further[name].clamp(min=0)
            counts = (further[name] >= 0) * further[f"seen/{name}"][classes]
            away = (found - further[f"prototypes/{name}"][classes]).square().mean(1)
            total = total + (counts * away).sum() / counts.sum().clamp(min=1)
        return total

    return distance
