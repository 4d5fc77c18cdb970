"""Four clients with several tasks each but for the last, of several sets, with labels missing."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

import fedjoint
from fedjoint.problem import Problem

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


def gradients(model, client, rows=slice(None)):
    """Return task -> the gradient ``[P]`` of its loss by the backbone, float64."""
    data, found = Mixed().client(client).train, {}
    model.eval()
    for name, labels in data.y.items():
        labels = labels if name == "a" else standardised(labels)
        output = model.heads[name](model.backbone(data.x[rows]))
        loss = LOSSES[name](output, labels[rows])
        of = torch.autograd.grad(loss, list(model.backbone.parameters()))
        found[name] = torch.cat([g.flatten() for g in of]).double()
    return found
