"""What an operator's interface makes of a SuperLink's refusals."""

import json

import httpx
import pytest
from flwr.proto.control_pb2 import ListRunsResponse
from flwr.proto.run_pb2 import Run, RunStatus

from fedjoint.errors import UserError
from fedjoint.flower.control import Control, SlowError
from fedjoint.flower.programs import Connection


def refusing(code):
    """An interface whose server refuses every key with one of Flower's codes."""
    control = Control("127.0.0.1:1", None)
    text = json.dumps({"code": code, "public_message": "Flower says little."})
    answer = httpx.Response(409, text=text, request=httpx.Request("POST", "http://x"))

    def call(request):
        raise httpx.HTTPStatusError("refused", request=answer.request, response=answer)

    for name in ("RegisterNode", "ListRuns", "StopRun"):
        setattr(control._client, name, call)
    return control


def test_a_key_that_someone_else_has_just_registered_is_not_new():
    assert refusing(23).register("a", b"key") is False
    with pytest.raises(UserError, match=r"the server at 127\.0\.0\.1:1 refuses"):
        refusing(1).register("a", b"key")


def test_a_run_that_a_server_does_not_know_is_unknown_and_one_that_ended_is_stopped():
    assert refusing(16).status(7) == "unknown"
    with pytest.raises(UserError, match="refuses"):
        refusing(30).status(7)
    refusing(18).stop(7)
    with pytest.raises(UserError, match="refuses"):
        refusing(16).stop(7)


@pytest.mark.parametrize(
    ("main", "sub", "said"),
    [("running", "", "running"), ("finished", "completed", "finished:completed")],
)
def test_a_run_s_status_is_one_word(main, sub, said):
    control = Control("127.0.0.1:1", None)
    known = Run(status=RunStatus(status=main, sub_status=sub))
    control._client.ListRuns = lambda request: ListRunsResponse(run_dict={request.run_id: known})
    assert control.status(7) == said


def test_a_server_that_is_too_busy_to_answer_has_not_ended_the_run(tmp_path, monkeypatch):
    def busy(self, call, request):
        raise SlowError("busy")

    connection = Connection.make(tmp_path, "127.0.0.1:1", None)
    with pytest.raises(UserError, match=r"the server at 127\.0\.0\.1:1 does not answer"):
        connection.status("7")
    monkeypatch.setattr(Control, "_ask", busy)
    assert connection.status("7") == "running"


def test_a_read_that_takes_too_long_is_a_busy_server():
    def late(request):
        raise httpx.ReadTimeout("timed out")

    control = Control("127.0.0.1:1", None)
    control._client.ListRuns = late
    with pytest.raises(SlowError, match="too busy"):
        control.status(7)
