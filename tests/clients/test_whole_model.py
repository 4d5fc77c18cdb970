"""A whole model that is shared, its heads the identity: FedAvg in plain PyTorch."""

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


@pytest.mark.parametrize("sequential", [False, True], ids=["batched", "sequential"])
def test_it_is_plain_federated_averaging(sequential, tmp_path):
    task = fedjoint.Task("side", "multiclass", 2, head=lambda features: nn.Identity())
    problem = fedjoint.Problem([task], network, Halves(), torch.zeros(1, 4))
    local = {
        "epochs": EPOCHS,
        "batch_size": 30,
        "optimiser": {"lr": RATE},
        "sequential": sequential,
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
