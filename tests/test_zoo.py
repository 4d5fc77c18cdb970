"""Every kind of model and task that users bring, see ``support/zoo``."""

import numpy as np
import pytest
import torch
from support.zoo import cases

from fedjoint.config.load import check
from fedjoint.engines.base import make_engine
from fedjoint.exports.export import export
from fedjoint.model.stream import loaded
from fedjoint.registry import load_object
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


@pytest.mark.parametrize("case", CASES)
def test_batched_and_one_by_one_agree(case, tmp_path):
    local = {"batch_size": 4, "optimiser": {"lr": 0.05}}
    batched = simulate(config(tmp_path / "batched", case))
    alone = simulate(config(tmp_path / "alone", case, local={**local, "path": "sequential"}))
    for name, tensor in trained(batched.backbone).items():
        torch.testing.assert_close(alone.backbone[name], tensor, rtol=1e-3, atol=1e-5)
    assert alone.metrics.keys() == batched.metrics.keys()
    for split, values in batched.metrics.items():
        assert values == pytest.approx(alone.metrics[split], abs=1e-3), split


@pytest.mark.parametrize("case", CASES)
def test_resumed_equals_never_stopped(case, tmp_path):
    whole = simulate(config(tmp_path / "whole", case))
    half = simulate(config(tmp_path / "half", case, rounds=1))
    assert whole.records[-1].round == 3
    rest = resume(half.path, rounds=3)
    assert all(torch.equal(rest.backbone[n], t) for n, t in whole.backbone.items())
    assert rest.metrics == whole.metrics


@pytest.mark.parametrize("case", CASES)
def test_the_export_is_the_model_that_was_measured(case, tmp_path):
    run = simulate(config(tmp_path / "run", case))
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
def test_ray_equals_inline(case, tmp_path):
    here = simulate(config(tmp_path / "here", case))
    there = simulate(config(tmp_path / "there", case, engine=RAY))
    assert all(torch.equal(there.backbone[n], t) for n, t in here.backbone.items())
    assert there.metrics == here.metrics


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("case", FEW)
def test_flower_equals_inline(case, tmp_path):
    here = simulate(config(tmp_path / "here", case))
    there = simulate(config(tmp_path / "there", case, engine={"name": "flower", "workers": 2}))
    assert all(torch.equal(there.backbone[n], t) for n, t in here.backbone.items())
    assert there.metrics == here.metrics
