"""The run directory: what is damaged is noticed, what was written is read back."""

import csv
import json
import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from support.records import make_record

from fedjoint.config.load import check
from fedjoint.config.schema import Config
from fedjoint.errors import UserError
from fedjoint.runs.checkpoints import Checkpoint
from fedjoint.runs.directory import RunDir
from fedjoint.runs.ledger import Ledger
from fedjoint.runs.record import Failure, Participation


def backbone(round):
    return {"backbone.0.weight": torch.full((2, 3), float(round)), "backbone.0.bias": torch.ones(2)}


def same(found, expected):
    return found.keys() == expected.keys() and all(
        found[n].dtype == t.dtype and torch.equal(found[n], t) for n, t in expected.items()
    )


def is_whole(checkpoint, round):
    return (
        checkpoint.round == round
        and same(checkpoint.backbone, backbone(round))
        and same(checkpoint.state, {"seen": torch.arange(round)})
        and same(checkpoint.ledger.tensors(), ledger(round).tensors())
    )


def checkpoint(round):
    return Checkpoint(round, backbone(round), {"seen": torch.arange(round)}, ledger(round))


def ledger(round):
    return Ledger(np.array([2, 7]), np.array([round, 1]), np.float32([0.5, 0.25]))


@pytest.fixture
def run(tmp_path):
    return RunDir.create(tmp_path / "runs", "digits", Config())


@pytest.fixture
def saved(run):
    """Save four checkpoints."""
    for round in (5, 10, 15, 20):
        run.checkpoint(checkpoint(round))
    return run


def test_a_new_run_can_be_opened_again(run):
    again = RunDir.open(run.path)
    assert again.config() == Config()
    assert again.info["seed"] == 0 and again.info["versions"].keys() >= {"torch", "python"}
    assert again.generation == 0 and again.records() == [] and again.latest() is None
    assert (again.bump_generation(), again.bump_generation()) == (1, 2)
    again.mark("failed")
    assert (run.generation, run.info["status"]) == (2, "failed")


def test_no_directory_is_ever_used_twice(tmp_path):
    def create(_):
        return RunDir.create(tmp_path, "digits", Config()).path

    with ThreadPoolExecutor(8) as threads:
        paths = list(threads.map(create, range(24)))
    assert len(set(paths)) == 24 and all((path / "config.json").exists() for path in paths)


@pytest.mark.parametrize("name", ["", "a/b", "../b", "/etc"])
def test_a_name_that_leaves_the_folder_is_refused(tmp_path, name):
    with pytest.raises(UserError, match="cannot name a folder"):
        RunDir.create(tmp_path / "runs", name, Config())
    assert not list(tmp_path.iterdir())


def test_what_is_no_run_directory_is_said_in_one_line(tmp_path, run):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"set output\.dir"):
        RunDir.create(tmp_path / "file", "digits", Config())
    with pytest.raises(UserError, match="no such folder"):
        RunDir.open(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"config\.json is missing"):
        RunDir.open(tmp_path)
    for text in ("{", "[]", "\xff"):
        (run.path / "config.json").write_bytes(text.encode("latin-1"))
        with pytest.raises(UserError, match=r"config\.json: damaged"):
            run.config()


@pytest.mark.parametrize("number", [math.inf, -math.inf, 1e-300, 0.1])
def test_any_number_of_the_configuration_survives(tmp_path, number):
    tree = {
        "strategy": {"options": {"limit": number, "text": "inf"}},
        "balance": {"options": {"alpha": abs(number)}},
    }
    config = check(tree)
    assert RunDir.create(tmp_path, "digits", config).config() == config


def test_every_setting_of_the_configuration_survives(tmp_path):
    config = check(
        {
            "name": "mine",
            "seed": 7,
            "data": {"clients": 3, "task_mix": [["digit"], ["ink", "loop"]], "alpha": 0.25},
            "local": {"steps": 4, "lr_scales": [1, 0.5]},
            "strategy": {"name": "fedavg", "options": {"server_lr": 0.5, "nested": {"a": [1]}}},
        }
    )
    assert RunDir.create(tmp_path, "mine", config).config() == config


def test_the_newest_two_checkpoints_are_kept(saved):
    files = sorted(path.name for path in (saved.path / "checkpoints").iterdir())
    assert files == ["round-000015.safetensors", "round-000020.safetensors"]
    assert is_whole(saved.latest(), 20)


def test_checkpoints_are_ordered_by_number(run):
    for round in (999_999, 1_000_000):
        run.checkpoint(Checkpoint(round, backbone(round), {}, Ledger()))
    assert run.latest().round == 1_000_000


def test_a_damaged_checkpoint_is_skipped_whichever_byte_it_is(saved):
    path = saved.path / "checkpoints" / "round-000020.safetensors"
    data = path.read_bytes()
    for at in range(len(data)):
        for bit in (1, 32):
            spoilt = bytearray(data)
            spoilt[at] ^= bit
            path.write_bytes(spoilt)
            found = saved.latest()
            assert is_whole(found, 15) or is_whole(found, 20), (at, bit, found)
    for length in range(len(data)):
        path.write_bytes(data[:length])
        assert is_whole(saved.latest(), 15)


def test_without_a_whole_checkpoint_the_run_cannot_go_on(saved):
    for path in (saved.path / "checkpoints").iterdir():
        path.write_bytes(b"")
    with pytest.raises(UserError, match="no checkpoint is whole"):
        saved.latest()


def test_a_killed_writers_leftovers_are_removed(saved):
    part = saved.path / "checkpoints" / ".round-000025.safetensors.1.part"
    part.write_bytes(b"half")
    assert is_whole(saved.latest(), 20)
    saved.checkpoint(checkpoint(25))
    assert not part.exists() and is_whole(saved.latest(), 25)


@pytest.fixture
def records():
    failed = (Failure(3, 7, "disk on fire", "b"), Failure(None, 8, "gone"))
    clients = Participation(4, 2, (0, 1), failed, (Failure(None, 8, "gone", "c"),))
    return [
        make_record(
            round,
            loss={"digit": 1 / round},
            clients=clients,
            evaluation={"test": {"digit": 0.5, "ink": None}} if round % 2 else None,
            diagnostics={"clients": {"cosine": [[1.0, None]]}, "step_ratio": None},
        )
        for round in range(1, 6)
    ]


def test_a_last_record_cut_off_anywhere_is_dropped(run, records):
    for record in records:
        run.append(record)
    assert run.records() == records
    path = run.path / "metrics.jsonl"
    data = path.read_bytes()
    last = data[:-1].rindex(b"\n") + 1
    for length in range(last, len(data), 7):
        path.write_bytes(data[:length])
        assert run.records() == records[:-1]
        run.truncate(4)
        run.append(records[4])
        assert run.records() == records


def test_records_after_the_checkpoint_are_cut(run, records):
    for record in records:
        run.append(record)
    run.truncate(3)
    run.append(records[3])
    assert run.records() == records[:4]


@pytest.mark.parametrize(
    "spoilt", ["{\n", "\n", "3\n", "\x00\x00\n", '{"round": 3}\n', '{"clients": 3}\n']
)
def test_a_record_damaged_in_the_middle_names_its_line(run, records, spoilt):
    for record in records:
        run.append(record)
    path = run.path / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines[:2], spoilt, *lines[3:]]))
    with pytest.raises(UserError, match=r"metrics\.jsonl:3: damaged: it ") as error:
        run.records()
    assert "\n" not in str(error.value)


def test_numbers_that_are_not_finite_are_null(run):
    said = {"b": [math.inf, 1.5], "c": {"d": torch.tensor([math.nan, 2.0])}}
    run.append(make_record(1, objective=math.nan, diagnostics=said))
    (text,) = (run.path / "metrics.jsonl").read_text().splitlines()
    tree = json.loads(text, parse_constant=pytest.fail)
    assert tree["objective"] is None
    assert tree["diagnostics"] == {"b": [None, 1.5], "c": {"d": [None, 2.0]}}


def test_the_end_of_a_run(saved):
    assert saved.final() is None
    records = [make_record(1, loss={"a": 0.5}), make_record(2, loss={"a": 0.25, "b": math.nan})]
    saved.finish(Checkpoint(21, backbone(21), {}, ledger(20)), records)
    final = saved.final()
    assert final.round == 21 and same(final.backbone, backbone(21))
    assert same(final.ledger.tensors(), ledger(20).tensors())
    with (saved.path / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    wanted = ("round", "loss/a", "loss/b", "bytes/up", "clients/trained")
    assert [[row[name] for name in wanted] for row in rows] == [
        ["1", "0.5", "", "50", "2"],
        ["2", "0.25", "", "50", "2"],
    ]
    assert {row["run"] for row in rows} == {saved.id}


def test_files_that_the_server_reads_are_named_by_their_whole_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own = {"strategy": "mine.py:Rule", "callbacks": ["mine.py:told", "package.module:told"]}
    config = RunDir.create(tmp_path, "run", check(own)).config()
    assert config.strategy.name == f"{tmp_path / 'mine.py'}:Rule"
    names = [callback.name for callback in config.callbacks]
    assert names == [f"{tmp_path / 'mine.py'}:told", "package.module:told"]


def test_what_is_known_of_nodes_is_written_by_several_threads(tmp_path):
    run = RunDir.create(tmp_path, "run", check({}))
    with ThreadPoolExecutor(4) as threads:
        for done in [threads.submit(run.write_nodes, [{"name": str(n)}]) for n in range(400)]:
            done.result()
    assert int(run.nodes()[0]["name"]) < 400
