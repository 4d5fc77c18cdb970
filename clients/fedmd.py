"""FedMD's local method: approach the consensus on public examples, then train on one's own.

The server's half is :mod:`fedjoint.strategies.fedmd`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from fedjoint.errors import UserError
from fedjoint.model import tree
from fedjoint.model.frozen import digest
from fedjoint.model.tasks import Task
from fedjoint.model.tree import Input
from fedjoint.options import Count
from fedjoint.randomness import Purpose, generator
from fedjoint.training.job import Job
from fedjoint.training.method import Tensors
from fedjoint.training.terms import Compute, Term, computed, for_all, make_term, outputs_of, rest_of

from ._backbones import OwnBackbones

_ROWS = 1024  # examples in a pass

Apart = Callable[[Tensor, Tensor], Tensor]


class FedMD(OwnBackbones):
    """Digest, then revisit, then say what the model predicts for the public examples.

    Digesting is ``digest_steps`` steps on minibatches of public examples that minimise the mean
    absolute difference of one's logits and the consensus, summed over the client's multiclass and
    multilabel tasks; revisiting is the round's budget on own data. The server broadcasts
    ``consensus/<task>`` ``[public, outputs]``; clients send ``heard.logits/<task>`` of that shape,
    ``heard.has/<task>``, one where a client has the task, and ``heard.public``, a digest of
    the public examples.

    Args:
        digest_steps: steps towards the consensus.
        merge: whether backbones are merged, too.

    Paper: Li and Wang, "FedMD: Heterogenous Federated Learning via Model Distillation", 2019,
    https://arxiv.org/abs/1910.03581
    """

    half_of = "fedmd"
    omits = "transfer learning on labels of the public examples, which have none here"

    def __init__(self, digest_steps: Count = 10, merge: bool = False) -> None:
        super().__init__(merge)
        self.digest_steps = digest_steps

    def train(self, job: Job) -> Tensors:
        if job.public is None:
            raise UserError(
                f"{self.half_of} needs examples that all clients have, without labels: give the "
                "problem some, public=x"
            )
        tasks = [task for task in job.cohort.tasks if task.kind in ("multiclass", "multilabel")]
        self._digest(job, job.public, tasks)
        job.descend(shared=self.backbones(job))
        return self._told(job, job.public, tasks)

    def _digest(self, job: Job, public: Input, tasks: list[Task]) -> None:
        found = {task.name: job.broadcast.get(f"consensus/{task.name}") for task in tasks}
        consensus = {name: logits for name, logits in found.items() if logits is not None}
        if not consensus:
            return
        weights = self.weights(job)
        trained = {n: t for n, t in weights.items() if n in job.trainable}
        rest, optimiser = rest_of(weights, trained), job.optimiser(trained)
        student = {
            task.name: (outputs_of(job.model, task.name), self.apart(task))
            for task in tasks
            if task.name in consensus
        }
        gradient = make_term(_difference(student), job.model, batched=job.batched)
        rng, count = generator(job.seed, Purpose.MINIBATCHES, "public", job.round), len(job.cohort)
        size = min(n := tree.count(public), job.budget["batch_size"])
        for _ in range(self.digest_steps):
            at = torch.from_numpy(rng.choice(n, size, replace=False)).to(job.shared.device)
            batch = _for_all(tree.each(lambda tensor, at=at: tensor[at], public), count)
            further = for_all({name: logits[at] for name, logits in consensus.items()}, count)
            optimiser.step(gradient(trained, rest, batch, further), None)
            job.work += 1

    def apart(self, task: Task) -> Apart:
        """Return how far logits of a task are from the consensus, a mean over examples."""
        return F.l1_loss

    def _told(self, job: Job, public: Input, tasks: list[Task]) -> Tensors:
        count, weights = len(job.cohort), self.weights(job)
        mark = int(digest(tree.named(public))[:15], 16)
        device = job.shared.device
        told = {"heard.public": torch.full((count,), mark, device=device)}
        for task in tasks:
            told[f"heard.logits/{task.name}"] = computed(
                outputs_of(job.model, task.name),
                job.model,
                weights,
                _for_all(public, count),
                batched=job.batched,
                rows=_ROWS,
                least=job.least,
            )
            told[f"heard.has/{task.name}"] = torch.ones(count, device=device)
        return told


def _for_all(x: Input, clients: int) -> Input:
    """Return inputs ``[clients, n, ...]``, the same for each; memory is shared."""
    found: Input = tree.each(lambda tensor: tensor.expand(clients, *tensor.shape), x)
    return found


def _difference(student: dict[str, tuple[Compute, Apart]]) -> Term:
    def difference(weights: Tensors, x: Input, further: Tensors) -> Tensor:
        parts = [
            apart(compute(weights, x), further[name]) for name, (compute, apart) in student.items()
        ]
        return torch.stack(parts).sum()

    return difference
