"""A run directory is one thing: after any change, the same answer or one line, and no trace."""

import shutil
from dataclasses import replace

import pytest
import torch
from support.folders import byte_changes, contents, execute, line_changes, put, row_changes
from support.tensors import same
from support.two_runs import ROWS, put_rows
from typer.testing import CliRunner

from fedjoint import cli
from fedjoint.deploy import run as deployed
from fedjoint.engines.inline import Inline
from fedjoint.errors import UserError
from fedjoint.experiments import plots
from fedjoint.exports.export import export
from fedjoint.runs.checkpoints import pack_checkpoint
from fedjoint.runs.directory import RunDir
from fedjoint.server.reference import Reference
from fedjoint.simulation import resume

SAVED, BEFORE = "checkpoints/round-000004.safetensors", "checkpoints/round-000002.safetensors"
LAST = "checkpoints/round-000006.safetensors"


def status(path):
    found = CliRunner().invoke(cli.app, ["status", str(path)], env={"COLUMNS": "500"})
    if found.exception and not isinstance(found.exception, SystemExit):
        raise found.exception
    return found.stdout.replace(str(path), "RUN")


def plot(path):
    CliRunner().invoke(cli.app, ["plot", str(path)], catch_exceptions=False)
    return (path / "drawn").read_text()


def export_one(path):
    return {n: t.tolist() for n, t in export(path, "kind").model.state_dict().items()}


def resume_to_the_end(path):
    result = resume(path)
    records = [(r.round, r.objective, r.clients.ids, r.evaluation) for r in result.records]
    return {n: t.tolist() for n, t in result.backbone.items()}, records


COMMANDS = {"status": status, "plot": plot, "export": export_one, "resume": resume_to_the_end}


@pytest.fixture(autouse=True)
def _drawn_as_text(monkeypatch):
    """Drawing takes its time: what is to be drawn is enough."""

    def of_run(records, folder):
        (folder / "drawn").write_text(repr(records))

    monkeypatch.setattr(plots, "of_run", of_run)


@pytest.fixture
def copied(tmp_path):
    """Copy a run to the same place, again and again."""

    def copy(run):
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        shutil.copytree(run, tmp_path / "run")
        return tmp_path / "run"

    return copy


def refusal(command, path):
    """Return the line with which a command refuses; it has changed nothing."""
    before = contents(path)
    with pytest.raises(UserError) as error:
        COMMANDS[command](path)
    assert contents(path) == before
    (line,) = str(error.value).splitlines()
    return line


# What is said of what was changed

RUN_OF_ANOTHER = "of another run"


def database(statement):
    return lambda run, made: execute(run / "state.sqlite", statement)


def file(name, change=lambda data: None):
    return lambda run, made: put(run / name, change((run / name).read_bytes()))


def others(name):
    return lambda run, made: shutil.copy(made.other_cut / name, run / name)


def lines(change):
    return file("metrics.jsonl", lambda data: b"".join(change(data.splitlines(keepends=True))))


def both(*changes):
    def change(run, made):
        for each in changes:
            each(run, made)

    return change


def checkpoint(change):
    """Replace the newest checkpoint by one that is changed, and sealed."""

    def rewrite(run, made):
        opened = RunDir(run)
        (run / SAVED).write_bytes(pack_checkpoint(opened.id, change(opened.latest())))

    return rewrite


def not_finite(saved):
    return replace(saved, backbone={n: t * torch.nan for n, t in saved.backbone.items()})


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (file("run.json"), "run.json is missing"),
        (file("run.json", lambda data: b"{}"), "run.json: damaged: it has no checksum"),
        (file("run.json", lambda data: data.replace(b"running", b"stopped")), "checksum is wrong"),
        (others("run.json"), f"config.json: {RUN_OF_ANOTHER}"),
        (file("config.json"), "config.json is missing"),
        (file("config.json", lambda data: data.replace(b"0.1", b"0.2")), "config.json: damaged"),
        (file("config.json", lambda data: b"[" * 100_000), "config.json: damaged: it is not JSON"),
        (others("config.json"), f"config.json: {RUN_OF_ANOTHER}"),
        (file("metrics.jsonl"), "metrics.jsonl: No such file"),
        (file("metrics.jsonl", lambda data: b""), "metrics.jsonl ends with round 0, and the run"),
        (lines(lambda all: all[:3]), "metrics.jsonl ends with round 3, and the run has done 4"),
        (lines(lambda all: all[1:]), "metrics.jsonl:1: it is the record of round 2, not 1"),
        (lines(lambda all: [*all[:2], *all[3:]]), "metrics.jsonl:3: it is the record of round 4"),
        (lines(lambda all: [all[0], *all]), "metrics.jsonl:2: it is the record of round 1, not 2"),
        (lines(lambda all: [b"{}\n"] * 3), "metrics.jsonl:1: damaged"),
        (others("metrics.jsonl"), f"metrics.jsonl:1: {RUN_OF_ANOTHER}"),
        (both(file(SAVED), file(BEFORE)), "there is no checkpoint, and the run has saved round 4"),
        (others(SAVED), f"{SAVED}: {RUN_OF_ANOTHER}"),
        (
            both(file(SAVED, lambda data: b""), file(BEFORE, lambda data: b"")),
            "no checkpoint is whole",
        ),
        (
            both(checkpoint(not_finite), file(BEFORE)),
            "no checkpoint is whole",
        ),
    ],
)
def test_what_every_command_refuses(made, copied, change, words, command):
    run = copied(made.cut)
    change(run, made)
    assert words in refusal(command, run)


@pytest.mark.parametrize("command", ["export", "resume"])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (file("state.sqlite"), "state.sqlite: no such file"),
        (
            both(file("state.sqlite", lambda data: b""), file("state.sqlite-wal")),
            "state.sqlite: damaged: no such table: state",
        ),
        (file("state.sqlite", lambda data: b"x" * len(data)), "state.sqlite: damaged"),
        (file("state.sqlite", lambda data: data[:5000]), "state.sqlite: "),
        (
            both(others("state.sqlite"), others("state.sqlite-wal")),
            f"state.sqlite: {RUN_OF_ANOTHER}",
        ),
        (database("DELETE FROM state WHERE client = 1"), "no state of client 1 after round 4"),
        (database("UPDATE state SET client = 9 - client"), "no state of client 0 after round 4"),
        (
            database("UPDATE state SET data = (SELECT data FROM state WHERE client = 2)"),
            "the state of client 0 after round 4 is damaged (it is that of",
        ),
        (database("UPDATE state SET data = x'00'"), "the state of client 0 after round 4 is dam"),
        (database("DELETE FROM identity"), "its id is None"),
        (database("DROP TABLE state"), "state.sqlite: damaged: no such table: state"),
        (
            database("UPDATE loaded SET fingerprint = 'no' WHERE client = 2"),
            "the data of client 2 are not those",
        ),
    ],
)
def test_what_is_refused_of_private_state(made, copied, change, words, command):
    run = copied(made.cut)
    change(run, made)
    assert words in refusal(command, run)


def test_a_checkpoint_ahead_of_the_state_is_refused(made, copied):
    """State that is behind: the database is of round 2, the checkpoint of round 4."""
    run = copied(made.cut)
    counted = RunDir(run).latest().ledger
    execute(run / "state.sqlite", "DELETE FROM state WHERE round > 2")
    assert set(counted.rounds.tolist()) == {4}
    assert "no state of client 0 after round 4" in refusal("resume", run)


# What a kill leaves is no fault


@pytest.mark.parametrize(
    "change",
    [
        lines(lambda all: all[:4]),
        lines(lambda all: [*all[:4], all[4][:100]]),
        file(SAVED, lambda data: data[:-1]),
        file(SAVED),
        file(BEFORE),
        file("nodes.json"),
        lambda run, made: (run / f"checkpoints/.{SAVED[12:]}.7.part").write_bytes(b"half"),
        lambda run, made: (run / ".run.json.7.part").write_bytes(b"half"),
        file("state.sqlite-shm"),
        checkpoint(not_finite),
    ],
)
def test_what_a_kill_leaves_goes_on_to_the_same_end(made, copied, change):
    run = copied(made.cut)
    change(run, made)
    result = resume(run)
    assert same(result.backbone, made.result.backbone)
    assert [r.round for r in result.records] == [1, 2, 3, 4, 5, 6]


# A run that is done is done


@pytest.mark.parametrize(
    "change", [lambda run: None, lambda run: shutil.rmtree(run / "checkpoints")]
)
def test_a_run_that_is_done_stays_as_it_is(made, copied, change):
    run = copied(made.done)
    change(run)
    before = contents(run)
    result = resume(run)
    assert contents(run) == before
    assert result.records == made.result.records and same(result.backbone, made.result.backbone)
    said = CliRunner().invoke(cli.app, ["resume", str(run)], env={"COLUMNS": "500"})
    assert said.exit_code == 0 and "the run is done; nothing is left to do" in said.stdout
    assert contents(run) == before
    with pytest.raises(UserError, match="the run is done"):
        deployed.restart(run, None)


def test_it_is_exported_without_its_checkpoints(made, copied):
    run = copied(made.done)
    expected = export_one(run)
    shutil.rmtree(run / "checkpoints")
    assert export_one(run) == expected


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (file("final/backbone.safetensors"), "final/backbone.safetensors is missing"),
        (file("final/backbone.safetensors", lambda data: data[:-1]), "safetensors: damaged"),
        (
            lambda run, made: shutil.copytree(
                made.other_done / "final", run / "final", dirs_exist_ok=True
            ),
            f"final/backbone.safetensors: {RUN_OF_ANOTHER}",
        ),
        (lines(lambda all: all[:5]), "metrics.jsonl ends with round 5, and the run has done 6"),
    ],
)
@pytest.mark.parametrize("command", COMMANDS)
def test_what_is_refused_of_a_run_that_is_done(made, copied, change, words, command):
    run = copied(made.done)
    change(run, made)
    assert words in refusal(command, run)


def test_the_nodes_are_part_of_what_status_says(made, copied):
    run = copied(made.done)
    (run / "nodes.json").unlink()
    assert "nodes.json: No such file" in refusal("status", run)
    shutil.copy(made.other_done / "nodes.json", run / "nodes.json")
    assert f"nodes.json: {RUN_OF_ANOTHER}" in refusal("status", run)


def test_the_number_on_a_server_is_the_runs_own(made, copied):
    """Otherwise another run would be stopped there."""
    run, other = RunDir(copied(made.cut)), RunDir(made.other_cut)
    other.write_number("7")
    shutil.move(other.path / "flower.json", run.path / "flower.json")
    with pytest.raises(UserError, match=rf"flower\.json: {RUN_OF_ANOTHER}"):
        deployed.restart(run.path, None)


def test_a_reference_is_looked_at_as_a_whole(made, copied):
    run = copied(made.done)
    (run / "final/backbone.safetensors").unlink()
    with pytest.raises(UserError, match=r"^diagnostics.reference: .*safetensors is missing"):
        Reference(run, made.result.config)


# Data that have changed


def moved_to_another_client(rows):
    return rows[::-1]


def with_one_value_changed(rows):
    return [*rows[:-1], rows[-1].replace(rows[-1].partition(",")[0], "9.9999", 1)]


@pytest.mark.parametrize("change", [moved_to_another_client, with_one_value_changed])
@pytest.mark.parametrize("command", ["resume", "export"])
def test_changed_data_are_refused_by_name_of_client(made, copied, change, command):
    run = copied(made.cut)
    try:
        put_rows(made.rows, change(ROWS))
        assert "the data of client " in refusal(command, run)
    finally:
        put_rows(made.rows, ROWS)


def test_fewer_clients_than_the_run_had(made, copied):
    run = copied(made.cut)
    execute(run / "state.sqlite", "INSERT INTO loaded VALUES (3, 'was here')")
    assert "the data of client 3 are not those" in refusal("resume", run)


# Any single change


def start(path):
    """Return all that a resume goes on from, in place of going on."""
    run = RunDir(path)
    saved, counted = run.latest(), run.latest().ledger
    states = run.states.read(counted.clients.tolist(), counted.rounds.tolist())
    tensors = [saved.backbone, saved.state, counted.tensors(), *states.values()]
    numbers = [{name: t.tolist() for name, t in sorted(part.items())} for part in tensors]
    return repr((sorted(states), numbers, run.records()[: saved.round], run.config()))


def starts(made, copied):
    """Return what a resume may go on from: either checkpoint."""
    run = copied(made.cut)
    newest = start(run)
    (run / SAVED).unlink()
    return [newest, start(run)]


def stands(made, copied):
    """Return what status may say: the run might have been killed a round before."""
    run = copied(made.cut)
    now = status(run)
    RunDir(run).truncate(4)
    return [now, status(run)]


def drawings(made, copied):
    """Return what may be drawn, alike."""
    run = copied(made.cut)
    now = plot(run)
    RunDir(run).truncate(4)
    return [now, plot(run)]


#: command -> how to call it, and its right answers, of the run that was killed
OF_CUT = {
    "resume": (lambda path: resume(path) and start(path), starts),
    "status": (status, stands),
    "plot": (plot, drawings),
    "export": (export_one, lambda made, copied: [export_one(copied(made.cut))]),
}


def cases(source, other):
    """Yield the file that is changed, what is changed, and the change, of every file of a run."""
    for path in sorted(path for path in source.rglob("*") if path.is_file()):
        name, data = str(path.relative_to(source)), path.read_bytes()
        changed = list(byte_changes(data, flips=5 if "sqlite" in name else 3))
        if name.endswith("jsonl"):
            changed += line_changes(data)
        if (other / name).exists():
            changed.append(("another run's", (other / name).read_bytes()))
        for what, new in changed:
            yield f"{name}: {what}", lambda run, name=name, new=new: put(run / name, new)
    for what, statement in row_changes(source / "state.sqlite"):
        yield what, lambda run, s=statement: execute(run / "state.sqlite", s)


def check_every_change(copied, source, other, call, right):
    refused, run = 0, copied(source)
    for name, change in cases(source, other):
        change(run)
        before = contents(run)
        try:
            answer = call(run)
        except UserError as error:
            assert len(str(error).splitlines()) == 1, name
            assert contents(run) == before, name
            refused += 1
        else:
            assert answer in right, name
        run = copied(source)
    assert refused > 20  # and the changes were changes


@pytest.mark.parametrize("command", COMMANDS)
def test_after_any_change_of_a_run_that_is_done(made, copied, command):
    call = COMMANDS[command]
    right = [call(copied(made.done))]
    check_every_change(copied, made.done, made.other_done, call, right)


@pytest.mark.parametrize("command", OF_CUT)
def test_after_any_change_of_a_run_that_was_killed(made, copied, command, monkeypatch):
    call, answers = OF_CUT[command]
    right = answers(made, copied)
    monkeypatch.setattr(Inline, "execute", lambda *_: {})
    check_every_change(copied, made.cut, made.other_cut, call, right)
