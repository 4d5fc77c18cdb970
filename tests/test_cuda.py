"""What is of GPUs alone; all other tests train on the GPU, too, where there is one."""

import gc
from unittest.mock import Mock

import pytest
import torch

import fedjoint
from fedjoint.node import node
from fedjoint.training import graphs

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")


def run(folder, *, rounds=3, clients=40, hidden=(32,), **more):
    tree = {
        "rounds": rounds,
        "data": {"clients": clients, "examples_per_client": 30, "task_mix": [["digit"]]},
        "model": {"backbone": {"name": "mlp", "options": {"hidden": list(hidden)}}},
        "engine": {"name": "inline"},
        "output": {"dir": str(folder)},
    }
    return fedjoint.simulate(tree | more)


def assert_alike(one, other, rtol=1e-3, atol=1e-4):
    for name, values in one.backbone.items():
        torch.testing.assert_close(other.backbone[name], values, rtol=rtol, atol=atol)


def test_a_gpu_learns_what_a_cpu_learns(tmp_path, monkeypatch):
    there = run(tmp_path / "cuda")
    monkeypatch.setattr(node, "best_device", lambda: torch.device("cpu"))
    assert_alike(run(tmp_path / "cpu"), there)


def test_clients_that_exceed_the_memory_are_divided_and_all_train(tmp_path):
    whole = run(tmp_path / "whole", clients=64, hidden=(1024, 1024))
    total = torch.cuda.get_device_properties(0).total_memory
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(torch.cuda.memory_allocated() / total + 4e8 / total)
    try:
        divided = run(tmp_path / "divided", clients=64, hidden=(1024, 1024))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert "exceed the memory of cuda" in divided.records[-1].fallback
    assert all(record.clients.trained == 64 for record in divided.records)
    assert_alike(whole, divided)


def test_a_graph_takes_the_steps_that_the_operations_take(tmp_path, monkeypatch):
    replays = Mock(wraps=graphs._Graph.__call__, autospec=True)
    monkeypatch.setattr(graphs._Graph, "__call__", lambda self, *values: replays(self, *values))
    rule = {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-3}
    graph = run(tmp_path / "graph", local={"optimiser": rule})
    assert replays.call_count > 2
    monkeypatch.setattr(graphs, "_SMALL", 0)
    replays.reset_mock()
    assert_alike(run(tmp_path / "steps", local={"optimiser": rule}), graph, rtol=1e-5, atol=1e-6)
    assert not replays.call_count


def test_bfloat16_learns(tmp_path):
    result = run(tmp_path, local={"precision": "bfloat16"}, rounds=5)
    first, last = result.records[0], result.records[-1]
    assert last.loss["digit"] < first.loss["digit"]


@pytest.mark.slow
def test_workers_that_share_a_gpu_learn_the_same(tmp_path):
    here = run(tmp_path / "here")
    there = run(tmp_path / "there", engine={"name": "ray", "workers": 2, "workers_per_gpu": 2})
    assert_alike(here, there)


def test_a_run_goes_on_from_where_it_stopped(tmp_path):
    whole = run(tmp_path / "whole", rounds=4)
    half = run(tmp_path / "half", rounds=2, output={"dir": str(tmp_path), "checkpoint_every": 1})
    rest = fedjoint.resume(half.path, rounds=4)
    assert_alike(whole, rest, rtol=0, atol=0)
