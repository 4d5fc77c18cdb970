"""A deployed node trains in the way that is fastest on its machine: tried once, and kept."""

import pytest
import torch

from fedjoint.config.load import check
from fedjoint.node.store import StateStore
from fedjoint.node.way import with_path
from fedjoint.problem import build_problem
from fedjoint.training import choice

RUN = "a" * 32


@pytest.fixture
def tried(monkeypatch):
    """The ways that were tried, and with how many threads; the third is the fastest."""
    monkeypatch.setattr(choice, "_SMALL", {"cpu": 0, "cuda": 0})
    found = []

    def run(way, clock):
        found.append((way.trainer.config.local.path, torch.get_num_threads()))
        return 0.5 if way.trainer.config.local.path == "traced" else 1.0

    monkeypatch.setattr(choice.Way, "run", run)
    return found


def configure(**local):
    backbone = {"name": "cnn", "options": {"hidden": [4]}}
    return check({"data": {"clients": 3}, "model": {"backbone": backbone}, "local": local})


def test_what_was_chosen_is_kept_beside_the_clients_state(tmp_path, tried):
    config = configure()
    problem, path = build_problem(config), tmp_path / "run.sqlite"

    def ask():
        store = StateStore(path, RUN)
        chosen = with_path(problem, config, store)
        assert chosen.local.path == store.chosen == "traced"
        assert chosen.engine.threads == config.engine.threads
        store.close()

    ask()
    ways = ("batched", "sequential", "traced", "channels_last")
    assert set(tried) == {(way, torch.get_num_threads()) for way in ways}
    tried.clear()
    ask()
    assert not tried


def test_nothing_is_tried_where_the_path_is_set_or_the_model_is_small(tmp_path, monkeypatch):
    def run(way, clock):
        raise AssertionError("nothing is open")

    monkeypatch.setattr(choice.Way, "run", run)
    store = StateStore(tmp_path / "run.sqlite", RUN)
    pinned = configure(path="sequential")
    assert with_path(build_problem(pinned), pinned, store) == pinned
    assert store.chosen is None
    small = configure()
    for _ in range(2):
        assert with_path(build_problem(small), small, store) == small
        assert store.chosen == "auto"
