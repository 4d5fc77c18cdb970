"""How the tasks of one client agree, against autograd on each task's loss in plain PyTorch."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import fedjoint
from fedjoint.config.load import check
from fedjoint.problem import Problem
from fedjoint.simulation import simulate
from fedjoint.training.trainer import Trainer

SIZES = np.array([9, 14, 30, 12])
#: the last two clients have another set of tasks; the first lacks labels of b
TASKS = np.array(
    [[True, True, False], [True, True, False], [True, False, True], [False, True, False]]
)
KEPT = (0, 1, 2)  # have several


class Mixed:
    task_names = ("a", "b", "c")
    sizes, tasks = SIZES, TASKS

    def client(self, index):
        g = torch.Generator().manual_seed(index)
        x = torch.randn(int(SIZES[index]), 4, generator=g)
        y = {"a": (x[:, 0] > 0).long(), "b": x[:, 1:2] * 2, "c": x[:, :2].tanh()}
        if index == 0:
            y["b"][::2] = torch.nan
        y = {name: labels for name, labels in y.items() if TASKS[index][self.place(name)]}
        examples = fedjoint.Examples(x, y)
        return fedjoint.Client(examples, examples, examples)

    def place(self, name):
        return self.task_names.index(name)


def plain():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Dropout(0.5))


def norm():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Dropout(0.5))


def problem(backbone):
    tasks = [
        fedjoint.Task("a", "multiclass", 2),
        fedjoint.Task("b", "regression", 1),
        fedjoint.Task("c", "regression", 2),
    ]
    return Problem(tasks, backbone, Mixed(), torch.zeros(1, 4))


LOSSES = {
    "a": F.cross_entropy,
    "b": lambda output, y: F.mse_loss(output[~y.isnan()], y[~y.isnan()]),
    "c": F.mse_loss,
}


def standardised(labels):
    """Targets as a client learns them."""
    known = labels[~labels.isnan().any(1)]
    return (labels - known.mean(0)) / known.std(0, correction=0)


def cosines(model, client, most=10**6):
    """Return task pair -> cosine of the gradients of their losses by the backbone."""
    data, gradients = Mixed().client(client).train, {}
    model.eval()
    for name, labels in data.y.items():
        labels = labels if name == "a" else standardised(labels)
        output = model.heads[name](model.backbone(data.x[:most]))
        loss = LOSSES[name](output, labels[:most])
        of = torch.autograd.grad(loss, list(model.backbone.parameters()))
        gradients[name] = torch.cat([g.flatten() for g in of]).double()
    first, second = gradients
    return (first, second), gradients[first], gradients[second]


@pytest.mark.parametrize("sequential", [False, True], ids=["batched", "sequential"])
@pytest.mark.parametrize("backbone", [plain, norm])
@pytest.mark.parametrize("most", [1024, 7])
def test_inner_products_are_those_of_autograd(sequential, backbone, most):
    local, evaluate = {"sequential": sequential}, {"batch_size": most}
    trainer = Trainer(
        problem(backbone), check({"local": local, "evaluate": evaluate}), torch.device("cpu")
    )
    received = trainer.layout.flat(trainer.model.state_dict())
    ids = np.array(KEPT)
    for at in trainer.chunks(ids):
        clients = ids[at]
        cohort = trainer.cohort(clients, clients)
        fresh = trainer.fresh(cohort.tasks, fedjoint.LocalMethod(), received)
        private = {n: torch.stack([t] * len(clients)) for n, t in fresh.items()}
        shared = received.expand(len(clients), -1)
        found = trainer.within(trainer.job(cohort, 1, received, {}, shared, private))
        for row, client in enumerate(clients.tolist()):
            _, u, v = cosines(trainer.model, client, most)
            expected = torch.stack([u, v]) @ torch.stack([u, v]).T
            torch.testing.assert_close(found[row], expected, rtol=1e-4, atol=1e-7)
        assert torch.equal(received, trainer.layout.flat(trainer.model.state_dict()))


@pytest.mark.parametrize("blocks", [1, 3])
def test_the_record_has_their_mean_cosine(blocks, tmp_path):
    tree = {
        "rounds": 2,
        "engine": {"name": "inline", "blocks": blocks},
        "output": {"dir": str(tmp_path)},
        "diagnostics": {"within_every": 2, "every": 0},
        "local": {"optimiser": {"lr": 1e-12}},  # so that nothing moves before the second round
    }
    result = simulate(tree, problem(plain))
    first, second = (record.diagnostics for record in result.records)
    assert first is None
    model, pairs = problem(plain).model(check(tree)), {}
    for client in KEPT:
        pair, u, v = cosines(model, client)
        pairs.setdefault(pair, []).append(float(u @ v / u.norm() / v.norm()))
    within = second["within"]
    assert within["ids"] == ["a", "b", "c"] and within["clients"] == 3
    for i, one in enumerate(within["ids"]):
        for j, other in enumerate(within["ids"]):
            values = pairs.get((one, other)) or pairs.get((other, one))
            expected = 1.0 if i == j else np.mean(values) if values else None
            assert within["cosine"][i][j] == pytest.approx(expected, abs=1e-4)
    every = np.concatenate(list(pairs.values()))
    assert within["conflicting"] == pytest.approx((every < 0).mean())


def test_it_changes_nothing(tmp_path):
    tree = {"rounds": 3, "engine": "inline", "output": {"dir": str(tmp_path)}}
    with_it, without = (
        simulate(tree | {"diagnostics": {"within_every": every}}, problem(norm)).backbone
        for every in (1, 0)
    )
    for name, tensor in without.items():
        assert torch.equal(with_it[name], tensor)
