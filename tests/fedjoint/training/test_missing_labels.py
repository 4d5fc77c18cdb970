"""Every rule of balance where minibatches and rounds lack labels, against plain PyTorch loops."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fedjoint import Client, Examples, Problem, Task
from fedjoint.config.load import check
from fedjoint.config.schema import BalanceConfig
from fedjoint.training.balance import make_balance
from fedjoint.training.method import LocalMethod
from fedjoint.training.minibatches import schedule
from fedjoint.training.trainer import Trainer

PATHS = pytest.mark.parametrize("path", ["batched", "sequential"])
BATCH, ROUNDS = 4, 8
TASKS = [
    Task("kind", "multiclass", 3),
    Task("size", "regression", 2, scale="none"),  # the plain loop learns them as they are
    Task("tags", "multilabel", 2),
]
NAMES = [task.name for task in TASKS]


class Gaps:
    """Every example has a ``kind``, one in nine a ``size``, one in four ``tags``."""

    task_names = tuple(NAMES)
    sizes = np.array([13, 22, 17])
    tasks = np.ones((3, 3), bool)

    def client(self, index):
        g = torch.Generator().manual_seed(index)
        n = int(self.sizes[index])
        x, at = torch.randn(n, 5, generator=g), torch.arange(n)
        y = {
            "kind": x[:, :3].argmax(1),
            "size": torch.where((at % 9 == 0)[:, None], x[:, :2] + 1, torch.nan),
            "tags": torch.where((at % 4 == 0)[:, None], (x[:, 2:4] > 0).float(), torch.nan),
        }
        examples = Examples(x, y)
        return Client(examples, examples.take(at[:0]), examples.take(at[:0]))


def make(rule, path, budget, optimiser, **constants):
    config = check(
        {
            "local": {
                "batch_size": BATCH,
                "path": path,
                "optimiser": optimiser,
                **budget,
            },
            "balance": {"name": rule, "options": constants},
        }
    )
    backbone = lambda: nn.Sequential(nn.Linear(5, 6), nn.Tanh())  # noqa: E731
    return config, Problem(TASKS, backbone, Gaps(), torch.ones(1, 5))


def train(config, problem):
    """Train every client for some rounds; return its tensors by name, and its rounds' losses."""
    trainer = Trainer(problem, config, torch.device("cpu"))
    received = trainer.layout.flat(trainer.model.state_dict())
    found = []
    for at in trainer.chunks(np.arange(3)):
        ids = np.arange(3)[at]
        cohort = trainer.cohort(ids, ids)
        fresh = trainer.fresh(cohort.tasks, LocalMethod(), received)
        private = {n: torch.stack([t] * len(ids)) for n, t in fresh.items()}
        shared, losses = received.repeat(len(ids), 1), []
        for round in range(1, ROUNDS + 1):
            job = trainer.job(cohort, round, received, {}, shared, private)
            job.descend()
            losses.append(job.losses)
        everything = {**trainer.layout.views(shared), **private}
        found += [
            ({n: t[row] for n, t in everything.items()}, torch.stack(losses)[:, row])
            for row in range(len(ids))
        ]
    return found


def batches(config, data, client, round):
    drawn = schedule(
        config.seed,
        round,
        np.array([client]),
        np.array([len(data)]),
        batch_size=BATCH,
        epochs=config.local.epochs,
        steps=config.local.steps,
    )
    for index, mask in zip(drawn.index[:, 0], drawn.mask[:, 0], strict=True):
        if mask.any():
            at = torch.from_numpy(index[mask])
            yield data.x[at], {name: y[at] for name, y in data.y.items()}


def task_losses(model, x, y):
    """Return the tasks' mean losses over their labels, zero without, and which have labels."""
    output = model(x)
    size, tags = (~y[name].isnan().any(1) for name in ("size", "tags"))
    losses = [
        F.cross_entropy(output["kind"], y["kind"]),
        F.mse_loss(output["size"][size], y["size"][size])
        if size.any()
        else 0 * output["size"].sum(),
        F.binary_cross_entropy_with_logits(output["tags"][tags], y["tags"][tags])
        if tags.any()
        else 0 * output["tags"].sum(),
    ]
    return losses, [True, bool(size.any()), bool(tags.any())]


class Plain:
    """Fixed weights of one; the rules below differ."""

    def __init__(self, config):
        self.config, self.parameters = config, []

    def total(self, losses, there):
        return sum(losses)

    def after_step(self, lengths, losses, there):
        pass

    def after_round(self, losses):
        pass

    def state(self):
        return {}


class Weighted(Plain):
    def total(self, losses, there):
        return 0.5 * losses[0] + 2 * losses[1] + losses[2]


class Uncertain(Plain):
    def __init__(self, config):
        super().__init__(config)
        self.s = [torch.zeros((), requires_grad=True) for _ in TASKS]
        self.parameters = self.s

    def total(self, losses, there):
        c = [1, 0.5, 1]
        terms = [c * torch.exp(-s) * x + s / 2 for c, s, x in zip(c, self.s, losses, strict=True)]
        return sum(t if known else 0 * t for t, known in zip(terms, there, strict=True))

    def state(self):
        return {"balance.log_variance": torch.stack(self.s).detach()}


class Normed(Plain):
    """The paper's loss of the weights, differentiated; only over the tasks with labels."""

    def __init__(self, config):
        super().__init__(config)
        self.w, self.first = [1.0, 1.0, 1.0], [math.nan] * 3

    def total(self, losses, there):
        return sum(w * x for w, x in zip(self.w, losses, strict=True))

    def after_step(self, lengths, losses, there):
        here = [t for t in range(3) if there[t]]
        for t in here:
            if math.isnan(self.first[t]):
                self.first[t] = losses[t]
        w = torch.tensor([self.w[t] for t in here], requires_grad=True)
        n = torch.tensor([lengths[t] for t in here])
        ratio = torch.tensor([losses[t] / self.first[t] for t in here])
        target = ((w * n).mean() * (ratio / ratio.mean()) ** 1.5).detach()
        (slope,) = torch.autograd.grad((w * n - target).abs().sum(), w)
        moved = (w.detach() - self.config.balance.options["lr"] * slope).clamp(min=1e-3)
        moved = moved * float(w.detach().sum()) / moved.sum()
        for t, value in zip(here, moved.tolist(), strict=True):
            self.w[t] = value

    def state(self):
        return {
            "balance.weights": torch.tensor(self.w),
            "balance.first_losses": torch.tensor(self.first),
        }


class Averaged(Plain):
    def __init__(self, config):
        super().__init__(config)
        self.told = [[], [], []]

    def total(self, losses, there):
        ratio = [told[-1] / told[-2] if len(told) > 1 else 1.0 for told in self.told]
        power = [math.exp(r / self.config.balance.options["temperature"]) for r in ratio]
        return sum(3 * p / sum(power) * x for p, x in zip(power, losses, strict=True))

    def after_round(self, losses):
        for told, loss in zip(self.told, losses, strict=True):
            if not math.isnan(loss):
                told.append(loss)

    def state(self):
        padded = [[math.nan, math.nan, *told][-2:] for told in self.told]
        return {"balance.history": torch.tensor(padded).T}


def plain_loop(config, problem, client, optimiser, rule):
    """Train one client with torch.optim; return its tensors, its rounds' losses, and the gaps."""
    model, data = problem.model(config), problem.data.client(client).train
    backbone = list(model.backbone.parameters())
    told, gaps = [], []
    for round in range(1, ROUNDS + 1):
        steps = optimiser([*model.parameters(), *rule.parameters])
        found = []
        for x, y in batches(config, data, client, round):
            losses, there = task_losses(model, x, y)
            lengths = [
                float(torch.cat([g.flatten() for g in gradients]).norm())
                for gradients in (
                    torch.autograd.grad(loss, backbone, retain_graph=True) for loss in losses
                )
            ]
            steps.zero_grad()
            rule.total(losses, there).backward()
            steps.step()
            losses = [x.item() for x in losses]
            rule.after_step(lengths, losses, there)
            found.append([x if t else math.nan for x, t in zip(losses, there, strict=True)])
            gaps.append(there)
        told.append(torch.tensor(found).nanmean(0))
        rule.after_round(told[-1].tolist())
    return {**model.state_dict(), **rule.state()}, torch.stack(told), gaps


SGD = {"name": "sgd", "lr": 0.1}
RULES = {
    "fixed": (Plain, {}),
    "weighted": (Weighted, {"weights": {"kind": 0.5, "size": 2.0}}),
    "uncertainty": (Uncertain, {}),
    "gradnorm": (Normed, {"lr": 0.1}),
    "dwa": (Averaged, {"temperature": 0.3}),
}


@pytest.mark.parametrize("budget", [{"epochs": 1}, {"steps": 2}], ids=["epochs", "steps"])
@PATHS
@pytest.mark.parametrize("name", RULES)
def test_a_rule_equals_a_plain_loop_where_labels_are_missing(name, path, budget):
    rule, constants = RULES[name]
    config, problem = make(name.replace("weighted", "fixed"), path, budget, SGD, **constants)
    rounds_without = 0
    for client, (found, losses) in enumerate(train(config, problem)):
        expected, told, gaps = plain_loop(
            config, problem, client, lambda p: torch.optim.SGD(p, lr=0.1), rule(config)
        )
        assert not all(there[1] for there in gaps) and any(there[1] for there in gaps)
        rounds_without += int(told.isnan().any(1).sum())
        torch.testing.assert_close(losses, told, rtol=1e-4, atol=1e-5, equal_nan=True)
        assert found.keys() == expected.keys()
        for key, tensor in expected.items():
            torch.testing.assert_close(
                found[key], tensor, rtol=1e-3, atol=1e-5, equal_nan=True, msg=f"{client} {key}"
            )
    assert rounds_without or "epochs" in budget, "some rounds should lack labels of a task"


OPTIMISERS = {
    "momentum": (
        {"name": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 0.1},
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1),
    ),
    "adam": (
        {"name": "adam", "lr": 0.02, "weight_decay": 0.1},
        lambda p: torch.optim.Adam(p, lr=0.02, weight_decay=0.1),
    ),
    "adamw": (
        {"name": "adamw", "lr": 0.02, "weight_decay": 0.1},
        lambda p: torch.optim.AdamW(p, lr=0.02, weight_decay=0.1),
    ),
}


@PATHS
@pytest.mark.parametrize("name", OPTIMISERS)
def test_a_head_without_labels_has_a_gradient_of_zero(name, path):
    """As with a masked loss in PyTorch: momentum and decay go on."""
    settings, optimiser = OPTIMISERS[name]
    config, problem = make("fixed", path, {"epochs": 1}, settings)
    for client, (found, _) in enumerate(train(config, problem)):
        expected, _, _ = plain_loop(config, problem, client, optimiser, Plain(config))
        for key, tensor in expected.items():
            torch.testing.assert_close(found[key], tensor, rtol=1e-3, atol=5e-5, msg=key)


def test_gradnorm_stays_where_it_is_without_labels():
    balance = make_balance(BalanceConfig(name="gradnorm"), TASKS[:2], NAMES)
    state = {name: tensor[None].clone() for name, tensor in balance.private().items()}
    balance.after_step(torch.tensor([[1.0, 1.0]]), torch.tensor([[1.0, 1.0]]), state)
    for _ in range(40):
        balance.after_step(torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, torch.nan]]), state)
    torch.testing.assert_close(state["balance.weights"], torch.ones(1, 2))
    nothing = torch.full((1, 2), torch.nan)
    balance.after_step(torch.zeros(1, 2), nothing, state)
    torch.testing.assert_close(state["balance.weights"], torch.ones(1, 2))


class Halves:
    """One client; every other minibatch has a label of ``size``, always one from the output."""

    task_names = ("size",)
    sizes = np.array([2])
    tasks = np.ones((1, 1), bool)

    def client(self, index):
        y = {"size": torch.tensor([[1.0, 1.0], [torch.nan, torch.nan]])}
        examples = Examples(torch.tensor([[0.0], [1.0]]), y)
        return Client(examples, examples.take(torch.arange(0)), examples.take(torch.arange(0)))


class Nothing(nn.Module):
    def __init__(self, features):
        super().__init__()

    def forward(self, x):
        return torch.zeros_like(x).expand(-1, 2)


@PATHS
def test_uncertainty_finds_the_variance_of_the_labels_that_are_there(path):
    """The squared error is one: at the optimum exp(-s) is one, however many labels there are."""
    config = check(
        {
            "local": {
                "batch_size": 1,
                "epochs": 1000,
                "optimiser": {"lr": 0.1},
                "path": path,
            },
            "balance": {"name": "uncertainty"},
        }
    )
    task = Task("size", "regression", 2, head=Nothing)
    problem = Problem([task], lambda: nn.Linear(1, 1), Halves(), torch.ones(1, 1))
    trainer = Trainer(problem, config, torch.device("cpu"))
    received = trainer.layout.flat(trainer.model.state_dict())
    ids = np.array([0])
    cohort = trainer.cohort(ids, ids)
    fresh = trainer.fresh(cohort.tasks, LocalMethod(), received)
    private = {n: t[None].clone() + (n == "balance.log_variance") for n, t in fresh.items()}
    trainer.job(cohort, 1, received, {}, received[None].clone(), private).descend()
    assert float(torch.exp(-private["balance.log_variance"])) == pytest.approx(1, abs=1e-4)
