"""What an operator types: configuration files, state of old runs, runs that are dead."""

import json
import os
import time

import pytest
from typer.testing import CliRunner

from fedjoint import cli
from fedjoint.cli import machines, status
from fedjoint.cli.deploy import operational
from fedjoint.config.load import check
from fedjoint.errors import UserError
from fedjoint.runs.directory import RunDir


def invoke(*arguments):
    result = CliRunner().invoke(cli.app, list(map(str, arguments)), env={"COLUMNS": "200"})
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture
def run(tmp_path):
    return RunDir.create(tmp_path, "run", check({}))


@pytest.fixture
def started(monkeypatch):
    """The arguments by which a server or a node would have been started."""
    seen = []
    monkeypatch.setattr(machines, "run_server", lambda *a: seen.append(a))
    monkeypatch.setattr(machines, "run_node", lambda own, *a: seen.append((own.clients, *a)))
    monkeypatch.setattr(machines, "choose_logging", lambda *a: seen.append(a))
    return seen


def test_a_file_gives_the_options_and_the_command_line_wins(tmp_path, started):
    path = tmp_path / "node.toml"
    path.write_text('clients = [3, 4]\nserver = "joint.example:9"\ninsecure = true\n')
    path.write_text(path.read_text() + 'log-level = "debug"\nname = "west"\n')
    invoke("client", "--config", path, "--server", "10.0.0.1:8")
    assert started[0] == ("debug", "text")
    assert started[1] == ([3, 4], "10.0.0.1:8", None, True, None)
    server = tmp_path / "server.toml"
    server.write_text('address = "0.0.0.0:8000"\nkeys = "keys"\nmetrics = "127.0.0.1:9100"\n')
    invoke("server", "--config", server)
    assert [str(part) for part in started[-1]][0::2] == ["0.0.0.0:8000", "keys", "127.0.0.1:9100"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("adress = 'x'", "unknown key of .*server.toml 'adress'.*did you mean 'address'"),
        ("[keys]\nx = 1", "keys is a table; give a value"),
        ("address = ", "server.toml"),
    ],
)
def test_a_file_that_is_wrong_is_one_line(tmp_path, text, said, started):
    path = tmp_path / "server.toml"
    path.write_text(text)
    with pytest.raises(UserError, match=said):
        invoke("server", "--config", path)
    assert not started


def test_old_state_is_listed_and_only_deleted_on_demand(tmp_path):
    for name, age in (("old", 100), ("new", 1)):
        for end in ("", "-wal"):
            path = tmp_path / f"{name}.sqlite{end}"
            path.write_bytes(b"heads")
            os.utime(path, (time.time() - age * 86_400,) * 2)
    (tmp_path / "log.jsonl").touch()
    said = invoke("prune", tmp_path).stdout
    assert "old: last used on" in said and "new:" not in said and "1 of 2 runs to delete" in said
    assert len(list(tmp_path.iterdir())) == 5
    assert "1 of 2 runs deleted" in invoke("prune", tmp_path, "--days", 90, "--delete").stdout
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "log.jsonl",
        "new.sqlite",
        "new.sqlite-wal",
    ]
    with pytest.raises(UserError, match="no such folder"):
        invoke("prune", tmp_path / "typo")


def test_status_tells_programs_and_its_exit_status_is_true(run, monkeypatch):
    run.mark("running")
    run.write_nodes([{"node": "12", "name": "a", "state": "here", "tasks": []}])
    result = invoke("status", run.path, "--json")
    said = json.loads(result.stdout)
    assert (said["status"], said["alive"], said["round"], said["rounds"]) == (
        "running",
        True,
        0,
        30,
    )
    assert said["nodes"][0]["name"] == "a" and result.exit_code == 0
    monkeypatch.setattr(time, "time", lambda: 4e9)
    dead = invoke("status", run.path, "--json")
    assert json.loads(dead.stdout)["alive"] is False and dead.exit_code == 1
    run.mark("failed")
    assert invoke("status", run.path).exit_code == 1


def test_watching_shows_every_change_and_ends_with_the_run(run, monkeypatch):
    run.mark("running")
    run.write_nodes([])
    steps = iter(
        [
            lambda: run.write_nodes([{"node": "1", "name": "a", "state": "here"}]),
            lambda: None,
            lambda: run.mark("failed"),
        ]
    )
    monkeypatch.setattr(status.time, "sleep", lambda _: next(steps)())
    result = invoke("status", run.path, "--watch", "--json")
    said = [json.loads(line) for line in result.stdout.splitlines()]
    assert [(s["status"], len(s["nodes"])) for s in said] == [
        ("running", 0),
        ("running", 1),
        ("failed", 1),
    ]
    assert result.exit_code == 1


def test_stop_asks_the_run_and_notices_one_that_is_dead(run, monkeypatch):
    run.mark("running")
    run.write_nodes([])

    def end(_):
        assert run.to_stop
        run.mark("failed")

    monkeypatch.setattr(status.time, "sleep", end)
    assert "go on with fedjoint deploy --resume" in invoke("stop", run.path).stdout
    assert "failed already" in invoke("stop", run.path).stdout
    run.mark("running")
    monkeypatch.setattr(time, "time", lambda: 4e9)
    assert "its server is gone" in invoke("stop", run.path).stdout
    assert run.status == "failed"
    run.go_on()
    assert not run.to_stop


def test_a_resumed_run_changes_what_no_number_depends_on():
    given = ["engine.min_nodes=3", "strategy.timeout = 60", "rounds=9"]
    assert operational(given) == {"engine.min_nodes": 3, "strategy.timeout": 60.0, "rounds": 9}
    with pytest.raises(UserError, match=r"seed: a resumed run keeps what .* engine.min_nodes"):
        operational(["seed=3"])
    with pytest.raises(UserError, match="give a number"):
        operational(["engine.min_nodes=many"])
