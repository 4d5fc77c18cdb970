"""Every kind of model and task that users bring, see ``support/zoo``."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from support.inputs import write
from support.machines import Site
from support.plain import prediction
from support.zoo import cases

from fedjoint._util.net import listens
from fedjoint.config.load import check
from fedjoint.deploy.address import parse
from fedjoint.deploy.run import attend, start
from fedjoint.deploy.server import connect
from fedjoint.engines.base import make_engine
from fedjoint.exports.export import export
from fedjoint.exports.predict import predict, predict_arrays, problem_of
from fedjoint.model.stream import loaded
from fedjoint.registry import load_object
from fedjoint.runs.directory import RunDir
from fedjoint.simulation import resume, simulate

CASES = cases()
RAY = {"name": "ray", "workers": 2}
#: one of every module, for what takes long
FEW = list({case.values[0].partition(":")[0]: case for case in CASES}.values())


def config(folder, case, **more):
    tree = {
        "problem": case,
        "rounds": 3,
        "local": {"batch_size": 4, "optimiser": {"lr": 0.05}},
        "engine": {"name": "inline"},
        "output": {"dir": str(folder), "checkpoint_every": 1},
    }
    return check({**tree, **more})


def trained(tensors):
    """Return the tensors of numbers, by name."""
    return {name: t for name, t in tensors.items() if t.is_floating_point()}


@pytest.fixture(scope="module")
def inline(tmp_path_factory):
    """Return what runs a case in this process, once."""

    @cache
    def run(case):
        return simulate(config(tmp_path_factory.mktemp("zoo"), case))

    return run


@pytest.mark.parametrize("case", CASES)
def test_batched_and_one_by_one_agree(case, inline, tmp_path):
    local = {"batch_size": 4, "optimiser": {"lr": 0.05}}
    batched = inline(case)
    alone = simulate(config(tmp_path / "alone", case, local={**local, "path": "sequential"}))
    for name, tensor in trained(batched.backbone).items():
        torch.testing.assert_close(alone.backbone[name], tensor, rtol=1e-3, atol=1e-5)
    assert alone.metrics.keys() == batched.metrics.keys()
    for split, values in batched.metrics.items():
        assert values == pytest.approx(alone.metrics[split], abs=1e-3), split


@pytest.mark.parametrize("case", CASES)
def test_resumed_equals_never_stopped(case, inline, tmp_path):
    whole = inline(case)
    half = simulate(config(tmp_path / "half", case, rounds=1))
    assert whole.records[-1].round == 3
    rest = resume(half.path, rounds=3)
    assert all(torch.equal(rest.backbone[n], t) for n, t in whole.backbone.items())
    assert rest.metrics == whole.metrics


@pytest.mark.parametrize("case", CASES)
def test_the_export_is_the_model_that_was_measured(case, inline):
    run = inline(case)
    problem = load_object(case)(run.config)
    for task in problem.tasks:
        sums = 0
        holds = problem.data.tasks[:, problem.data.task_names.index(task.name)]
        for client in np.flatnonzero(holds).tolist():
            test = problem.data.client(client).test
            model = export(run.path, task.name, client=client).model
            with torch.no_grad():
                sums += task.metric_fn.statistics(model(loaded(test.x)), test.y[task.name]).sum(0)
        said = run.metrics["test"][task.name]
        assert said == pytest.approx(task.metric_fn.value(sums), rel=1e-4), task.name


@pytest.mark.parametrize("case", CASES)
def test_predictions_of_files_are_the_run_s_own(case, inline, tmp_path):
    run = inline(case)
    problem = load_object(case)(run.config)
    for client in {group: client for client, group in enumerate(problem.member)}.values():
        x = loaded(problem.data.client(client).test.x)
        files = write(tmp_path, x)
        for task in problem.tasks:
            export(run.path, task.name, client=client).write(tmp_path / task.name)
            code = problem_of(tmp_path / task.name, case)
            expected = prediction(problem, run, task, client, x)
            for file in files:
                found = predict_arrays(tmp_path / task.name, file, code)
                assert found.keys() == expected.keys()
                for name, tensor in expected.items():
                    np.testing.assert_allclose(found[name], tensor, rtol=1e-3, atol=1e-5)
            if len(task.output_shape) < 3:  # maps and boxes are no rows of a table
                check_rows(*predict(tmp_path / task.name, files[0], code), expected)


def check_rows(columns, rows, expected):
    """Compare a table's cells with arrays; of a sequence, a cell has a number for each position."""
    for column, cells in zip(columns, zip(*rows, strict=True), strict=True):
        name, _, place = column.partition(".")
        found = np.array([[float(part) for part in cell.split()] for cell in cells])
        wanted = np.asarray(expected[name]).reshape(len(rows), -1)
        wanted = wanted[:, [int(place)]] if place else wanted
        np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-5)


@pytest.fixture(scope="module")
def workers():
    """Start Ray's workers once for all cases."""
    engine = check({"engine": RAY}).engine
    with make_engine(engine).session():
        yield


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.usefixtures("workers")
@pytest.mark.parametrize("case", CASES)
def test_ray_equals_inline(case, inline, tmp_path):
    here = inline(case)
    there = simulate(config(tmp_path / "there", case, engine=RAY))
    assert all(torch.equal(there.backbone[n], t) for n, t in here.backbone.items())
    assert there.metrics == here.metrics


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("case", FEW)
def test_flower_equals_inline(case, inline, tmp_path):
    here = inline(case)
    there = simulate(config(tmp_path / "there", case, engine={"name": "flower", "workers": 2}))
    assert all(torch.equal(there.backbone[n], t) for n, t in here.backbone.items())
    assert there.metrics == here.metrics


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_deployment_equals_inline(tmp_path):
    """All cases in one run, as processes take longer to start than to train such models."""
    everything, code = "support.together:problem", str(Path(__file__).parent / "lib")
    # A deployment tells no statistic of few examples, unless it is asked to.
    settings = {"rounds": 2, "evaluate": {"min_examples": 1}}
    here = simulate(config(tmp_path / "here", everything, **settings))
    clients = range(len(load_object(everything)(here.config).data.sizes))
    with Site(tmp_path) as site:
        site.server(PYTHONPATH=code)
        for name, first in (("even", 0), ("odd", 1)):
            ids = ",".join(map(str, clients[first::2]))
            site.node(name, ids, PYTHONPATH=code)
        site.until(lambda: listens(*parse(site.address)))
        wanted = config(tmp_path / "runs", everything, engine={"min_nodes": 2}, **settings)
        connection = connect(site.address, tmp_path / ".flower", None, insecure=False)
        attend(*start(wanted, connection), connection, print, print, lambda: True)
        there = RunDir.open(site.run)
    expected, found = (run.final().backbone for run in (RunDir.open(here.path), there))
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():  # but for the order in which updates are added up
        torch.testing.assert_close(found[name], tensor, rtol=1e-5, atol=1e-6)
    last = there.records()[-1]
    assert last.clients.ids == tuple(clients) and not last.clients.failed
    for split, values in here.metrics.items():
        assert last.evaluation[split] == pytest.approx(values, rel=1e-4), split
