"""A whole model that is shared, heads and all: FedAvg in plain PyTorch."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import fedjoint
from fedjoint.exports.export import export

SIZES = np.array([10, 20, 30])
RATE, ROUNDS, EPOCHS = 0.1, 3, 2


class Halves:
    task_names = ("side",)
    sizes, tasks = SIZES, np.ones((3, 1), bool)

    def client(self, index):
        x = torch.randn(int(SIZES[index]), 4, generator=torch.Generator().manual_seed(index))
        examples = fedjoint.Examples(x, {"side": (x[:, 0] > 0).long()})
        return fedjoint.Client(examples, examples, examples)


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2))


@pytest.mark.parametrize("path", ["batched", "sequential"])
def test_it_is_plain_federated_averaging(path, tmp_path):
    task = fedjoint.Task("side", "multiclass", 2, head=lambda features: nn.Identity())
    problem = fedjoint.Problem([task], network, Halves(), torch.zeros(1, 4))
    local = {
        "epochs": EPOCHS,
        "batch_size": 30,
        "optimiser": {"lr": RATE},
        "path": path,
    }
    tree = {"rounds": ROUNDS, "engine": "inline", "output": {"dir": str(tmp_path)}, "local": local}
    result = fedjoint.simulate(tree, problem)

    model = problem.model(fedjoint.Config()).backbone
    for _ in range(ROUNDS):
        states = []
        for client in range(3):
            own, data = copy.deepcopy(model), Halves().client(client).train
            optimiser = torch.optim.SGD(own.parameters(), RATE)
            for _ in range(EPOCHS):  # one minibatch: no order to draw
                optimiser.zero_grad()
                F.cross_entropy(own(data.x), data.y["side"]).backward()
                optimiser.step()
            states.append(own.state_dict())
        pairs = list(zip(states, SIZES / 60, strict=True))
        mean = {n: sum(s[n] * share for s, share in pairs) for n in model.state_dict()}
        model.load_state_dict(mean)
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(result.backbone[f"backbone.{name}"], tensor)
    export(result.path, "side", problem=problem)


class Sides:
    """Three clients: one has both tasks, the others one each."""

    task_names = ("side", "height")
    sizes = SIZES
    tasks = np.array([[True, False], [True, True], [False, True]])

    def client(self, index):
        x = torch.randn(int(SIZES[index]), 4, generator=torch.Generator().manual_seed(index))
        y = {"side": (x[:, 0] > 0).long(), "height": x[:, 1:2] * 0.3}
        own = {n: t for n, t in y.items() if self.tasks[index][self.task_names.index(n)]}
        examples = fedjoint.Examples(x, own)
        return fedjoint.Client(examples, examples, examples)


def body():
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh())


LOSSES = {"side": F.cross_entropy, "height": F.mse_loss}


RAY = pytest.param("ray", marks=[pytest.mark.slow, pytest.mark.xdist_group("ray")])


@pytest.mark.parametrize("path", ["batched", "sequential"])
@pytest.mark.parametrize("engine", ["inline", RAY])
def test_shared_heads_are_averaged_over_the_clients_of_their_task(path, engine, tmp_path, request):
    if engine == "ray":
        request.getfixturevalue("two_workers")
    tasks = [fedjoint.Task("side", "multiclass", 2), fedjoint.Task("height", "regression", 1)]
    problem = fedjoint.Problem(tasks, body, Sides(), torch.zeros(1, 4))
    tree = {
        "rounds": ROUNDS,
        "engine": {"name": engine, "workers": 2 if engine == "ray" else 0},
        "output": {"dir": str(tmp_path)},
        "model": {"heads": "shared"},
        "local": {
            "epochs": EPOCHS,
            "batch_size": 30,
            "optimiser": {"lr": RATE},
            "path": path,
        },
    }
    result = fedjoint.simulate(tree, problem)

    model = problem.model(fedjoint.Config())
    has = [[n for n, row in zip(Sides.task_names, own, strict=True) if row] for own in Sides.tasks]
    for _ in range(ROUNDS):
        states = []
        for client, names in enumerate(has):
            own, data = copy.deepcopy(model), Sides().client(client).train
            optimiser = torch.optim.SGD(own.parameters(), RATE)
            for _ in range(EPOCHS):  # one minibatch: no order to draw
                optimiser.zero_grad()
                out = own(data.x, names)
                sum(LOSSES[n](out[n], data.y[n]) for n in names).backward()
                optimiser.step()
            states.append(own.state_dict())
        mean = {}
        for name in model.state_dict():
            task = name.split(".")[1] if name.startswith("heads.") else None
            who = [i for i in range(3) if task is None or task in has[i]]
            mean[name] = sum(states[i][name] * SIZES[i] for i in who) / SIZES[who].sum()
        model.load_state_dict(mean)
    assert set(result.backbone) == set(model.state_dict())
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(result.backbone[name], tensor)
    x = Sides().client(1).test.x
    for task in Sides.task_names:
        exported = export(result.path, task, problem=problem).model
        with torch.no_grad():
            torch.testing.assert_close(exported(x), model(x, [task])[task])
