"""What is wrong with the user's own model, loss, metric or data is said before the first round."""

import re

import numpy as np
import pytest
import torch
from torch import nn

import fedjoint
from fedjoint import Client, Examples, Metric, Problem, Task, UserError


class Toy:
    """Four clients with one task."""

    task_names = ("a",)

    def __init__(self, change=None, rows=40, tasks=1):
        self.change, self.rows = change or (lambda index, examples: examples), rows
        self.sizes, self.tasks = np.full(4, rows), np.ones((4, 1), bool)

    def client(self, index):
        x = torch.randn(self.rows, 8, generator=torch.Generator().manual_seed(index))
        examples = self.change(index, Examples(x, {"a": (x[:, 0] > 0).long()}))
        return Client(examples, examples, examples)


def simulate(tmp_path, backbone=lambda: nn.Linear(8, 16), data=None, rounds=2, **task):
    problem = Problem(
        [Task("a", "multiclass", 2, **task)], backbone, data or Toy(), torch.zeros(1, 8)
    )
    config = {"rounds": rounds, "engine": {"name": "inline"}, "output": {"dir": str(tmp_path)}}
    return fedjoint.simulate(config, problem)


class Broken(nn.Module):
    def __init__(self, act):
        super().__init__()
        self.layer, self.act = nn.Linear(8, 16), act

    def forward(self, x):
        return self.act(self.layer(x))


def only_training(features):
    raise ZeroDivisionError("no such luck")


class Positions(fedjoint.PositionLoss):
    kinds = ("multiclass",)

    def __init__(self, act):
        super().__init__()
        self.act = act

    def at(self, output, y):
        return self.act(output)


class Summing(Positions):
    def summed(self, output, y):
        return 0 * output.sum(), (y >= 0).sum()


def statistics(output, y):
    return (output.argmax(1) == y).double()[:, None].repeat(1, 2)


#: what is wrong -> arguments of ``simulate``, words of the error
WRONG = {
    "a loss of one number": (
        {"loss": lambda output, y: output.sum()},
        "the loss of task 'a' returns (): return every example's loss and whether",
    ),
    "a loss without what is known": (
        {"loss": lambda output, y: output.sum(1)},
        "the loss of task 'a' returns (16,)",
    ),
    "losses of the wrong shape": (
        {"loss": lambda output, y: (output, y >= 0)},
        "the losses are (16, 2), not of shape (16,)",
    ),
    "a loss that fails": (
        {"loss": lambda output, y: 1 / 0},
        "the loss of task 'a' fails: ZeroDivisionError: division by zero",
    ),
    "a metric that is a function": (
        {"metric": lambda output, y: 1.0},
        "the metric of task 'a' is function: give a fedjoint.Metric",
    ),
    "an unknown metric": ({"metric": "macro_f7"}, "unknown metric 'macro_f7'"),
    "a metric that fails": (
        {"metric": Metric("m", lambda output, y: output[:, 9], float)},
        "the metric 'm' of task 'a' fails: IndexError",
    ),
    "statistics without rows": (
        {"metric": Metric("m", lambda output, y: output.double().sum(0), float)},
        "its statistics are (2,), not of shape (16, k)",
    ),
    "statistics of as many numbers as examples": (
        {"metric": Metric("m", lambda output, y: torch.eye(len(y)), float)},
        "of 16 examples it has 16 statistics each, and of 17 it has 17",
    ),
    "statistics that are not finite": (
        {"metric": Metric("m", lambda output, y: statistics(output, y).log(), float)},
        "its statistics are not finite with the first weights",
    ),
    "a metric that takes no missing label": (
        {"metric": Metric("m", lambda output, y: output.gather(1, y[:, None]), float)},
        "the metric 'm' of task 'a', beside a missing label, fails: RuntimeError",
    ),
    "a loss of all positions in one": (
        {"loss": Positions(lambda output: output.sum())},
        "Positions.at returns (), not of shape (16, 1): return a loss for each position",
    ),
    "a loss of one example": (
        {"loss": Positions(lambda output: output.sum(-1)[:1])},
        "Positions.at returns (1, 1), not of shape (16, 1)",
    ),
    "a loss whose sum is another": (
        {"loss": Summing(lambda output: output.square().sum(-1))},
        "of 16 examples, and the losses of those with a label add up to",
    ),
    "a loss without a gradient": (
        {"loss": lambda output, y: ((output.argmax(1) - y).abs().float(), y >= 0)},
        "the loss of task 'a' has no gradient",
    ),
    "a loss that is undefined": (
        {"loss": lambda output, y: (output.sum(1) * torch.nan, y >= 0)},
        "the loss of task 'a' is undefined (NaN) with the first weights",
    ),
    "features without a gradient": (
        {"backbone": lambda: Broken(torch.Tensor.detach)},
        "the backbone's features have no gradient",
    ),
    "a metric without a value": (
        {"metric": Metric("m", statistics, lambda sums: "good")},
        "its value is str, not a number",
    ),
    "a head of another width": (
        {"head": lambda features: nn.Linear(features, 3)},
        "the head of task 'a' gives (16, 3), and the task needs (16, 2)",
    ),
    "labels of another type": (
        {"data": Toy(lambda i, e: Examples(e.x, {"a": e.y["a"].to(torch.uint8)}))},
        "client 0, task 'a': labels are torch.uint8",
    ),
    "inputs of another type": (
        {"data": Toy(lambda i, e: Examples(e.x.double(), e.y))},
        "client 0, train inputs are torch.float64 [8], and the model takes torch.float32 [8]",
    ),
    "data that cannot be read": (
        {"data": Toy(lambda i, e: e.missing)},
        "the data of client 0 fails: AttributeError",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_said_in_one_line_before_the_first_round(what, tmp_path):
    wrong, words = WRONG[what]
    with pytest.raises(UserError, match=re.escape(words)) as error:
        simulate(tmp_path, **wrong)
    assert "\n" not in str(error.value)
    for run in tmp_path.glob("*/metrics.jsonl"):
        assert not run.read_text()


def one_class(index, examples):
    return Examples(examples.x, {"a": torch.ones_like(examples.y["a"])})


@pytest.mark.parametrize(
    ("own", "change", "doubted"),
    [
        (Metric("m", statistics, lambda sums: float("nan")), None, True),
        (Metric("m", statistics, lambda sums: float(sums[1] / sums[0].clamp(min=1))), None, False),
        (Metric("m", statistics, lambda sums: float("nan")), one_class, False),  # it may be that
        ("auroc", one_class, False),
    ],
)
def test_a_metric_that_is_not_a_number_is_said_once(own, change, doubted, tmp_path, caplog):
    simulate(tmp_path, data=Toy(change), metric=["accuracy", own])
    said = [r.getMessage() for r in caplog.records if "not a number (NaN)" in r.getMessage()]
    assert len(said) == doubted
    if doubted:
        assert said[0].startswith("the metric 'm' of task 'a': its value") and "\n" not in said[0]


def test_one_client_s_bad_data_keeps_nobody_else_from_training(tmp_path):
    def spoil(index, examples):
        return Examples(examples.x.double(), examples.y) if index == 0 else examples

    record = simulate(tmp_path, data=Toy(spoil)).records[-1]
    assert record.clients.ids == (1, 2, 3)
    assert [failure.client for failure in record.clients.failed] == [0]


@pytest.mark.parametrize("loss", [nn.CrossEntropyLoss(), nn.CrossEntropyLoss(reduction="sum")])
def test_a_loss_of_pytorch_s_is_used_example_by_example(tmp_path, loss):
    plain, own = (simulate(tmp_path, loss=each).backbone for each in (None, loss))
    for name, tensor in plain.items():
        torch.testing.assert_close(own[name], tensor, rtol=1e-5, atol=1e-6)


#: what a local method does wrong in ``train`` -> the line
METHODS = {
    "return None": "Own.train returns NoneType: return a dict of tensors, or {}",
    "return [1]": "Own.train returns list: return a dict of tensors, or {}",
    "return {'x': 1.0}": "Own.train returns 'x': float: give a tensor [clients, ...]",
    "return {'x': torch.zeros(3)}": "Own.train returns 'x': (3,): give a tensor [clients, ...]",
    "job.shared = None; return {}": "leaves job.shared as NoneType: change it in place",
    "job.shared = job.shared[:, 1:]; return {}": "leaves job.shared as (1, 143)",
    "job.shared = job.shared.double(); return {}": "job.shared as (1, 144): change it in place",
    "job.private['c'] = 1; return {}": "leaves job.private with 'c': int: give a tensor",
    "job.descend(steps=0); return {}": "train for one or more steps, not 0",
    "job.descend(epochs=-1); return {}": "train for one or more epochs, not -1",
    "job.descend(steps=1, epochs=1); return {}": "so many steps or so many epochs, not both",
    "1 / 0": "a step of training fails: ZeroDivisionError",
}

#: what a compression does wrong, in place of a method that is right -> the line
COMPRESSIONS = {
    "compress = lambda self, wanted: None": "compress returns NoneType, not a dict of tensors",
    "compress = lambda self, wanted: {'x': 1.0}": "compress returns dict, not a dict of tensors",
    "compress = lambda self, wanted: {'x': wanted / 0}": "a number is not finite",
    "compress = lambda self, wanted: {'x': wanted.half()}": "x is of torch.float16, expected",
    "compress = lambda self, wanted: {'y': wanted}": "x is no array, expected (1, 144)",
    "expand = lambda self, payload, size: payload['x'][:, :2]": "expand returns (1, 2), and the",
    "expand = lambda self, payload, size: 1 / 0": "fails: ZeroDivisionError: division by zero",
}

OWN_COMPRESSION = """
class Own(fedjoint.Compression):
    compress = lambda self, wanted: {"x": wanted}
    expected = lambda self, rows, size: {"x": ((rows, size), torch.float32)}
    expand = lambda self, payload, size: payload["x"]
    %s
"""


def with_plugin(tmp_path, text, settings):
    (tmp_path / "own.py").write_text("import fedjoint\nimport torch\n" + text)
    problem = Problem(
        [Task("a", "multiclass", 2)], lambda: nn.Linear(8, 16), Toy(), torch.zeros(1, 8)
    )
    output = {"output": {"dir": str(tmp_path / "runs")}, "engine": "inline", "rounds": 1}
    return fedjoint.simulate(output | settings(f"{tmp_path}/own.py:Own"), problem)


@pytest.mark.parametrize("wrong", METHODS)
def test_what_a_local_method_does_wrong(wrong, tmp_path):
    text = f"class Own(fedjoint.LocalMethod):\n    def train(self, job):\n        {wrong}\n"
    with pytest.raises(UserError, match=re.escape(METHODS[wrong])) as error:
        with_plugin(tmp_path, text, lambda name: {"local": {"method": name}})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("wrong", COMPRESSIONS)
def test_what_a_compression_does_wrong(wrong, tmp_path):
    with pytest.raises(UserError, match=re.escape(COMPRESSIONS[wrong])) as error:
        with_plugin(
            tmp_path, OWN_COMPRESSION % wrong, lambda name: {"strategy": {"compression": name}}
        )
    assert "\n" not in str(error.value)


def test_a_compression_that_is_right_passes(tmp_path):
    text = OWN_COMPRESSION % "omits = ''"
    result = with_plugin(tmp_path, text, lambda name: {"strategy": {"compression": name}})
    assert result.records[-1].clients.trained == 4
