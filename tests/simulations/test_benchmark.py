"""The benchmark: contestants do the same work, and the arithmetic of the table is right."""

import csv
import math
import subprocess
import sys

import pytest
import torch
from rich.console import Console

from fedjoint.simulations.benchmark import merge, population, ways
from fedjoint.simulations.benchmark.cell import Cell, Outcome, run
from fedjoint.simulations.benchmark.contestants import kernel, sequential
from fedjoint.simulations.benchmark.peak import operations, peak
from fedjoint.simulations.benchmark.results import Results
from fedjoint.simulations.benchmark.workloads import WORKLOADS, workload


# vmap has no rule for an LSTM. The large ones would take a minute, and are made of the same layers.
@pytest.mark.parametrize("name", sorted(WORKLOADS.keys() - {"lstm", "resnet18", "lora-minilm"}))
def test_the_kernel_trains_what_plain_pytorch_trains(name, monkeypatch):
    made = workload(name)
    draws = made.draws(3)
    monkeypatch.setitem(kernel.CHUNK, "cpu", 2)
    batched = kernel.Kernel(made, draws)
    monkeypatch.setattr(torch, "randperm", torch.arange)  # the kernel does not shuffle
    model, x = made.model().double(), made.x[draws]
    start = {n: t.clone() for n, t in model.state_dict().items()}
    x = x.double() if x.is_floating_point() else x
    mean = sequential.average(model, start, x, made.y[draws], made)
    update = batched.layout.flat({n: (t - start[n]).float() for n, t in mean.items()})
    assert update.abs().max() > 1e-4
    # The kernel's is float32: rounding turns a ReLU or a maximum here and there.
    assert (batched.mean_update(batched.start) - update).norm() < 2e-2 * update.norm()


@pytest.mark.parametrize("name", WORKLOADS)
def test_the_engine_gets_the_same_model_and_data(name):
    made = workload(name)
    problem = made.problem(3)
    train = problem.data.client(2).train
    index = made.draws(3)[2]
    assert len(train) == problem.data.sizes[2] == made.examples
    assert torch.equal(train.x, made.x[index]) and torch.equal(train.y["label"], made.y[index])
    shapes = [tuple(p.shape) for p in made.model().parameters()]
    assert [tuple(p.shape) for p in problem.backbone().parameters()] == shapes[:-2]
    head = problem.tasks[0].make_head(made.features)
    assert [tuple(p.shape) for p in head.parameters()] == shapes[-2:]


def test_ratios_are_to_the_same_work_and_the_kernel_on_as_many_threads():
    results = Results()
    for contestant, threads, seconds in [
        ("flower", 2, 4.0),
        ("sequential", 1, 2.0),
        ("sequential", 2, 5.0),
        ("kernel", 1, 0.5),
        ("kernel", 2, 0.2),
    ]:
        results.add(Cell("mlp", 100, contestant, threads), Outcome([seconds]))
    engine = Cell("mlp", 100, "engine", 2)
    for seconds in ([0.1, 0.25, 9.0], [0.3], [0.2]):
        results.add(engine, Outcome(seconds, {"train": 0.2}, 7.0))
    results.add(Cell("cnn", 100, "kernel", 2), Outcome([0.01]))
    results.add(Cell("mlp", 1000, "flower", 2), Outcome(problem="over the limit of 1 s"))
    rows = {(r["workload"], r["clients"], r["contestant"], r["threads"]): r for r in results.rows()}
    row = rows["mlp", 100, "engine", 2]
    assert row["clients per second"] == pytest.approx(400)
    assert (row["lowest"], row["highest"]) == (pytest.approx(100 / 0.3), 500)
    assert row["times flower"] == pytest.approx(16)
    assert row["times sequential"] == pytest.approx(8)  # the faster of the two
    assert row["of kernel"] == pytest.approx(0.8)
    assert row["beside training ms"] == pytest.approx(50)
    assert rows["mlp", 100, "sequential", 1]["of kernel"] == pytest.approx(0.25)
    assert math.isnan(rows["mlp", 1000, "flower", 2]["clients per second"])
    assert rows["mlp", 1000, "flower", 2]["problem"] == "over the limit of 1 s"


def test_operations_are_those_of_the_layers():
    # As many forward as backward by the weights, and by the inputs, but for the first layer's.
    first, *others = [64 * 128, 128 * 64, 64 * 10]
    assert operations("mlp") == 4 * 16 * 2 * (2 * first + 3 * sum(others))
    assert peak(1) > 1e8


def test_merging_is_the_weighted_mean():
    updates = merge.stacked(5, 7)
    expected = (updates.weights[:, None].double() * updates.matrix.double()).sum(0)
    torch.testing.assert_close(merge.FedAvg().merge(updates), expected.float())
    console = Console(record=True, width=120)
    merge.compare(5, 7, 1, console)
    assert "merge / reading" in console.export_text()


@pytest.mark.slow
def test_the_ways_of_training_are_measured():
    console = Console(record=True, width=120)
    ways.compare(["mlp", "lstm"], console)
    mlp, lstm = console.export_text().splitlines()[-3:-1]
    assert mlp.split()[0] == "mlp" and mlp.split()[-1] == "batched" and len(mlp.split()) == 6
    assert lstm.split()[0] == "lstm" and lstm.split()[3:] == ["sequential"]


@pytest.mark.slow
def test_a_cell_over_its_limit_says_so():
    outcome = run(Cell("mlp", 10**6, "sequential", 1), 1, 8.0)
    assert outcome.seconds == [] and outcome.problem == "over the limit of 8 s"
    assert outcome.megabytes > 50


def program(*arguments, cwd):
    command = [sys.executable, "-m", "fedjoint.simulations.benchmark", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True)


@pytest.mark.slow
def test_contestants_are_measured(tmp_path):
    few = ["--contestants", "flower,engine,pfl", "--clients", "6", "--rounds", "1"]
    done = program(*few, "--repeats", "1", "--out", "found", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    with (tmp_path / "found" / "benchmark.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["contestant"] for row in rows} == {"flower", "engine", "pfl"}
    for row in rows:
        measured = float(row["clients per second"]) > 0 and not row["problem"]
        assert measured or row["problem"] == "skipped: pfl is not installed", row
    assert (tmp_path / "found" / "benchmark.png").stat().st_size > 1000


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--contestants", "flour"], "did you mean 'flower'"),
        (["--clients", "ten"], "--clients ten"),
    ],
)
def test_a_mistake_is_one_line(tmp_path, arguments, words):
    done = program(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert words in done.stderr and done.stderr.count("\n") == 1


def test_registered_clients_are_measured(monkeypatch):
    monkeypatch.setattr(population, "SAMPLED", 4)
    monkeypatch.setattr(population, "ROUNDS", 4)
    found = population.measure(40)
    assert found["start"] > found["round"] > 0
    assert found["memory"] > 50 and found["disk"] > 0
