"""Clients take one of several backbones, against plain PyTorch."""

import numpy as np
import pytest
import torch
from support.small import config

from fedjoint.clients.ditto import Ditto
from fedjoint.problem import build_problem
from fedjoint.training.method import LocalMethod
from fedjoint.training.receiving import best_of, take_backbones
from fedjoint.training.trainer import Trainer

CLIENTS = np.array([1, 3, 5])  # with the tasks loop and ink


@pytest.fixture
def trainer(tmp_path):
    settings = config(tmp_path)
    return Trainer(build_problem(settings), settings, torch.device("cpu"))


def candidates(trainer, count=12):
    noise = torch.Generator().manual_seed(7)
    start = trainer.layout.flat(trainer.model.state_dict())
    return start + 0.05 * torch.randn(count, len(start), generator=noise)


def begun(trainer, method, backbones):
    cohort = trainer.cohort(CLIENTS, CLIENTS)
    fresh = trainer.fresh(cohort.tasks, method, backbones[0])
    private = {name: torch.stack([tensor] * len(CLIENTS)) for name, tensor in fresh.items()}
    shared = backbones[0].expand(len(CLIENTS), -1)
    return trainer.job(cohort, 1, backbones[0], {}, shared, private)


def best(trainer, client, backbones):
    """Return the number of the backbone with the lowest loss on the client's training data."""
    train, losses = trainer.problem.data.client(client).train, []
    for backbone in backbones:
        model = trainer.problem.model(trainer.config)
        model.load_state_dict(model.state_dict() | trainer.layout.views(backbone))
        with torch.no_grad():
            outputs = model(train.x, list(train.y))
        tasks = [task for task in trainer.problem.tasks if task.name in train.y]
        losses.append(
            sum(float(t.loss_fn(outputs[t.name], train.y[t.name])[0].mean()) for t in tasks)
        )
    return losses.index(min(losses))


def test_who_may_choose_takes_the_lowest_loss_and_the_others_their_own(trainer):
    backbones = candidates(trainer)
    chosen = [best(trainer, client, backbones) for client in CLIENTS.tolist()]
    assert len(set(chosen)) > 1, "the clients should like different ones"
    given = (chosen[0] + 1) % len(backbones)
    for received in ([-1, -1, -1], [given, -1, -1]):
        job = begun(trainer, LocalMethod(), backbones)
        new = np.ones(3, bool)
        fresh = lambda own: trainer.fresh(job.cohort.tasks, LocalMethod(), own)  # noqa: B023, E731
        take_backbones(job, backbones, np.array(received), new, fresh)
        expected = [one if one >= 0 else of for one, of in zip(received, chosen, strict=True)]
        assert job.backbone.tolist() == expected
        for tensor in (job.shared, job.start, job.received):
            assert torch.equal(tensor, backbones[expected])
        job.shared += 1
        assert torch.equal(job.start, backbones[expected])  # training leaves it alone


def test_private_state_that_is_fresh_is_of_the_client_s_own_backbone(trainer):
    method, backbones = Ditto(lam=0.1), candidates(trainer, 3)
    job = begun(trainer, method, backbones)
    job.private["own.backbone"][1] = 7.0  # it has trained before
    fresh = lambda own: trainer.fresh(job.cohort.tasks, method, own)  # noqa: E731
    take_backbones(job, backbones, np.array([2, 1, 0]), np.array([True, False, True]), fresh)
    assert torch.equal(job.private["own.backbone"][0], backbones[2])
    assert (job.private["own.backbone"][1] == 7).all()
    assert torch.equal(job.private["own.backbone"][2], backbones[0])


def test_a_backbone_whose_losses_are_undefined_is_nobody_s(trainer):
    backbones = candidates(trainer)
    backbones[0] = torch.nan
    job = begun(trainer, LocalMethod(), backbones)
    assert (best_of(job, backbones) > 0).all()
