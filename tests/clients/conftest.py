"""A few clients that train for two rounds with a local method, and plain PyTorch beside them."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from fedjoint.config.load import check
from fedjoint.problem import build_problem
from fedjoint.training.minibatches import schedule
from fedjoint.training.trainer import Trainer

RATE, DECAY = 0.2, 0.5


@dataclass
class Round:
    """What a round of all clients left.

    Attributes:
        shared: ``[clients, P]``.
        private: name -> ``[clients, ...]``.
        extras: what was sent beside the updates.
        steps: ``[clients]``.
        personal: the backbones and the private state to evaluate with, after the round.
    """

    shared: torch.Tensor
    private: dict
    extras: dict
    steps: list
    personal: tuple


class World:
    """The first three of some clients, of different sizes, with two tasks each."""

    clients = np.arange(3)
    rounds = (1, 2)

    def __init__(self, path, tasks=("digit", "ink"), backbone=None, **tables):
        self.config = check(
            {
                "seed": 5,
                "data": {
                    "clients": 30,
                    "partition": "quantity",
                    "alpha": 2.0,
                    "task_mix": [list(tasks)],
                },
                "model": {"backbone": {"options": {"hidden": [8]}}},
                "local": {
                    "epochs": 1,
                    "batch_size": 12,
                    "optimiser": {"lr": RATE},
                    "lr_decay": DECAY,
                    "path": path,
                },
                **tables,
            }
        )
        self.problem = build_problem(self.config)
        if backbone is not None:
            self.problem = replace(self.problem, backbone=backbone)
        self.trainer = Trainer(self.problem, self.config, torch.device("cpu"))
        self.layout = self.trainer.layout
        assert len({*self.problem.data.sizes[:3]}) == 3, "the sizes should be ragged"
        # The server's backbone moves between the rounds.
        noise = torch.Generator().manual_seed(0)
        start = self.layout.flat(self.trainer.model.state_dict())
        moved = [start + 0.1 * torch.randn(len(start), generator=noise) for _ in range(3)]
        self.received = dict(zip(self.rounds, moved, strict=False))
        self.evaluated = moved[2]

    def train(self, method, broadcast=lambda round: {}):
        """Train every client for two rounds; return what each round left."""
        return dict(zip(self.rounds, self._train(method, broadcast), strict=True))

    def _train(self, method, broadcast):
        kept = {}
        for round in self.rounds:
            parts = []
            for at in self.trainer.chunks(self.clients):
                clients = self.clients[at]
                cohort, received = self.trainer.cohort(clients, clients), self.received[round]
                if at.start not in kept:
                    fresh = self.trainer.fresh(cohort.tasks, method, received)
                    kept[at.start] = {n: torch.stack([t] * len(clients)) for n, t in fresh.items()}
                private = {name: tensor.clone() for name, tensor in kept[at.start].items()}
                shared = received.expand(len(clients), -1).clone()
                job = self.trainer.job(cohort, round, received, broadcast(round), shared, private)
                extras = method.train(job)
                kept[at.start] = job.private
                private = {name: tensor.clone() for name, tensor in job.private.items()}
                # Clients are evaluated on a backbone that comes later, and that all of them share.
                one = self.evaluated.expand(len(clients), -1)
                test = self.trainer.job(cohort, round, one[0], broadcast(round), one, job.private)
                parts.append((job.shared, private, extras, job.steps, method.personal(test)))
                assert all(torch.equal(job.private[name], t) for name, t in private.items())
            shared, privates, extras, steps, personal = zip(*parts, strict=True)
            yield Round(
                torch.cat(shared),
                joined(privates),
                joined(extras),
                np.concatenate(steps).tolist(),
                (torch.cat([p[0] for p in personal]), joined([p[1] for p in personal])),
            )

    # Plain PyTorch

    def model(self, client, backbone=None, private=None):
        """Return a module with the tensors of a backbone ``[P]`` and of ``private``."""
        model = self.problem.model(self.config)
        state = model.state_dict()
        state |= {} if backbone is None else self.layout.views(backbone.clone())
        state |= {name: tensor.clone() for name, tensor in (private or {}).items()}
        model.load_state_dict(state)
        return model

    def minibatches(self, client, round, steps=None, stream=0, epochs=None):
        """Yield the client's minibatches of a round."""
        data, local = self.problem.data.client(client).train, self.config.local
        drawn = schedule(
            self.config.seed,
            round,
            np.array([client]),
            np.array([len(data)]),
            batch_size=local.batch_size,
            epochs=None if steps else epochs or local.epochs,
            steps=steps,
            stream=stream,
        )
        for index, mask in zip(drawn.index[:, 0], drawn.mask[:, 0], strict=True):
            at = torch.from_numpy(index[mask])
            yield data.x[at], {name: y[at] for name, y in data.y.items()}

    def loss(self, model, x, y):
        """Return the sum of the two tasks' losses."""
        output = model(x)
        return F.cross_entropy(output["digit"], y["digit"]) + F.mse_loss(output["ink"], y["ink"])

    def step(self, loss, parameters, round):
        """Take a step of plain gradient descent."""
        parameters = list(parameters)
        for p, g in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
            p.data -= RATE * DECAY ** (round - 1) * g

    def flat(self, model):
        """Return the backbone ``[P]`` of a module."""
        return self.layout.flat(model.state_dict())

    def same(self, model, backbone, private, client, prefix=""):
        """Check a client's backbone ``[P]`` and heads against a module."""
        torch.testing.assert_close(backbone, self.flat(model), rtol=1e-4, atol=2e-6)
        for name, tensor in model.state_dict().items():
            if name not in self.layout.shapes:
                found = private[prefix + name][client]
                torch.testing.assert_close(found, tensor, rtol=1e-4, atol=2e-6)


def joined(parts):
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


@pytest.fixture(params=["batched", "sequential"])
def world(request):
    """Clients that train in one batched program, and one by one."""
    return World(request.param)


@pytest.fixture
def make_world():
    """Make clients with settings of one's own."""
    return World
