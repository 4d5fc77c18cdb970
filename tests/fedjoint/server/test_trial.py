"""A plug-in's merge that is wrong in itself ends the run before a client trains."""

import logging

import pytest
import torch
from support import small

from fedjoint.errors import UserError
from fedjoint.server import trial
from fedjoint.simulation import simulate

#: What merge does, and what is said.
WRONG = [
    ("return updates.matrx.mean(0)", "AttributeError: 'Updates' object has no attribute 'matrx'"),
    ("return updates.matrix.mean(1)", r"merge returned \(7,\), not"),
    ("return float(updates.matrix.mean())", "merge returned float, not"),
    ("return None", "merge returned NoneType, not"),
    ("return updates.mean() + undefined", "NameError: name 'undefined' is not defined"),
    ("return updates.matrix[0] @ updates.matrix", "merge fails: RuntimeError"),
    ("raise KeyError('lost')", "KeyError: 'lost'"),
    ("updates.matrix.mul_(2); return updates.mean()", "changed updates.matrix in place"),
    ("self.state['x'] = 3; return updates.mean()", r"state\['x'\] is int, not a tensor"),
    ("return 1 // 0 + updates.mean()", "ZeroDivisionError"),
    ("raise NotImplementedError('later')", "NotImplementedError: later"),
    ("import nowhere", "ModuleNotFoundError: No module named 'nowhere'"),
    ("raise RuntimeError('a\\nb')", "RuntimeError: a"),
    ("return updates.mean() / 0", "merge returned a step that is not finite"),
    (
        "self.state['x'] = updates.mean().log(); return updates.mean()",
        r"state\['x'\] is not finite",
    ),
]

#: What merge does with made-up updates is no reason to refuse it.
RIGHT = [
    "return updates.mean()",
    "return updates.extras['mine'].mean(0)",
    "if len(updates) < 99: raise ValueError('too few')\n        return updates.mean()",
    "return updates.mean() / (updates.round != 2)",
]


def settings(tmp_path, body):
    name = f"rule{abs(hash(body))}.py"
    text = f"""
import fedjoint

class Rule(fedjoint.JointStrategy):
    def merge(self, updates):
        {body}
"""
    (tmp_path / name).write_text(text)
    strategy = {"name": f"{tmp_path / name}:Rule"}
    return small.config(tmp_path / "runs", strategy=strategy)


def train(config, rounds):
    return simulate(config, callbacks=[rounds.append])


@pytest.mark.parametrize(("body", "says"), WRONG)
def test_a_wrong_merge_is_said_in_one_line(tmp_path, caplog, body, says):
    rounds: list = []
    with pytest.raises(UserError, match=f"before the first round: Rule: .*{says}") as error:
        train(settings(tmp_path, body), rounds)
    assert not rounds and "\n" not in str(error.value)
    assert len([r for r in caplog.records if r.exc_info]) <= 1


@pytest.mark.parametrize("body", RIGHT)
def test_what_may_be_right_later_goes_on_to_the_first_round(tmp_path, body):
    config, rounds = settings(tmp_path, body), []
    try:
        train(config, rounds)
    except UserError as error:
        assert "before the first round" not in str(error)
    assert rounds or "extras" in body


def test_of_a_large_model_a_few_rows_are_tried(tmp_path, monkeypatch):
    monkeypatch.setattr(trial, "_MOST", 1)
    rounds: list = []
    train(settings(tmp_path, "assert len(updates) > 2; return updates.mean()"), rounds)
    assert len(rounds) == 4
    with pytest.raises(UserError, match="before the first round"):
        train(settings(tmp_path, "return updates.moon()"), rounds)


def test_one_traceback_a_reason_and_each_trouble_once(tmp_path, caplog):
    body = "assert updates.round == 1, 'tired'; return updates.mean()"
    with caplog.at_level(logging.WARNING):
        result = train(settings(tmp_path, body), [])
    assert [bool(record.kept) for record in result.records] == [False, True, True, True]
    assert len([r for r in caplog.records if r.exc_info]) == 1
    said = [r.getMessage() for r in caplog.records if not r.exc_info]
    assert said == [
        "round 2: the previous backbone is kept: Rule: merge fails: AssertionError: tired"
    ]


def test_the_trial_leaves_nothing_behind(tmp_path):
    body = "self.n = getattr(self, 'n', 0) + 1; assert self.n == updates.round; "
    result = train(settings(tmp_path, body + "return updates.mean()"), [])
    assert not any(record.kept for record in result.records)
    plain = simulate(small.config(tmp_path / "plain"))
    for name, tensor in plain.backbone.items():
        torch.testing.assert_close(result.backbone[name], tensor)
