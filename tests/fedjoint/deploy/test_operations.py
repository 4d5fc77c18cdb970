"""What an operator sees and does, without a server."""

import json
import time

import pytest
from cryptography import x509
from flwr.app import Context, Message, RecordDict
from support.messages import settings
from support.records import make_record
from typer.testing import CliRunner

from fedjoint import cli
from fedjoint._util.logs import log_to
from fedjoint.cli import deploy as commands
from fedjoint.cli.live import Live
from fedjoint.clients.app import make_app
from fedjoint.config.load import check
from fedjoint.deploy import run as runs
from fedjoint.deploy import server
from fedjoint.deploy.news import News
from fedjoint.errors import UserError
from fedjoint.flower.compat import be_server, number
from fedjoint.flower.programs import Connection
from fedjoint.protocol.requests import QUERY, TELL, Header, QueryRequest, TellRequest
from fedjoint.runs.directory import RunDir
from fedjoint.runs.record import Failure, Participation


@pytest.fixture
def run(tmp_path):
    return RunDir.create(tmp_path, "run", check({}))


def invoke(*arguments):
    result = CliRunner().invoke(cli.app, list(map(str, arguments)), env={"COLUMNS": "200"})
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


class Server(Connection):
    """Says of runs what it is told to, and notes what it is asked."""

    def status(self, run):
        return self._answer("status", run)

    def stop(self, run):
        return self._answer("stop", run)

    def submit(self, app, settings, nodes=0):
        return self._answer("submit", settings["run-dir"])

    def _answer(self, what, about):
        self.__dict__.setdefault("asked", []).append((what, about))
        answer = self.__dict__["answers"][what]
        if isinstance(answer, Exception):
            raise answer
        return answer


def knows(tmp_path, **answers):
    found = Server(tmp_path, "127.0.0.1:1", None)
    found.__dict__["answers"] = answers
    return found


AWAY = UserError("the server does not answer")


def test_a_run_that_the_server_has_forgotten_is_submitted_again(run, tmp_path):
    run.write_number("7")
    connection = knows(tmp_path, status="unknown", submit="8")
    assert runs.restart(run.path, connection)[1] == "8"
    assert connection.asked == [("status", "7"), ("submit", str(run.path.resolve()))]
    running = knows(tmp_path, status="running", stop=None, submit="9")
    assert runs.restart(run.path, running)[1] == "9"
    assert [what for what, _ in running.asked] == ["status", "stop", "submit"]
    with pytest.raises(UserError, match="does not answer"):
        runs.restart(run.path, knows(tmp_path, status=AWAY))


def attend(run, connection, status="failed", there=True):
    run.mark(status)
    runs.attend(run, "7", connection, lambda record: None, lambda line: None, lambda: there)


def test_a_run_that_the_server_forgets_is_not_waited_for(run, tmp_path):
    with pytest.raises(UserError, match=r"does not know the run 7.*--resume"):
        attend(run, knows(tmp_path, status="unknown"))


def test_a_server_that_goes_away_is_noticed_at_once(run, tmp_path):
    with pytest.raises(UserError, match=r"does not answer; once the server is back: .*--resume"):
        attend(run, knows(tmp_path, status=AWAY), "running", there=False)


def test_a_run_that_fails_says_the_last_error(run, tmp_path, own_logger):
    failed = knows(tmp_path, status="finished:failed")
    with pytest.raises(UserError, match=r"before it began; is .* writable for the server"):
        attend(run, failed)
    log = run.path / "log.jsonl"
    log.touch()
    news = News(log)
    lines = [
        {"level": "INFO", "logger": "fedjoint.server.roster", "message": "waiting for nodes"},
        {"level": "ERROR", "logger": "fedjoint.server.serve", "message": "the run ends: too few"},
        {"level": "INFO", "logger": "fedjoint.server.serve", "message": "round 1"},
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines) + "half a li"
    log.write_text(text)
    assert news.of_nodes() == ["waiting for nodes"]
    assert news.last_error == "the run ends: too few"
    log.write_text(text.replace("half a li", "not JSON\n[1]\n" + json.dumps(lines[0]) + "\n"))
    assert news.of_nodes() == ["waiting for nodes"] and news.of_nodes() == []

    class Following(Server):
        def status(self, number):
            with log.open("a") as file:
                file.write("".join(json.dumps(line) + "\n" for line in lines))
            return "finished:failed"

    with pytest.raises(UserError, match=r"finished:failed: the run ends: too few; see"):
        attend(run, Following(tmp_path, "127.0.0.1:1", None))


EVIL = "[/bold][red]x\x1b[2J"


def test_status_shows_text_as_it_is_and_says_when_it_is_old(run, monkeypatch):
    run.mark("running")
    node = {"node": "12", "name": EVIL, "state": f"refused: {EVIL}", "tasks": [EVIL]}
    run.write_nodes([node])
    said = invoke("status", run.path).stdout
    assert "[/bold][red]x" in said and "\x1b[2J" not in said and "12" in said
    assert "no news" not in said
    monkeypatch.setattr(time, "time", lambda: 4e9)
    assert "no news since" in invoke("status", run.path).stdout
    run.mark("failed")
    assert "no news" not in invoke("status", run.path).stdout


def test_a_run_that_does_not_begin_is_dead_after_a_while(run, monkeypatch):
    assert invoke("status", run.path).exit_code == 0
    monkeypatch.setattr(time, "time", lambda: 4e9)
    seen = invoke("status", run.path)
    assert seen.exit_code == 1 and "it has not begun: start its server" in seen.stdout
    assert "its server is gone" in invoke("stop", run.path).stdout.replace("\n", " ")
    assert run.status == "failed"


def test_progress_shows_text_as_it_is(capsys):
    failure = Failure(client=None, node=12, reason="[/x]", name=EVIL)
    clients = Participation(asked=2, trained=0, ids=(), failed=(failure,))
    with Live(3, EVIL) as live:
        live.after_round(
            make_record(1, evaluation={"test": {EVIL: 0.5}}, kept=EVIL, clients=clients)
        )
        live.say("[/y]")
    assert "[/x]" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["run.json", "nodes.json"])
@pytest.mark.parametrize("text", ["{}", "[]", "{", '{"nodes": [1]}'])
def test_a_damaged_file_is_one_clear_line(run, name, text):
    (run.path / name).write_text(text)
    with pytest.raises(UserError, match=rf"{name}: damaged") as error:
        invoke("status", run.path)
    assert "\n" not in str(error.value)


def test_ctrl_c_says_that_the_run_goes_on(run, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.chdir(run.path.parent)
    monkeypatch.setattr(commands, "wait_for", lambda *a, **k: True)
    monkeypatch.setattr(commands, "start", lambda *a: (run, "7"))
    monkeypatch.setattr(commands, "attend", interrupted)
    result = invoke("deploy", "digits")
    assert result.exit_code == 130
    assert f"the run goes on, on the server: follow it with fedjoint status {run.path}" in (
        result.stdout.replace("\n", "")
    )


def test_resume_of_no_run_makes_no_folder(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        invoke("deploy", "--resume", tmp_path / "typo" / "run")
    assert not list(tmp_path.iterdir())


def test_hosts_may_be_divided_by_commas(tmp_path):
    invoke("keys", tmp_path / "keys", "--host", "a.example,10.0.0.1", "--host", "b.example")
    server = x509.load_pem_x509_certificate((tmp_path / "keys/server/server.pem").read_bytes())
    names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert {"a.example", "b.example"} <= set(names.get_values_for_type(x509.DNSName))
    assert "10.0.0.1" in map(str, names.get_values_for_type(x509.IPAddress))


def test_every_server_has_its_own_connection(tmp_path):
    first = server.connect("127.0.0.1:8000", tmp_path, None, False)
    text = (first.home / "config.toml").read_text()
    server.connect("127.0.0.1:8001", tmp_path, None, False)
    server.connect("[::1]:8000", tmp_path, None, False)
    assert (first.home / "config.toml").read_text() == text and "127.0.0.1:8000" in text


def test_a_node_logs_what_is_asked_and_names_itself_in_errors(tmp_path, own_logger):
    be_server()
    own = {"name": "west", "state": str(tmp_path), "clients": [0], "data": {}}
    context = Context(3, 4, {"fedjoint": json.dumps(own)}, RecordDict(), {})
    app = make_app()
    config = check({"data": {"clients": 2}}).model_dump(mode="json")

    def ask(config):
        header = Header("/runs/r", "a" * 32, config, 2, 0, 0, 0, "joint", {}, 60.0)
        (message,) = number([Message(QueryRequest(header, initial=False).pack(), 4, QUERY)])
        return app(message, context)

    assert settings(ask(config))["name"] == "west"
    few = config | {"data": config["data"] | {"source": {"name": "csv"}}}
    with pytest.raises(UserError, match=r"^node west: data source csv needs the option path"):
        ask(few)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    done, failed = (line for line in lines if line.get("event") == "query")
    assert (done["level"], done["round"], done["run_id"]) == ("INFO", 2, 3)
    assert failed["level"] == "ERROR"


def test_a_node_says_what_a_run_tells_it(tmp_path, own_logger):
    be_server()
    own = {"name": "west", "state": str(tmp_path), "clients": [0], "data": {}}
    context = Context(3, 4, {"fedjoint": json.dumps(own)}, RecordDict(), {})
    header = Header("/runs/r", "a" * 32, {}, 0, 0, 0, 0, "joint", {}, 60.0)
    content = TellRequest(header, "it has 4 inputs, 6 elsewhere\x1b[2J").pack()
    (message,) = number([Message(content, 4, TELL)])
    assert not make_app()(message, context).has_error()
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    (told,) = (line for line in lines if line.get("event") == "told")
    assert told["level"] == "ERROR"
    assert told["message"] == "the run r leaves this node out: it has 4 inputs, 6 elsewhere?[2J"


def test_a_log_is_written_once_and_a_folder_that_is_closed_is_named(tmp_path, own_logger):
    log_to(tmp_path / "log.jsonl")
    log_to(tmp_path / "log.jsonl")
    own_logger.info("once")
    assert (tmp_path / "log.jsonl").read_text().count("once") == 1
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="make its folder writable"):
        log_to(tmp_path / "file" / "log.jsonl")
