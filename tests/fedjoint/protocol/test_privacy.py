"""What leaves a node is what docs/privacy.md lists, and no error of a node tells of its data."""

import json
import re
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Context, Message, RecordDict
from support.fleet import Fleet
from support.messages import settings

from fedjoint.clients.app import make_app
from fedjoint.config.load import check
from fedjoint.errors import UserError
from fedjoint.flower.compat import be_server, number
from fedjoint.node.node import Node
from fedjoint.problem import build_problem
from fedjoint.protocol import wire
from fedjoint.protocol.requests import EVALUATE, QUERY, TRAIN, Header, QueryRequest
from fedjoint.runs.directory import RunDir
from fedjoint.server.serve import serve

PAGE = Path(__file__).parents[3] / "docs/privacy.md"
SECTIONS = {QUERY: "Who lives there", TRAIN: "After training", EVALUATE: "After an evaluation"}
SECRET = "tuberculosis"


def listed(kind):
    """Return the fields that the page lists for replies to a kind of request."""
    text = PAGE.read_text("utf-8")
    section = text[text.index(f"## {SECTIONS[kind]}") :]
    section = section[3:].split("\n## ")[0]
    rows = re.findall(r"^\| (`[^|]*) \|", section, re.MULTILINE)
    return {name for row in rows for name in re.findall(r"`([^`]+)`", row)}


def recorded(tmp_path, *, apart=False, **strategy):
    """Return kind -> fields of all replies of a run with two nodes, whose clients may be tasks."""
    data = {"clients": 4, "test_fraction": 0.6, "clients_are_tasks": apart}
    data["task_mix"] = [["digit"] if apart else ["digit", "parity"]]
    config = check(
        {
            "rounds": 1,
            "data": data,
            "model": {"backbone": {"options": {"hidden": [4]}}},
            "strategy": strategy,
            "diagnostics": {"within_every": 1},
        }
    )
    problem, found = build_problem(config), {}

    def node(clients, name):
        own = Node(problem, config, None, {client: client for client in clients}, name=name)

        def answer(message):
            reply = Message(own.handle(message), reply_to=message)
            fields = set(settings(reply))
            for record, arrays in reply.content.array_records.items():
                fields |= {f"{record}/{key}" for key in arrays}
            found.setdefault(message.metadata.message_type, set()).update(fields)
            return [reply]

        return answer

    be_server()
    run = RunDir.create(tmp_path, "run", config)
    serve(Fleet({1: node([0, 1], "a"), 2: node([2, 3], "b")}), config, run, deployed=True)
    return found


def test_the_page_lists_every_field_and_no_other(tmp_path):
    found = recorded(tmp_path / "a", name="pcgrad")
    assert not found[EVALUATE] & {"values/train", "values/valid"}
    for more in (
        recorded(tmp_path / "b", name="scaffold"),
        recorded(tmp_path / "i", name="ifca"),
        recorded(tmp_path / "c", apart=True, name="fedavg"),
    ):
        for kind, fields in more.items():
            found[kind] |= fields
    unseen = {"sample/sample", "buffers/buffers", "frozen/*"}  # of other models, and many clients
    for kind in SECTIONS:
        names = listed(kind)
        for field in found[kind]:
            assert any(fnmatch(field, name) for name in names), field
        for name in names - unseen:
            assert any(fnmatch(field, name) for field in found[kind]), name


def asked(tmp_path, table):
    """Return what the server hears of a node whose file is ``table``."""
    be_server()
    (tmp_path / "secret.csv").write_text(table)
    node = {
        "name": "west",
        "state": str(tmp_path),
        "clients": [0],
        "data": {"source": {"options": {"path": str(tmp_path / "secret.csv")}}},
    }
    context = Context(3, 4, {"fedjoint": json.dumps(node)}, RecordDict(), {})
    source = {"name": "csv", "options": {"path": "all.csv", "targets": {"ill": "multiclass"}}}
    config = check({"data": {"clients": 1, "source": source, "outputs": {"ill": 2}}})
    header = Header(
        "/runs/r", "a" * 32, config.model_dump(mode="json"), 0, 0, 0, 0, "joint", {}, 60.0
    )
    (message,) = number([Message(QueryRequest(header, initial=False).pack(), 4, QUERY)])
    with pytest.raises(UserError) as error:
        make_app()(message, context)
    return str(error.value), (tmp_path / "log.jsonl").read_text()


@pytest.mark.parametrize(
    "table",
    [
        f"age,ill\n1,0\n2,{SECRET}\n3,1\n",
        f"{SECRET},{SECRET},ill\n1,2,0\n",
        f"{SECRET},age\n1,2\n",
        f'age,ill\n1,"{SECRET}\n',
    ],
    ids=["a label", "two columns of a name", "no such column", "an open quote"],
)
@pytest.mark.usefixtures("own_logger")
def test_no_error_tells_of_cells_columns_or_paths(table, tmp_path):
    said, log = asked(tmp_path, table)
    assert said.startswith("node west: ") and "its node says why" in said
    for secret in (SECRET, str(tmp_path), "secret.csv", "age"):
        assert secret not in said
    assert SECRET in log or "secret.csv" in log


@pytest.mark.usefixtures("own_logger")
def test_a_run_may_not_name_code_beside_a_node_s_own_data(tmp_path):
    own = {"source": {"options": {"path": "x.csv"}}}
    config = check({"local": {"method": "subprocess:Popen"}}).model_dump(mode="json")
    node = {"name": "west", "state": str(tmp_path), "clients": [0], "data": own}
    packed = json.dumps(node)
    be_server()
    header = Header(
        "/runs/r", "a" * 32, config, 0, 0, 0, 0, "subprocess:Popen", {"args": "true"}, 60.0
    )
    (message,) = number([Message(QueryRequest(header, initial=False).pack(), 4, QUERY)])
    with pytest.raises(UserError, match=r"local\.method names code by its place"):
        make_app()(message, Context(3, 4, {"fedjoint": packed}, RecordDict(), {}))


def test_no_statistic_is_of_fewer_rows_than_the_least(tmp_path):
    config = check(
        {
            "rounds": 1,
            "data": {"clients": 4, "test_fraction": 0.2, "partition": "quantity", "alpha": 0.3},
            "model": {"backbone": {"options": {"hidden": [4]}}},
            "evaluate": {"min_examples": 30},
        }
    )
    problem = build_problem(config)
    replies = []

    def answer(message):
        reply = Message(node.handle(message), reply_to=message)
        if message.metadata.message_type == EVALUATE:
            clients = wire.arrays(message, "plan")["clients"]
            values = wire.arrays(reply, "values")["values"]
            replies.append((wire.arrays(reply, "sums"), clients, values))
        return [reply]

    node = Node(problem, config, None, {client: client for client in range(4)}, name="a")
    be_server()
    run = RunDir.create(tmp_path, "run", config)
    serve(Fleet({1: answer}), config, run, deployed=True)
    (sums, clients, values), *_ = replies
    sizes = np.array([len(problem.data.client(client).test) for client in clients])
    assert (sizes < 30).any() and sums
    assert all(len(rows) == 1 and rows[0, 0] >= 30 for rows in sums.values())
    assert np.isnan(values[sizes < 30]).all()
