"""What holds for every strategy of the collection."""

from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from fedjoint.server.strategy import JointStrategy
from fedjoint.strategies.alignedmtl import AlignedMTL
from fedjoint.strategies.apfl import APFL
from fedjoint.strategies.bulyan import Bulyan
from fedjoint.strategies.cagrad import CAGrad
from fedjoint.strategies.cfl import CFL
from fedjoint.strategies.config import ConFIG
from fedjoint.strategies.ditto import Ditto
from fedjoint.strategies.fairgrad import FairGrad
from fedjoint.strategies.fedadagrad import FedAdagrad
from fedjoint.strategies.fedadam import FedAdam
from fedjoint.strategies.fedavg import FedAvg
from fedjoint.strategies.fedavgm import FedAvgM
from fedjoint.strategies.fedbabu import FedBABU
from fedjoint.strategies.feddyn import FedDyn
from fedjoint.strategies.fedmgda import FedMGDA
from fedjoint.strategies.fednova import FedNova
from fedjoint.strategies.fedprox import FedProx
from fedjoint.strategies.fedrep import FedRep
from fedjoint.strategies.fedyogi import FedYogi
from fedjoint.strategies.geometricmedian import GeometricMedian
from fedjoint.strategies.gradvac import GradVac
from fedjoint.strategies.ifca import IFCA
from fedjoint.strategies.imtlg import IMTLG
from fedjoint.strategies.krum import Krum
from fedjoint.strategies.median import Median
from fedjoint.strategies.mgda import MGDA
from fedjoint.strategies.multikrum import MultiKrum
from fedjoint.strategies.nashmtl import NashMTL
from fedjoint.strategies.normclip import NormClip
from fedjoint.strategies.pcgrad import PCGrad
from fedjoint.strategies.scaffold import Scaffold
from fedjoint.strategies.swa import SWA
from fedjoint.strategies.taskbalanced import TaskBalanced
from fedjoint.strategies.trimmedmean import TrimmedMean
from fedjoint.strategies.unify import Unify
from fedjoint.strategies.upgrad import UPGrad

OF_TASKS = [
    MGDA,
    CAGrad,
    NashMTL,
    IMTLG,
    AlignedMTL,
    PCGrad,
    GradVac,
    UPGrad,
    FairGrad,
    ConFIG,
]


def by_client(rule):
    """Return what builds ``rule`` at the level of clients, for the tests of single rows."""

    def build():
        return rule(level="client")

    build.__name__ = f"{rule.__name__} by client"
    return build


BY_CLIENT = [by_client(rule) for rule in OF_TASKS]
SUMS = [
    *OF_TASKS,
    FedAvg,
    FedAvgM,
    SWA,
    FedProx,
    TaskBalanced,
    Unify,
    FedAdagrad,
    FedAdam,
    FedYogi,
    FedRep,
    FedBABU,
    Ditto,
    APFL,
]
ROWS = [
    FedNova,
    Scaffold,
    FedDyn,
    IFCA,
    CFL,
    Median,
    TrimmedMean,
    Krum,
    MultiKrum,
    Bulyan,
    GeometricMedian,
    NormClip,
    FedMGDA,
    *BY_CLIENT,
]
EVERY = SUMS + ROWS
FIXED_LENGTH = [FedAdagrad, FedAdam, FedYogi, NormClip]
ADAPTED = [*FIXED_LENGTH, IFCA, CFL]  # or steps of several backbones
CAGRAD = [CAGrad, BY_CLIENT[OF_TASKS.index(CAGrad)]]
every = pytest.mark.parametrize("build", EVERY)


def without(*left_out):
    return pytest.mark.parametrize("build", [b for b in EVERY if b not in left_out])


@every
def test_per_client_is_said(build):
    assert isinstance(build(), JointStrategy)
    assert build().per_client == (build in ROWS)


@pytest.mark.parametrize("build", SUMS)
def test_sums_over_blocks_of_clients_with_the_same_tasks_suffice(build, draw):
    updates = draw(8, common=0.5)
    kinds, block = updates.tasks.unique(dim=0, return_inverse=True)
    assert len(kinds) < 8
    member = torch.nn.functional.one_hot(block).T.float() * updates.weights
    blocks = replace(
        updates,
        matrix=member @ updates.matrix / member.sum(1, keepdim=True),
        weights=member.sum(1),
        examples=torch.ones(len(kinds), dtype=torch.int64),
        clients=torch.arange(len(kinds)),
        tasks=kinds,
        steps=torch.ones(len(kinds), dtype=torch.int64),
        extras={},
    )
    torch.testing.assert_close(build().merge(blocks), build().merge(updates), rtol=1e-3, atol=1e-5)


@every
def test_the_order_of_the_rows_does_not_matter(build, draw):
    updates = draw(7, common=0.5)
    p = torch.tensor([4, 0, 6, 2, 5, 1, 3])
    shuffled = replace(
        updates,
        matrix=updates.matrix[p],
        weights=updates.weights[p],
        tasks=updates.tasks[p],
        examples=updates.examples[p],
        clients=updates.clients[p],
        steps=updates.steps[p],
        extras={name: rows[p] for name, rows in updates.extras.items()},
    )
    torch.testing.assert_close(
        build().merge(shuffled), build().merge(updates), rtol=1e-3, atol=1e-4
    )


@without(*ADAPTED)
@pytest.mark.parametrize("scale", [1e-4, 1e3])
def test_scaled_updates_scale_the_step(build, scale, draw):
    updates = draw(7, common=0.5)
    scaled = replace(updates, matrix=scale * updates.matrix)
    torch.testing.assert_close(
        build().merge(scaled) / scale, build().merge(updates), rtol=1e-3, atol=1e-4
    )


@without(*ADAPTED, *CAGRAD, FedDyn)
def test_one_client_is_followed(build, draw):
    updates = draw(1)
    torch.testing.assert_close(build().merge(updates), updates.matrix[0])


@every
def test_state_restored_into_a_fresh_instance_continues_the_run(build, draw):
    straight = build()
    sent = straight.broadcast(draw(7, seed=1).backbone)
    straight.merge(draw(7, seed=1))
    saved = {name: tensor.clone() for name, tensor in straight.state.items()}
    assert all(isinstance(tensor, torch.Tensor) for tensor in [*saved.values(), *sent.values()])
    resumed = build()
    resumed.state = saved
    second = draw(7, seed=2, round=2)
    torch.testing.assert_close(resumed.merge(second), straight.merge(second), rtol=0, atol=0)
    assert resumed.state.keys() == straight.state.keys()
    for name, tensor in straight.state.items():
        assert resumed.state[name].equal(tensor)


@every
def test_the_updates_are_left_as_they_were(build, draw):
    updates, same = draw(7), draw(7)
    build().merge(updates)
    assert updates.matrix.equal(same.matrix) and updates.weights.equal(same.weights)
    assert updates.backbone.equal(same.backbone)


class Largest(TorchDispatchMode):
    """Count new tensors of at least ``size`` numbers."""

    def __init__(self, size):
        super().__init__()
        self.size, self.count = size, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        old = {t.untyped_storage().data_ptr() for t in args if isinstance(t, torch.Tensor)}
        for t in result if isinstance(result, tuple | list) else [result]:
            if isinstance(t, torch.Tensor) and t.untyped_storage().data_ptr() not in old:
                self.count += t.numel() >= self.size
        return result


def test_large_tensors_are_counted():
    x = torch.ones(100)
    with Largest(100) as largest:
        _ = x + 1, x[None], x[:50] + 1, x.sort()
    assert largest.count == 3  # the sum, and both parts of the sort


@every
def test_no_second_copy_of_the_updates(build, draw, monkeypatch):
    monkeypatch.setattr("fedjoint.strategies._columns.BLOCK", 2000)
    monkeypatch.setattr("fedjoint.server.updates.BLOCK", 2000)
    updates = draw(40, size=2000, common=0.5)
    strategy = build()
    with Largest(40 * 2000 // 2) as largest:
        strategy.merge(updates)
    assert largest.count == 0
