"""The way of training that a trial chooses, by made-up times; and when nothing is tried."""

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from fedjoint.config.load import check
from fedjoint.model.products import Products
from fedjoint.problem import build_problem
from fedjoint.runs.directory import RunDir
from fedjoint.simulation import resume, simulate
from fedjoint.training import choice
from fedjoint.training.attention import batchable
from fedjoint.training.job import Job
from fedjoint.training.trainer import Trainer

CPU = torch.device("cpu")


def settings(data=None, strategy=None, engine=None, output=None, rounds=30, **local):
    data = {"clients": 3, "examples_per_client": 20, "task_mix": [["digit"]], **(data or {})}
    return check(
        {
            "rounds": rounds,
            "data": data,
            "model": {"backbone": {"name": "cnn", "options": {"hidden": [4]}}},
            "local": {"epochs": 1, **local},
            "strategy": strategy or {},
            "engine": engine or {},
            "output": output or {},
        }
    )


def choose(config):
    problem = build_problem(config)
    return choice.choose_path(problem, problem.model(config), config, CPU)


@pytest.fixture
def times(monkeypatch):
    """What a client's step takes, by way; the trial itself is left out."""
    monkeypatch.setattr(choice, "_SMALL", {"cpu": 0, "cuda": 0})
    found = {}

    def run(way, clock):
        return found[way.trainer.config.local.path]

    monkeypatch.setattr(choice.Way, "run", run)
    return found


@pytest.mark.parametrize(
    ("seconds", "path"),
    [
        ([1.0, 0.9, 0.9, 0.8], "channels_last"),
        ([1.0, 0.99, 0.98, 0.975], "batched"),
        ([1.0, 0.9, 0.9, 0.88], "sequential"),
        ([1.0, 0.9, 0.8, 0.79], "traced"),
        ([0.5, 0.9, 0.9, 0.8], "batched"),
    ],
)
def test_the_fastest_is_chosen_and_the_first_of_those_that_tie(times, seconds, path):
    ways = ["batched", "sequential", "traced", "channels_last"]
    times |= dict(zip(ways, seconds, strict=True))
    found = choose(settings())
    assert found.path == path
    assert found.why.startswith("a client's step took: batched ")


@pytest.fixture
def four_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def timed(monkeypatch, four_threads):
    """What a client's step takes, by way and threads; 1 where nothing else is said."""
    monkeypatch.setattr(choice, "_SMALL", {"cpu": 0, "cuda": 0})
    found = {}

    def run(way, clock):
        return found.get((way.trainer.config.local.path, torch.get_num_threads()), 1.0)

    monkeypatch.setattr(choice.Way, "run", run)
    return found


@pytest.mark.parametrize(
    ("tree", "seconds", "path", "threads"),
    [
        ({}, {("batched", 4): 0.5}, "batched", 4),
        ({}, {("batched", 4): 0.99}, "batched", 1),
        ({}, {("sequential", 4): 0.9, ("traced", 1): 0.8}, "traced", 1),
        ({"local": {"path": "sequential"}}, {("sequential", 4): 0.5}, "sequential", 4),
        ({"data": {"clients": 2}}, {("batched", 2): 0.5}, "batched", 2),
        ({"data": {"clients": 3}}, {("traced", 1): 0.5}, "traced", 1),
        ({"engine": {"threads": 3}}, {("batched", 1): 0.1, ("traced", 3): 0.9}, "traced", 3),
        ({"engine": {"address": "auto"}}, {("batched", 4): 0.5}, "batched", 1),
    ],
)
def test_a_few_clients_share_the_threads_where_that_is_faster(timed, tree, seconds, path, threads):
    timed |= seconds
    tree = {"data": {"clients": 1}, **tree}
    found = choose(settings(**tree.pop("local", {}), **tree))
    assert (found.path, found.threads) == (path, threads)
    assert torch.get_num_threads() == 4


@pytest.mark.usefixtures("four_threads")
@pytest.mark.parametrize(
    ("tree", "path", "threads"),
    [({}, "batched", 0), ({"local": {"path": "sequential"}}, "sequential", 0)],
)
def test_a_trial_that_fails_leaves_what_is_set(monkeypatch, tree, path, threads):
    monkeypatch.setattr(choice, "_SMALL", {"cpu": 0, "cuda": 0})

    def run(way, clock):
        raise ValueError("no")

    monkeypatch.setattr(choice.Way, "run", run)
    found = choose(settings(**tree.get("local", {}), data={"clients": 1}))
    assert (found.path, found.threads) == (path, threads) and "failed" in found.why


@pytest.mark.usefixtures("four_threads")
def test_what_is_chosen_is_what_trains(monkeypatch, tmp_path):
    monkeypatch.setattr(choice, "_SMALL", {"cpu": 0, "cuda": 0})
    monkeypatch.setattr(choice.Way, "run", lambda way, clock: 1 / torch.get_num_threads())
    seen, descend = set(), Job.descend

    def look(job, **options):
        seen.add(torch.get_num_threads())
        return descend(job, **options)

    monkeypatch.setattr(Job, "descend", look)
    more = {"engine": {"name": "inline"}, "output": {"dir": str(tmp_path)}, "rounds": 1}
    result = simulate(settings(data={"clients": 1}, **more))
    assert seen == {4}
    assert RunDir.open(result.path).config().engine.threads == 4


@pytest.mark.slow
@pytest.mark.xdist_group("ray")
@pytest.mark.usefixtures("two_workers")
def test_what_is_chosen_trains_on_the_workers_of_a_session(monkeypatch, tmp_path):
    monkeypatch.setattr(choice, "_SMALL", {"cpu": 0, "cuda": 0})
    more = {"engine": {"name": "ray", "workers": 2}, "output": {"dir": str(tmp_path)}, "rounds": 1}
    assert simulate(settings(**more)).config.engine.threads == 1


def test_a_way_that_is_far_behind_is_tried_once(monkeypatch):
    monkeypatch.setattr(choice, "_SMALL", {"cpu": 0, "cuda": 0})
    tried = []

    def run(way, clock):
        tried.append(way.trainer.config.local.path)
        return 2.0 if tried[-1] == "sequential" else 1.0

    monkeypatch.setattr(choice.Way, "run", run)
    choose(settings())
    # Every way runs once beforehand, to be traced.
    assert [tried.count(path) for path in ("batched", "sequential", "traced")] == [5, 2, 5]


def test_it_is_tried_in_earnest(monkeypatch):
    monkeypatch.setattr(choice, "_SMALL", {"cpu": 0, "cuda": 0})
    before = torch.get_rng_state()
    found = choose(settings())
    assert found.path in ("batched", "sequential", "traced", "channels_last")
    assert "failed" not in found.why
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("most", "clients", "steps"), [(100, 3, 6), (12, 2, 6), (7, 2, 3), (3, 2, 1), (0.1, 2, 1)]
)
def test_of_a_large_model_fewer_clients_take_fewer_steps(monkeypatch, most, clients, steps):
    monkeypatch.setattr(choice, "_SMALL", {"cpu": 0, "cuda": 0})
    monkeypatch.setattr(choice, "_operations", lambda *_: 1.0)
    monkeypatch.setattr(choice, "_MOST", {"cpu": most * settings().local.batch_size})
    tried, descend = set(), Job.descend

    def count(job, **options):
        tried.add((job.cohort.clients.size if job.batched else 0, options["steps"]))
        return descend(job, **options)

    monkeypatch.setattr(Job, "descend", count)
    choose(settings(epochs=3))
    assert tried == {(clients, steps), (0, steps)}


def test_a_small_model_is_not_tried():
    assert choose(settings()) is None


def test_one_by_one_is_not_tried_either(times):
    assert choose(settings(path="sequential")) is None


def test_a_trial_that_fails_is_no_end(monkeypatch):
    monkeypatch.setattr(choice, "_SMALL", {"cpu": 0, "cuda": 0})

    def fail(way, clock):
        raise RuntimeError("no such thing")

    monkeypatch.setattr(choice.Way, "run", fail)
    found = choose(settings())
    assert (found.path, found.why) == ("batched", "the trial failed: RuntimeError: no such thing")


def test_a_run_keeps_what_was_chosen(times, tmp_path):
    times |= {"batched": 2.0, "sequential": 1.0, "traced": 1.0, "channels_last": 3.0}
    tree = settings().model_dump() | {
        "rounds": 1, "engine": {"name": "inline"}, "output": {"dir": str(tmp_path)}
    }  # fmt: skip
    result = simulate(tree)
    run = RunDir.open(result.path)
    assert run.config().local.path == result.config.local.path == "sequential"
    assert run.info["path"].startswith("a client's step took: batched 2e+03 ms")
    assert result.records[0].fallback == "local.path is sequential"
    times["batched"] = 0.1
    assert resume(result.path, rounds=2).config.local.path == "sequential"


def test_where_one_way_is_left_nothing_is_chosen(times):
    config = settings()
    problem = build_problem(config)

    def recurrent():
        return torch.nn.Sequential(torch.nn.Flatten(), Recurrent())

    problem = replace(problem, backbone=recurrent)
    found = choice.choose_path(problem, problem.model(config), config, CPU)
    assert found is None  # and records go on to say why clients are trained one by one
    assert Trainer(problem, config, CPU).fallback


class Recurrent(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = torch.nn.GRU(64, 4, batch_first=True)

    def forward(self, x):
        return self.inner(x[:, None])[0][:, 0]


@pytest.mark.parametrize("name", ["linear", "convolution", "attention"])
def test_operations_are_counted_as_pytorch_counts_them(name):
    model, x = {
        "linear": lambda: (torch.nn.Linear(5, 7), torch.randn(3, 5)),
        "convolution": lambda: (torch.nn.Conv2d(2, 4, 3, padding=1), torch.randn(3, 2, 8, 8)),
        "attention": lambda: (
            torch.nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), torch.randn(3, 6, 8)
        ),
    }[name]()  # fmt: skip
    model.eval()
    with torch.no_grad(), FlopCounterMode(display=False) as theirs, batchable(CPU):
        model(x)
    with torch.no_grad(), Products() as ours, batchable(CPU):
        model(x)
    assert ours.operations == theirs.get_total_flops() > 0


def test_an_encoder_that_pytorch_evaluates_as_one_operation_is_large():
    layer = torch.nn.TransformerEncoderLayer(64, 4, 128, batch_first=True)

    def encoder():
        return torch.nn.Sequential(
            torch.nn.Unflatten(1, (1, 64)),
            torch.nn.TransformerEncoder(layer, 1, enable_nested_tensor=False),
            torch.nn.Flatten(),
        )

    config = settings()
    problem = replace(build_problem(config), backbone=encoder, example=torch.zeros(1, 64))
    weights = sum(p.numel() for n, p in layer.named_parameters() if n.endswith("weight"))
    assert choice._operations(problem.model(config), problem.example) >= 3 * 2 * 0.9 * weights
