"""The same training in plain PyTorch, one client at a time."""

import numpy as np
import torch
import torch.nn.functional as F

from fedjoint.training.minibatches import schedule


def train(model, config, data, client, round, steps=None):
    """Train ``model`` for one round on one client's data."""
    local = config.local
    optimiser = torch.optim.SGD(
        model.parameters(),
        lr=local.optimiser.lr * local.lr_decay ** (round - 1),
        momentum=local.optimiser.momentum,
        weight_decay=local.optimiser.weight_decay,
    )
    budget = {"epochs": local.epochs} if steps is None else {"steps": steps}
    drawn = schedule(
        config.seed,
        round,
        np.array([client]),
        np.array([len(data.train)]),
        batch_size=local.batch_size,
        **budget,
    )
    for index, mask in zip(drawn.index[:, 0], drawn.mask[:, 0], strict=True):
        at = torch.from_numpy(index[mask])
        features = model.backbone(data.train.x[at])
        loss = torch.zeros(())
        for task, labels in data.train.y.items():
            y = labels[at]
            known = ~y.isnan().any(-1) if y.is_floating_point() else y >= 0
            if known.any():
                out = model.heads[task](features)[known]
                way = F.mse_loss if y.is_floating_point() else F.cross_entropy
                loss = loss + way(out, y[known])
        optimiser.zero_grad(set_to_none=False)
        loss.backward()
        optimiser.step()


def pooled_metrics(problem, models):
    """Return every task's test metric, over the examples of all ``(client, model)`` together."""
    found = {}
    for task in problem.tasks:
        outputs, labels = [], []
        for data, model in models:
            if task.name in data.test.y:
                with torch.no_grad():
                    outputs.append(model.heads[task.name](model.backbone(data.test.x)))
                labels.append(data.test.y[task.name])
        out, y = torch.cat(outputs), torch.cat(labels)
        if task.kind == "multiclass":
            found[task.name] = (out.argmax(1) == y)[y >= 0].double().mean().item()
        else:
            known = ~y.isnan().any(-1)
            out, y = out[known].double(), y[known].double()
            found[task.name] = 1 - (((out - y) ** 2).sum() / ((y - y.mean(0)) ** 2).sum()).item()
    return found
