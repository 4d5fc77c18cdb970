"""What lies below all that trains is computed once for each example, and changes nothing."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from fedjoint.config.load import check
from fedjoint.data.base import Client, Examples
from fedjoint.errors import UserError
from fedjoint.model.front import divided
from fedjoint.model.joint import build_model
from fedjoint.model.stream import Stream
from fedjoint.model.tasks import Task
from fedjoint.problem import Problem, build_problem
from fedjoint.simulation import simulate
from fedjoint.training import choice, trainer
from fedjoint.training.again import comes_again

TASKS = [Task("kind", "multiclass", 3)]


def still(*parts):
    return nn.Sequential(*parts).requires_grad_(False)


class Adding(nn.Module):
    def forward(self, x):
        return x.add_(1)


def cut(*parts, features=6, example=None):
    """Return the front of a backbone of these parts and the names of what is above, by part."""
    body = nn.Sequential(*parts)
    example = torch.randn(1, 5) if example is None else example
    model = build_model(lambda: body, TASKS, example, seed=0)
    front, above = divided(model, lambda: torch.randn(4, *example.shape[1:]))
    return model, front, above


def test_it_is_as_much_of_the_beginning_as_does_not_train():
    x = torch.randn(7, 5)
    model, front, above = cut(still(nn.Linear(5, 8)), nn.ReLU(), nn.Linear(8, 6), nn.Tanh())
    features = front(x)
    torch.testing.assert_close(features["kept 1"], torch.relu(model.backbone[0](x)))
    torch.testing.assert_close(above(features)["kind"], model(x)["kind"])
    assert dict(above.named_parameters()).keys() < dict(model.named_parameters()).keys()
    assert model.layout().shapes.keys() <= above.state_dict().keys()
    assert front(x[:0])["kept 1"].shape == (0, 8)


@pytest.mark.parametrize(
    "parts",
    [
        [nn.Linear(5, 8), still(nn.Linear(8, 6))],  # what is below trains
        [nn.Flatten(), nn.Linear(5, 6)],  # nothing to gain
        [still(nn.Linear(5, 1 << 17)), nn.Linear(1 << 17, 6)],  # too large
        [still(nn.Dropout(), nn.Linear(5, 8)), nn.Linear(8, 6)],
        [still(nn.BatchNorm1d(5), nn.Linear(5, 8)), nn.Linear(8, 6)],
        [still(nn.Linear(5, 8)), Adding(), nn.Linear(8, 6)],  # what was kept is changed
        [still(nn.Linear(5, 2)), nn.Linear(2, 60)],  # saves less than a tenth
        [still(nn.BatchNorm1d(5, track_running_stats=False), nn.Linear(5, 8)), nn.Linear(8, 6)],
    ],
)
def test_there_is_none(parts):
    model, front, above = cut(*parts)
    assert front is None and above is model


class Branches(nn.Module):
    """Two frozen layers, of which one reads the other; what is above them reads both, and ids."""

    def __init__(self):
        super().__init__()
        self.first, self.second = still(nn.Linear(4, 16)), still(nn.Linear(16, 16))
        self.words = nn.Embedding(3, 16)
        self.last = nn.Linear(16, 6)
        self.unread = still(nn.Linear(4, 16))

    def forward(self, x):
        self.unread(x["points"])
        low = torch.tanh(self.first(x["points"]))
        return self.last(low + torch.tanh(self.second(low)) * self.words(x["ids"]))


def some(rows):
    return {"points": torch.randn(rows, 4), "ids": torch.arange(rows) % 3}


def test_any_module_keeps_what_is_read_above(monkeypatch):
    model = build_model(Branches, TASKS, some(1), seed=0)
    front, above = divided(model, lambda: some(4))
    x = some(5)
    kept = front(x)
    assert set(kept) == {"ids", "kept first", "kept second"}
    wanted = model(x)["kind"]
    for layer in (model.backbone.first, model.backbone.second):
        monkeypatch.setattr(layer[0], "forward", lambda x: pytest.fail("computed again"))
    torch.testing.assert_close(above(kept)["kind"], wanted)
    gradients = torch.autograd.grad(above(kept)["kind"].sum(), model.backbone.words.weight)
    assert gradients[0].abs().sum() > 0


class Fickle(Branches):
    """Reads another layer where it has more examples than were tried."""

    def forward(self, x):
        low = self.first(x["points"])
        high = self.second(low)
        return self.last((high if len(low) < 9 else low) + self.words(x["ids"]))


class Sparing(Branches):
    """Calls a layer only where it has as few examples as were tried."""

    def forward(self, x):
        low = self.first(x["points"])
        high = self.second(low) if len(low) < 9 else low
        return self.last(high + self.words(x["ids"]))


def test_whoever_reads_what_is_not_kept_reads_nan():
    model = build_model(Fickle, TASKS, some(1), seed=0)
    front, above = divided(model, lambda: some(4))
    assert above(front(some(8)))["kind"].isfinite().all()
    assert above(front(some(9)))["kind"].isnan().all()


def test_a_layer_that_is_not_always_called_is_named():
    model = build_model(Sparing, TASKS, some(1), seed=0)
    front, _ = divided(model, lambda: some(4))
    assert len(front(some(8))) == 2
    with pytest.raises(UserError, match="'second' of some inputs and not of others"):
        front(some(9))


class Skipping(nn.Module):
    """A frozen layer that is left out at random in training, by a branch or by a product."""

    def __init__(self, branch):
        super().__init__()
        self.layer, self.branch = still(nn.Linear(8, 8)), branch

    def forward(self, x):
        if not self.training:
            return x + self.layer(x)
        stays = torch.rand(()) < 0.9
        if self.branch:
            return x + self.layer(x) if stays.item() else x
        return x + self.layer(x) * stays


@pytest.mark.parametrize(("branch", "kept"), [(True, None), (False, {"kept 1.layer", "kept 0"})])
def test_what_is_left_out_at_random_is_computed_at_every_pass(branch, kept):
    parts = [still(nn.Linear(5, 8)), Skipping(branch), nn.Linear(8, 6)]
    model, front, above = cut(*parts)
    assert (None if front is None else set(front(torch.randn(3, 5)))) == kept
    if front is not None:
        x, ends = torch.randn(40, 5), []
        for made in (lambda: above(front(x)), lambda: model(x)):
            torch.manual_seed(1)
            ends.append([made()["kind"] for _ in range(20)])
        torch.testing.assert_close(*ends)


def test_a_module_that_stands_twice_is_called_twice():
    act, layer = nn.Tanh(), still(nn.Linear(8, 8))
    parts = [still(nn.Linear(5, 8)), act, layer, layer, nn.Linear(8, 8), act]
    model, front, above = cut(*parts)
    x = torch.randn(7, 5)
    torch.testing.assert_close(above(front(x))["kind"], model(x)["kind"])


def test_hooks_of_the_backbone_are_called():
    parts = [still(nn.Linear(5, 8)), nn.Linear(8, 6)]
    body, x = nn.Sequential(*parts), torch.randn(7, 5)
    body.register_forward_pre_hook(lambda module, args: (args[0] * 2,))
    body.register_forward_hook(lambda module, args, result: result.tanh() * 3)
    model = build_model(lambda: body, TASKS, torch.randn(1, 5), seed=0)
    front, above = divided(model, lambda: torch.randn(4, 5))
    torch.testing.assert_close(above(front(x))["kind"], model(x)["kind"])


def test_inputs_stay_what_they_are():
    _, front, _ = cut(nn.ReLU(inplace=True), still(nn.Linear(5, 8)), nn.Linear(8, 6))
    x = torch.randn(7, 5)
    before = x.clone()
    front(x)
    assert torch.equal(x, before)


def test_it_ends_below_what_differs_from_pass_to_pass():
    parts = [still(nn.Linear(5, 8)), nn.Dropout(), still(nn.Linear(8, 8)), nn.Linear(8, 6)]
    _, front, above = cut(*parts)
    assert front(torch.randn(3, 5))["kept 0"].shape == (3, 8)
    assert {name.rpartition(".")[0] for name in above.backbone.state_dict()} == {"2.0", "3"}


#: Examples that have passed; no attribute of the module, which may not change.
SEEN = [0]


class Counted(nn.Module):
    """A frozen layer that counts the examples that pass."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(64, 16).requires_grad_(False)

    def forward(self, x):
        SEEN[0] += len(x)
        return torch.tanh(self.layer(x.flatten(1)))


def backbone():
    return nn.Sequential(Counted(), nn.Linear(16, 8), nn.ReLU())


def run(tmp_path, monkeypatch, front, settings):
    tree = {
        "rounds": 3,
        "data": {"clients": 5, "test_fraction": 0.6},
        "engine": {"name": "inline"},
        "output": {"dir": str(tmp_path)},
    }
    config = check({**tree, **settings})
    with monkeypatch.context() as patch:
        if not front:
            patch.setattr(trainer, "divided", lambda model, examples: (None, model))
        return simulate(config, replace(build_problem(config), backbone=backbone))


@pytest.mark.parametrize(
    "settings",
    [
        {"local": {"path": "batched"}},
        {"local": {"path": "sequential"}},
        {"local": {"path": "traced", "optimiser": {"momentum": 0.5}}},
        {"strategy": {"name": "fedproto"}},
        {"local": {"method": "ditto", "options": {"lam": 1.0}}, "model": {"heads": "shared"}},
    ],
)
def test_a_run_ends_as_without(tmp_path, monkeypatch, settings):
    found, plain = (run(tmp_path, monkeypatch, front, settings) for front in (True, False))
    for name, tensor in plain.backbone.items():
        torch.testing.assert_close(found.backbone[name], tensor, rtol=1e-4, atol=1e-5)
    for task, value in plain.metrics["test"].items():
        assert found.metrics["test"][task] == pytest.approx(value, abs=1e-3)


class Lines:
    """Three clients with streamed or loaded inputs."""

    task_names = ("kind",)
    sizes = torch.tensor([8, 8, 8]).numpy()
    tasks = torch.ones(3, 1, dtype=torch.bool).numpy()

    def __init__(self, streamed):
        self.streamed = streamed

    def client(self, index):
        generator = torch.Generator().manual_seed(index)
        x = torch.randn(12, 64, generator=generator)
        y = {"kind": torch.randint(3, (12,), generator=generator)}
        examples = Examples(Stream(x.numpy()) if self.streamed else x, y)
        return Client(*map(examples.take, torch.arange(12).split([8, 2, 2])))


def test_examples_pass_it_once_streamed_ones_too(tmp_path):
    found = []
    for streamed in (False, True):
        config = check(
            {
                "rounds": 9,
                "local": {"epochs": 3},
                "engine": {"name": "inline"},
                "output": {"dir": str(tmp_path)},
            }
        )
        made = trainer.Trainer(
            Problem(TASKS, backbone, Lines(streamed), torch.zeros(1, 64)),
            config,
            torch.device("cpu"),
        )
        places = torch.arange(3).numpy()
        assert made.front is not None and made.traits
        before = SEEN[0]
        cohort = made.cohort(places, places)
        assert SEEN[0] == before + 3 * 12
        received = made.layout.flat(made.model.state_dict())
        fresh = made.fresh(cohort.tasks, trainer.LocalMethod(), received)
        private = {n: torch.stack([t] * 3) for n, t in fresh.items()}
        job = made.job(cohort, 1, received, {}, received.repeat(3, 1), private)
        job.descend()
        made.evaluate(cohort, job.shared, job.private)
        assert SEEN[0] == before + 3 * 12
        found.append(job.shared)
    torch.testing.assert_close(*found)


def test_examples_that_are_changed_at_every_step_are_not_kept(tmp_path):
    config = check({"local": {"augment": ["noise"]}, "output": {"dir": str(tmp_path)}})
    problem = replace(build_problem(config), backbone=backbone)
    assert trainer.Trainer(problem, config, torch.device("cpu")).front is None


@pytest.mark.parametrize(
    ("each", "local", "again"),
    [
        (1 << 10, {"epochs": 1}, True),
        (1 << 20, {"epochs": 1}, False),  # forgotten until the next round
        (1 << 20, {"epochs": 2}, True),
        (1 << 20, {"steps": 4, "batch_size": 32}, False),
        (1 << 20, {"steps": 8, "batch_size": 32}, True),
    ],
)
def test_examples_come_again_where_they_stay_or_in_the_same_round(each, local, again):
    config = check({"local": local, "engine": {"data_mb": 1}})
    sizes = torch.tensor([100, 156, 0]).numpy()
    assert comes_again(sizes, each, config) == again


def test_a_trial_of_ways_computes_what_its_steps_need(monkeypatch, tmp_path):
    monkeypatch.setattr(choice, "_SMALL", {"cpu": 0, "cuda": 0})
    config = check({"local": {"steps": 1, "batch_size": 2}, "output": {"dir": str(tmp_path)}})
    problem = Problem(TASKS, backbone, Lines(streamed=False), torch.zeros(1, 64))
    before = SEEN[0]
    assert choice.choose_path(problem, problem.model(config), config, torch.device("cpu"))
    # Three clients and three ways; 200 in the trials of the model, of a few examples each.
    assert SEEN[0] - before < 3 * 3 * 2 + 200


def test_clients_are_packed_by_what_they_compute():
    def heavy():
        return nn.Sequential(still(nn.Linear(64, 4096), nn.ReLU()), nn.Linear(4096, 8))

    config = check({"local": {"batch_size": 16}})
    problem = Problem(TASKS, heavy, Lines(streamed=False), torch.zeros(1, 64))
    found = choice.packed(problem, problem.model(config), config)
    # 3 * 2 * 16 * (4096 * 8 + 8 * 3) operations in a step above the front: 3.1 million.
    assert found.local.pack == 15
