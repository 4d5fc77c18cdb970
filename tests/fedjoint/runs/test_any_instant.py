"""A full disk, or a kill, at any instant of a run: nothing is lost, and nothing is wrong."""

import gc
import itertools
import shutil

import numpy as np
import pytest
from support.disk import FullDisk, watch
from support.folders import contents
from support.tensors import same

from fedjoint.config.load import check
from fedjoint.errors import UserError
from fedjoint.exports.export import export
from fedjoint.exports.predict import predict
from fedjoint.simulation import resume, simulate

DATA = {
    "source": "synthetic",
    "clients": 2,
    "examples_per_client": 8,
    "task_mix": [["task0", "task1"]],
}


def tiny(folder, rounds):
    return check(
        {
            "rounds": rounds,
            "data": DATA,
            "model": {"backbone": {"options": {"hidden": [2]}}},
            "local": {"steps": 1},
            "strategy": {"name": "scaffold"},
            "evaluate": {"every": 9},
            "engine": {"name": "inline", "cache_clients": 1},
            "output": {"dir": str(folder), "checkpoint_every": 1},
        }
    )


@pytest.fixture(scope="module")
def one_round(tmp_path_factory):
    return simulate(tiny(tmp_path_factory.mktemp("one"), 1))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return simulate(tiny(tmp_path_factory.mktemp("whole"), 2))


@pytest.mark.slow
def test_a_disk_that_is_full_at_any_instant_of_a_run(tmp_path, monkeypatch, one_round):
    for number in itertools.count(1):
        shutil.rmtree(tmp_path / "runs", ignore_errors=True)
        disk = FullDisk(number)
        with monkeypatch.context() as patch:
            watch(patch, tmp_path / "runs", disk)
            try:
                simulate(tiny(tmp_path / "runs", 1))
            except UserError as error:
                assert "No space left on device" in str(error) and "\n" not in str(error)
        gc.collect()
        if not disk.reached:
            break
        for run in tmp_path.glob("runs/*"):  # none, where there was no room for one
            assert same(resume(run).backbone, one_round.backbone)
    assert number > 30


def test_a_kill_at_any_instant_of_a_run(tmp_path, monkeypatch, whole):
    copies = []

    def copy(takes_room):
        for run in (tmp_path / "runs").glob("*/run.json"):
            left = contents(run.parent)
            if left not in [before for _, before in copies]:
                copies.append((tmp_path / f"copy-{len(copies)}", left))
                shutil.copytree(run.parent, copies[-1][0])

    with monkeypatch.context() as patch:
        watch(patch, tmp_path / "runs", copy)
        simulate(tiny(tmp_path / "runs", 2))
    assert len(copies) > 20
    for path, _ in copies:
        result = resume(path)
        assert same(result.backbone, whole.backbone), path
        assert [record.round for record in result.records] == [1, 2]


def test_a_disk_that_is_full_at_any_instant_of_an_export(tmp_path, monkeypatch, whole):
    """The model of before stays, under its own card, and the answer with it."""
    first, second = (export(whole.path, task) for task in ("task0", "task1"))
    np.save(tmp_path / "x.npy", first.example.numpy())
    first.write(tmp_path / "model")
    before = contents(tmp_path / "model")
    for number in itertools.count(1):
        disk = FullDisk(number)
        with monkeypatch.context() as patch:
            watch(patch, tmp_path / "model", disk)
            try:
                second.write(tmp_path / "model")
            except UserError as error:
                assert "No space left on device" in str(error)
        if not disk.reached:
            break
        assert contents(tmp_path / "model") == before
    assert predict(tmp_path / "model", tmp_path / "x.npy")[0] == ["task1"]


def test_a_kill_at_any_instant_of_an_export_leaves_no_mixture(tmp_path, monkeypatch, whole):
    first, second = (export(whole.path, task) for task in ("task0", "task1"))
    np.save(tmp_path / "x.npy", first.example.numpy())
    right = []
    for exported in (first, second):
        exported.write(tmp_path / "model")
        right.append(predict(tmp_path / "model", tmp_path / "x.npy"))
    copies = itertools.count()

    def copy(takes_room):
        shutil.copytree(tmp_path / "model", tmp_path / f"copy-{next(copies)}")

    with monkeypatch.context() as patch:
        watch(patch, tmp_path / "model", copy)
        first.write(tmp_path / "model")
    answered = 0
    for path in tmp_path.glob("copy-*"):
        try:
            assert predict(path, tmp_path / "x.npy") in right
            answered += 1
        except UserError as error:
            assert "\n" not in str(error)
    assert 0 < answered <= next(copies)
