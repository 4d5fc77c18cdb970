"""What all engines have in common: nothing private is sent, and faults are named."""

import pytest
import torch
from flwr.app import Context, RecordDict
from support.small import config

from fedjoint.clients.app import make_app
from fedjoint.config.load import check
from fedjoint.engines.base import make_engine
from fedjoint.engines.inline import InlineGrid
from fedjoint.errors import UserError
from fedjoint.problem import build_problem
from fedjoint.simulation import simulate


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fedavg", "mgda"])
def test_summed_updates_equal_rows_to_tolerance(tmp_path, name):
    few = {"clients": 2}
    summed = simulate(config(tmp_path, diagnostics=few, strategy={"name": name}))
    rows = simulate(config(tmp_path, strategy={"name": name}))
    for name, tensor in rows.backbone.items():
        torch.testing.assert_close(summed.backbone[name], tensor, rtol=1e-4, atol=1e-5)


class Spy(InlineGrid):
    """Keeps the name, shape and contents of every array that crosses the grid."""

    def __init__(self, *args):
        super().__init__(*args)
        self.sent: list[tuple[str, str, tuple[int, ...]]] = []
        self.contents: list[bytes] = []

    def look(self, message):
        for record, arrays in message.content.array_records.items():
            self.sent += [(record, name, array.numpy().shape) for name, array in arrays.items()]
            self.contents += [array.numpy().tobytes() for array in arrays.values()]
        return message

    def send_and_receive(self, messages, *, timeout=None):
        for reply in super().send_and_receive([self.look(m) for m in messages], timeout=timeout):
            yield self.look(reply)


@pytest.mark.parametrize("strategy", ["fedavg", "ditto", "apfl", "scaffold", "pcgrad"])
def test_no_head_is_ever_sent(tmp_path, monkeypatch, strategy):
    grids = []

    def spying(*args):
        grids.append(Spy(*args))
        return grids[-1]

    monkeypatch.setattr("fedjoint.engines.inline.InlineGrid", spying)
    result = simulate(config(tmp_path, strategy={"name": strategy}))
    heads, sent = result.heads(), grids[0].sent
    model = build_problem(result.config).model(result.config)
    size = sum(parameter.numel() for parameter in model.backbone.parameters())
    assert not [entry for entry in sent if "head" in entry[1] or "own" in entry[1]]
    wide = [
        shape
        for record, _, shape in sent
        if record in ("updates", "extras", "deviations") and len(shape) > 1
    ]
    assert wide and all(shape[-1] == size for shape in wide)
    private = [
        tensor.numpy().tobytes()
        for state in heads.values()
        for name, tensor in state.items()
        if name.startswith(("heads.", "own.")) and tensor.numel() > 1
    ]
    assert len(private) >= 14  # weights of at least one head, and biases or more, of 7 clients
    assert not any(secret in content for content in grids[0].contents for secret in private)


def test_a_failing_client_is_named_and_the_rest_go_on(tmp_path):
    problem = build_problem(config(tmp_path))
    real = problem.data.client

    def client(index):
        if index == 3:
            raise OSError("disk on fire")
        return real(index)

    problem.data.client = client
    result = simulate(config(tmp_path, evaluate={"every": 4}), problem)
    failed = result.records[0].clients.failed
    assert [f.client for f in failed] == [3]
    assert "disk on fire" in failed[0].reason
    assert result.records[0].clients.trained == 6


def test_a_run_with_too_few_clients_throughout_is_an_error(tmp_path):
    problem = build_problem(config(tmp_path))
    real = problem.data.client
    problem.data.client = lambda index: real(9 if index == 3 else index)  # there are seven
    with pytest.raises(UserError, match=r"no round has merged; .*6 clients trained, strategy.min"):
        simulate(config(tmp_path, strategy={"min_clients": 7}), problem)


def test_more_clients_than_a_round_has_are_not_waited_for(tmp_path):
    few = {"min_clients": 7, "fraction": 0.5}
    with pytest.raises(UserError, match=r"min_clients is 7, but a round has 4 clients: lower it"):
        simulate(config(tmp_path, strategy=few))


PLUGIN = """
import torch
from fedjoint import JointStrategy

class MyMerge(JointStrategy):
    def __init__(self, scale: float = 0.5):
        super().__init__()
        self.scale = scale
    def merge(self, updates):
        return self.scale * updates.mean()

class Wrong(JointStrategy):
    def merge(self, updates):
        return updates.matrix

class Bad(JointStrategy):
    def merge(self, updates):
        return updates.mean() * float("nan")
"""


def test_a_strategy_from_a_file(tmp_path):
    (tmp_path / "mine.py").write_text(PLUGIN)
    name = f"{tmp_path / 'mine.py'}:MyMerge"
    half = simulate(config(tmp_path, rounds=1, strategy={"name": name}))
    full = simulate(config(tmp_path, rounds=1))
    start = build_problem(full.config).model(full.config).state_dict()
    for n, tensor in half.backbone.items():
        expected = start[n] + 0.5 * (full.backbone[n] - start[n])
        torch.testing.assert_close(tensor, expected, rtol=1e-4, atol=1e-6)
    with pytest.raises(
        UserError, match=r"unknown option of strategy .*'scal'.*did you mean 'scale'"
    ):
        simulate(config(tmp_path, strategy={"name": name, "options": {"scal": 1}}))


@pytest.mark.parametrize(("kind", "words"), [("Wrong", "merge returned"), ("Bad", "not finite")])
def test_a_run_without_a_merge_is_an_error(tmp_path, kind, words):
    (tmp_path / "mine.py").write_text(PLUGIN)
    with pytest.raises(UserError, match=f"{kind}: .*{words}"):
        simulate(config(tmp_path, strategy={"name": f"{tmp_path / 'mine.py'}:{kind}"}))


def test_a_message_of_another_version_is_refused():
    from flwr.app import ConfigRecord, Message

    from fedjoint.flower.compat import be_server, number

    be_server()
    content = RecordDict({"config": ConfigRecord({"schema": 0, "json": "{}"})})
    (message,) = number([Message(content, 1, "query")])
    context = Context(1, 1, {}, RecordDict(), {})
    with pytest.raises(UserError, match="install the same version"):
        make_app()(message, context)


def test_statistics_of_batch_norm_are_averaged_whatever_the_rule(tmp_path):
    model = {
        "backbone": {
            "name": "cnn",
            "options": {"hidden": [4, 8], "batch_norm": True},
        }
    }
    runs = [
        simulate(config(tmp_path, rounds=1, model=model, strategy={"name": "fedavg", "options": o}))
        for o in ({}, {"server_lr": 0.01})
    ]
    means, slow = (run.backbone for run in runs)
    statistics = [name for name in means if "running" in name]
    for name in statistics:  # on a GPU to rounding, on a CPU to the bit
        torch.testing.assert_close(slow[name], means[name])
    assert statistics
    assert any(not torch.equal(means[name], slow[name]) for name in means)


@pytest.mark.parametrize(
    ("engine", "said"),
    [
        ("warp", "unknown engine 'warp': allowed are flower, inline, ray"),
        ({"name": "inline", "options": {"speed": 9}}, "unknown option of engine inline 'speed'"),
        ("collections:Counter", "engine collections:Counter: Counter is no fedjoint.Engine"),
    ],
)
def test_an_engine_that_cannot_be_had_is_one_line(engine, said):
    with pytest.raises(UserError, match=said) as error:
        make_engine(check({"engine": engine}).engine)
    assert "\n" not in str(error.value)
