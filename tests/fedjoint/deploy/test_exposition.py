"""Health and metrics of servers and nodes, as their own parser reads them; certificates' ends."""

import datetime
import json
import socket
import urllib.error
import urllib.request
from types import SimpleNamespace

import pytest

from fedjoint._util.net import free_port
from fedjoint.deploy.expiry import ending
from fedjoint.deploy.exposition import Exposition
from fedjoint.deploy.figures import NodeFigures, RunFigures, ServerFigures, kind_of
from fedjoint.deploy.keys import make_keys
from fedjoint.errors import UserError

parser = pytest.importorskip("prometheus_client.parser")


def get(address, path):
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def samples(text):
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in parser.text_string_to_metric_families(text)
        for sample in family.samples
    }


def record(round, failed=()):
    return json.dumps(
        {
            "round": round,
            "seconds": {"train": 2.0, "round": 3.0},
            "bytes": {"up": 10, "down": 20},
            "clients": {"failed": [{"reason": r} for r in failed], "unevaluated": []},
        }
    )


def test_a_server_shows_nodes_and_runs(tmp_path):
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_text(record(1) + "\n" + record(2, ["the node is gone"]) + "\n" + '{"half')
    run = SimpleNamespace(override_config={"run-dir": str(tmp_path)})
    nodes = [SimpleNamespace(status=s) for s in ("online", "online", "offline")]
    state = SimpleNamespace(get_node_info=lambda: nodes, get_run_info=lambda statuses: [run])
    address = f"127.0.0.1:{free_port()}"
    with Exposition(address, ServerFigures(state)):
        assert get(address, "/health") == (200, "ok: 2 nodes are here\n")
        status, text = get(address, "/metrics")
        found, name = samples(text), ("run", tmp_path.name)
        assert status == 200 and found["fedjoint_nodes", ("state", "online")] == 2
        assert found["fedjoint_rounds_total", name] == 2
        assert found["fedjoint_seconds_total", ("phase", "train"), name] == 4.0
        assert found["fedjoint_bytes_total", name, ("way", "down")] == 40
        assert found["fedjoint_failures_total", ("kind", "gone"), name] == 1
        assert get(address, "/v1/control/start-run")[0] == 404

        def broken():
            raise OSError("disk I/O error")

        state.get_node_info = broken
        assert get(address, "/health")[0] == 503
    with pytest.raises(urllib.error.URLError, match="refused"):
        urllib.request.urlopen(f"http://{address}/health", timeout=1)


def test_a_resume_that_drops_rounds_begins_anew(tmp_path):
    figures, path = RunFigures(tmp_path), tmp_path / "metrics.jsonl"
    figures.update()  # there is no record yet
    path.write_text("".join(record(i) + "\n" for i in range(1, 5)))
    figures.update()
    figures.update()
    assert figures.rounds == 4
    path.write_text(record(1) + "\n")
    figures.update()
    assert (figures.rounds, figures.sent["up"]) == (1, 10)


def test_a_line_that_a_crash_cut_is_left_out(tmp_path):
    figures = RunFigures(tmp_path)
    (tmp_path / "metrics.jsonl").write_text(record(1) + '\n{"round": 2, "sec\n' + record(2) + "\n")
    figures.update()
    assert figures.rounds == 2


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("it did not finish within strategy.timeout = 5 s", "late"),
        ("no reply within the time limit", "late"),
        ("the node is gone", "gone"),
        ("node a: its worker ended (signal 6); its log says more", "died"),
        ("damaged message: 'x'", "damaged"),
        ("data.csv: no such file", "other"),
    ],
)
def test_failures_are_of_few_kinds(reason, kind):
    assert kind_of(reason) == kind


def test_a_node_shows_what_it_answered_and_whether_it_is_connected():
    address, figures = f"127.0.0.1:{free_port()}", NodeFigures()
    with Exposition(address, figures):
        assert get(address, "/health")[0] == 503
        figures.connected = True
        figures.answer("train", 2.5)
        figures.answer("train", 0.5)
        assert get(address, "/health") == (200, "ok: connected\n")
        found = samples(get(address, "/metrics")[1])
        assert found["fedjoint_connected",] == 1
        assert found["fedjoint_messages_total", ("kind", "train")] == 2
        assert found["fedjoint_message_seconds_total", ("kind", "train")] == 3.0


def test_an_address_that_is_taken_is_one_line():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(UserError, match=f"--metrics {address}: .*; choose another"):
            Exposition(address, NodeFigures())


def test_a_certificate_is_said_to_end_thirty_days_before(tmp_path):
    make_keys(tmp_path, ["localhost"], ["a"])
    end = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=5 * 365)
    for name, cure in (("server.pem", "--host NAME"), ("ca.pem", "new keys for all")):
        path = tmp_path / "server" / name
        assert ending(path, end - datetime.timedelta(days=31)) is None
        said = ending(path, end - datetime.timedelta(days=29))
        assert f"{name}: this certificate ends on" in said and cure in said
        assert "has ended on" in ending(path, end + datetime.timedelta(days=1))
