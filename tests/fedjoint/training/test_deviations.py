"""What clients would send for each task alone, against autograd and steps in plain PyTorch."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from support.mixed import KEPT, TASKS, Mixed, gradients, norm, plain, problem

import fedjoint
from fedjoint.config.load import check
from fedjoint.config.schema import OptimiserConfig
from fedjoint.server.strategy import checked_merge
from fedjoint.simulation import simulate
from fedjoint.training.deviations import deviations

NAMES = Mixed.task_names
RATE = 0.1
APART = {"strategy": {"name": "pcgrad"}}
FULL = {"steps": 1, "batch_size": 100, "optimiser": {"lr": RATE}}  # the gradient of all examples


@pytest.fixture
def merged(tmp_path, monkeypatch):
    """Return what gives the updates that a run of one round merges, and its record."""

    def run(backbone=plain, **tree):
        seen = []

        def spy(strategy, updates):
            seen.append(updates)
            return checked_merge(strategy, updates)

        monkeypatch.setattr("fedjoint.server.merging.checked_merge", spy)
        base = {"rounds": 1, "engine": {"name": "inline"}, "output": {"dir": str(tmp_path)}}
        result = simulate({**base, **APART, "local": FULL, **tree}, problem(backbone))
        return seen[0], result.records[0]

    return run


def own_rows(updates):
    """Return (client, task) -> the update of the task, from what was sent."""
    rows = {}
    for row, client in enumerate(updates.clients.tolist()):
        tasks = [NAMES[t] for t in updates.tasks[row].nonzero().flatten().tolist()]
        rows |= {(client, task): updates.matrix[row].clone() for task in tasks}
    found = updates.deviations
    for deviation, row, task, rest in zip(
        found.matrix, *(c.tolist() for c in (found.rows, found.tasks, found.rests)), strict=True
    ):
        client = int(updates.clients[row])
        rows[client, NAMES[task]] += deviation
        rows[client, NAMES[rest]] -= deviation
    return rows


@pytest.mark.parametrize("path", ["batched", "sequential"])
@pytest.mark.parametrize("size", [1024, 7], ids=["one pass", "several passes"])
def test_after_one_full_step_they_are_the_steps_of_the_tasks(merged, path, size):
    weights = {"a": 3.0, "b": 0.5}
    updates, _ = merged(
        bare,
        local={**FULL, "path": path},
        evaluate={"batch_size": size},
        balance={"name": "fixed", "options": {"weights": weights}},
    )
    found, model = own_rows(updates), problem(bare).model(check({}))
    for client in range(4):
        of = gradients(model, client)
        for task, gradient in of.items():
            expected = -RATE * len(of) * weights.get(task, 1.0) * gradient
            torch.testing.assert_close(found[client, task].double(), expected, rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(updates.by_task().mean(), updates.mean())


def bare():
    """``plain`` without its dropout, which is not there in evaluation mode."""
    return plain()[:2]


@pytest.mark.parametrize("name", ["uncertainty", "gradnorm", "dwa"])
def test_a_task_counts_as_its_balance_weighs_it(merged, name):
    updates, _ = merged(bare, balance={"name": name})
    found, model = own_rows(updates), problem(bare).model(check({}))
    halves = {"b": 0.5, "c": 0.5} if name == "uncertainty" else {}  # of squares, at a variance of 1
    for client in KEPT:
        for task, gradient in gradients(model, client).items():
            expected = -RATE * 2 * halves.get(task, 1.0) * gradient
            torch.testing.assert_close(found[client, task].double(), expected, rtol=1e-4, atol=1e-7)


OPTIMISERS = {
    "sgd": {"name": "sgd", "lr": 0.2, "momentum": 0.7},
    "adam": {"name": "adam", "lr": 0.01},
    "adamw": {"name": "adamw", "lr": 0.01, "weight_decay": 0.1},
}


@pytest.mark.parametrize("optimiser", OPTIMISERS.values(), ids=OPTIMISERS)
@pytest.mark.parametrize("backbone", [plain, norm])
def test_their_differences_are_those_of_gradients_and_their_mean_is_the_update(
    merged, optimiser, backbone
):
    updates, _ = merged(backbone, local={"epochs": 3, "batch_size": 4, "optimiser": optimiser})
    found, model = own_rows(updates), problem(backbone).model(check({}))
    for row, client in enumerate(updates.clients.tolist()):
        of = gradients(model, client)
        own = torch.stack([found[client, task] for task in of]).double()
        update = updates.matrix[row].double()
        torch.testing.assert_close(own.mean(0), update, rtol=1e-4, atol=1e-6)
        if len(of) < 2:
            continue
        (u, v), apart = of.values(), own[0] - own[1]
        cosine = apart @ (v - u) / apart.norm() / (v - u).norm()
        assert cosine == pytest.approx(1, abs=1e-5)
        # The mean of the gradients, by the same factor, is as long as the update, or shorter.
        factor = apart.norm() / (v - u).norm()
        assert factor * (u + v).norm() / 2 <= update.norm() * (1 + 1e-4)
    torch.testing.assert_close(updates.by_task().mean(), updates.mean())


def test_where_tasks_cancel_out_the_factor_is_that_of_the_steps():
    pulls = torch.tensor([[[1.0, 0.0], [-1.0, 0.0]], [[0.0, 2.0], [0.0, -1.9]]])
    update = torch.tensor([[0.0, 0.0], [3.0, 0.0]])
    job = SimpleNamespace(steps=np.array([3, 2]), momentum=0.5, rate=torch.tensor([0.1, 0.2]))
    found = deviations(job, pulls, update, OptimiserConfig(name="sgd", momentum=0.5))
    # By hand: three steps with momentum 1/2 go 1 + 3/2 + 7/4, two of them 1 + 3/2.
    first, second = 2 * 0.1 * (1 + 1.5 + 1.75), 2 * 0.2 * (1 + 1.5)
    expected = [[[-first, 0.0]], [[0.0, second * (0.05 - 2)]]]
    torch.testing.assert_close(found, torch.tensor(expected))
    adam = deviations(job, pulls, update, OptimiserConfig(name="adam"))
    # No further than the rate in each of two coordinates a step, twice, as there are two tasks.
    torch.testing.assert_close(adam[0].norm(), torch.tensor(2 * 3 * 0.1 * 2**0.5))
    still = SimpleNamespace(steps=np.array([0, 0]), momentum=0.0, rate=job.rate)
    for name in ("sgd", "adam"):
        assert not deviations(still, pulls, update, OptimiserConfig(name=name)).any()
        assert not deviations(job, 0 * pulls, update, OptimiserConfig(name=name)).any()


def test_clients_with_one_task_send_nothing_more_and_bytes_are_counted(merged):
    fed, record = merged()
    _, without = merged(strategy={"name": "pcgrad", "options": {"level": "task_mean"}})
    size = fed.matrix.shape[1]
    assert fed.deviations.matrix.shape == (len(KEPT), size)  # two tasks each: one row more
    assert set(fed.deviations.rows.tolist()) == set(KEPT)
    assert TASKS[3].sum() == 1
    assert record.bytes.up == without.bytes.up + 4 * size * len(KEPT)
    assert record.bytes.down == without.bytes.down


@pytest.mark.parametrize(
    "options", [{"level": "task_mean"}, {"level": "client"}], ids=["task_mean", "client"]
)
def test_who_does_not_ask_gets_nothing(merged, options):
    updates, _ = merged(strategy={"name": "pcgrad", "options": options})
    assert updates.deviations is None


@pytest.mark.parametrize("blocks", [1, 3])
def test_means_of_blocks_give_the_same_rows(merged, blocks):
    by_client, _ = merged(engine={"name": "inline", "blocks": 1})
    summed, record = merged(engine={"name": "inline", "blocks": blocks}, diagnostics={"clients": 2})
    assert len(by_client) == 4 and (blocks > 1 or len(summed) == 3)  # three sets of tasks
    one, other = by_client.by_task(), summed.by_task()
    torch.testing.assert_close(one.matrix, other.matrix)
    torch.testing.assert_close(one.weights, other.weights)
    size = by_client.matrix.shape[1]
    assert record.bytes.up == 4 * size * (4 + len(KEPT))


COMPRESSIONS = {  # settings, bytes of a row of so many numbers, error of an entry of at most one
    "int8": ({"name": "int8"}, lambda size: size + 4, 1 / 254),
    "topk": ({"name": "topk", "options": {"fraction": 1.0}}, lambda size: 8 * size, 0),
}


@pytest.mark.parametrize(("settings", "size_of", "error"), COMPRESSIONS.values(), ids=COMPRESSIONS)
def test_they_are_compressed_as_updates_are(merged, settings, size_of, error):
    exact, _ = merged()
    updates, record = merged(strategy={"name": "pcgrad", "compression": settings})
    one, other, size = own_rows(exact), own_rows(updates), exact.matrix.shape[1]
    longest = exact.matrix.abs().max() + exact.deviations.matrix.abs().max()
    for key, row in one.items():
        torch.testing.assert_close(other[key], row, rtol=1e-5, atol=float(error * longest) + 1e-7)
    torch.testing.assert_close(updates.by_task().mean(), updates.mean())
    assert record.bytes.up == (4 + len(KEPT)) * size_of(size)


def test_the_record_tells_the_tasks_of_one_client_apart(merged):
    fed, record = merged()
    rows = fed.by_task()
    said = record.diagnostics["tasks"]
    unit = rows.matrix / rows.matrix.norm(dim=1, keepdim=True)
    np.testing.assert_allclose(np.array(said["cosine"], float), unit @ unit.T, atol=1e-5)


POINTS = {"a": torch.tensor([[3.0, 0.0]]), "b": torch.tensor([[-1.0, 1.0]])}


class Both:
    """Two clients, whose tasks want the parameters to be at two known points."""

    task_names = ("a", "b")
    sizes, tasks = np.ones(2, np.int64), np.ones((2, 2), bool)

    def client(self, index):
        examples = fedjoint.Examples(torch.ones(1, 2), POINTS)
        return fedjoint.Client(examples, examples, examples)


class Parameters(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.w = torch.nn.Parameter(torch.zeros(2))

    def forward(self, x):
        return x * self.w


def test_opposed_tasks_of_the_same_clients_are_projected(tmp_path):
    how = {"head": lambda features: torch.nn.Identity(), "scale": "none", "metric": "rmse"}
    tasks = [fedjoint.Task(name, "regression", 2, **how) for name in POINTS]
    problem = fedjoint.Problem(tasks, Parameters, Both(), torch.zeros(1, 2))
    steps = {}
    for level in ("task", "task_mean"):
        strategy = {"name": "pcgrad", "options": {"level": level}}
        tree = {"rounds": 1, "engine": {"name": "inline"}, "local": FULL, "strategy": strategy}
        result = simulate({**tree, "output": {"dir": str(tmp_path)}}, problem)
        steps[level] = result.backbone["backbone.w"]
    # By hand: mean squares over two outputs pull with w - point, so u = rate * (a + b), and each
    # task's own is twice rate * point; half of each, less its part along the other.
    a, b = (RATE * POINTS[name][0] for name in POINTS)
    assert a @ b < 0
    projected = (a - (a @ b) / (b @ b) * b) + (b - (a @ b) / (a @ a) * a)
    torch.testing.assert_close(steps["task"], projected)
    torch.testing.assert_close(steps["task_mean"], a + b)
