"""Workers of Ray give the numbers of one process."""

from pathlib import Path

import pytest
from support.small import config
from support.tensors import same

from fedjoint.engines.ray import workers
from fedjoint.errors import UserError
from fedjoint.simulation import simulate


@pytest.mark.slow
@pytest.mark.xdist_group("ray")
@pytest.mark.parametrize("rule", ["fedavg", "pcgrad", "ifca", "fedmerge", "fedhca2", "matu"])
def test_ray_equals_inline_bit_for_bit(tmp_path, monkeypatch, two_workers, rule):
    monkeypatch.setattr("fedjoint.engines.ray.INLINE", 0)  # even a small backbone is shared
    strategy = {"name": rule}
    inline = simulate(config(tmp_path, strategy=strategy))
    engine = {"name": "ray", "workers": 2}
    on_ray = simulate(config(tmp_path, engine=engine, strategy=strategy))
    assert same(inline.backbone, on_ray.backbone)
    assert inline.metrics == on_ray.metrics
    for client, state in inline.heads().items():
        assert same(state, on_ray.heads()[client])


OWN = """
import dataclasses
from fedjoint.problem import build_problem


class Own:
    def __init__(self, data):
        self.data, self.task_names, self.tasks = data, data.task_names, data.tasks
        self.sizes = data.sizes

    def client(self, index):
        return self.data.client(index)


def make(config):
    problem = build_problem(config.model_copy(update={"problem": None}))
    return dataclasses.replace(problem, data=Own(problem.data))
"""


@pytest.mark.slow
@pytest.mark.xdist_group("ray")
def test_a_problem_in_a_file_runs_on_ray(tmp_path, two_workers):
    (tmp_path / "own.py").write_text(OWN)
    own = {"problem": f"{tmp_path / 'own.py'}:make"}
    inline = simulate(config(tmp_path, **own))
    on_ray = simulate(config(tmp_path, engine={"name": "ray", "workers": 2}, **own))
    assert same(inline.backbone, on_ray.backbone)


def test_gpu_shares_follow_what_ray_reports():
    engine = config(Path()).engine
    assert workers(engine, {"CPU": 8.0}) == (1.0, 0.0, 8)
    assert workers(engine, {"CPU": 8.0, "GPU": 2.0}) == (1.0, 1.0, 2)
    several = engine.model_copy(update={"workers_per_gpu": 3})
    cpus, gpus, count = workers(several, {"CPU": 8.0, "GPU": 2.0})
    assert (cpus, count) == (1.0, 6) and gpus == pytest.approx(1 / 3)
    with pytest.raises(UserError, match="gpus_per_worker"):
        workers(engine.model_copy(update={"gpus_per_worker": 1.0}), {"CPU": 2.0})
