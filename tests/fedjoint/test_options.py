"""Options of plug-ins: unknown, missing, of a wrong type or out of range."""

from functools import partial
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from fedjoint.errors import UserError
from fedjoint.model.metric import make_metric
from fedjoint.options import (
    BelowOne,
    Count,
    NotNegative,
    Positive,
    Share,
    UpToOne,
    Whole,
    allowed_words,
    construct,
    make_plugin,
    options_of,
)


class Rule:
    def __init__(
        self,
        rate: Positive,
        *,
        steps: Count = 1,
        level: Literal["task", "client"] = "task",
        on: bool = False,
        weights: dict[str, NotNegative] | None = None,
        widths: list[Count] = (8,),
        angle: Annotated[float, Field(gt=-1, le=1)] = 0.0,
        anything=None,
    ):
        self.values = rate, steps, level, on, weights, widths, angle, anything


def test_options_reach_the_constructor():
    options = {"rate": 2, "weights": {"a": 0.5}, "widths": [4, 4], "anything": "else", "on": True}
    assert construct("rule", Rule, options).values == (
        *(2.0, 1, "task", True, {"a": 0.5}, [4, 4], 0.0, "else"),
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "rule needs the option rate: a number > 0"),
        ({"rat": 1}, "unknown option of rule 'rat': allowed are .*; did you mean 'rate'"),
        ({"rate": 0}, "rule: option rate = 0: a number > 0 and <= 1e6 is allowed"),
        ({"rate": "1"}, "option rate = '1': a number > 0 and <= "),
        ({"rate": True}, "option rate = True: a number > 0 and <= "),
        ({"rate": float("inf")}, "option rate = inf: it must be finite"),
        ({"rate": 1, "weights": {"a": float("nan")}}, "option weights.a = nan: it must be finite"),
        ({"rate": 1, "widths": [float("inf")]}, "option widths.0 = inf: it must be finite"),
        ({"rate": 1e-300}, "option rate = 1e-300: it must be 0, or between 1e-30 and 1e30 in"),
        (
            {"rate": 1, "anything": [{"a": 1e308}]},
            "option anything.0.a = 1e.308: it must be 0, or",
        ),
        ({"rate": 1e7}, "option rate = 10000000.0: a number > 0 and <= 1e6 is allowed"),
        ({"rate": 1, "steps": 1.0}, "option steps = 1.0: a whole number >= 1 and <= 1000000 is"),
        ({"rate": 1, "on": 1}, "option on = 1: true or false is allowed"),
        ({"rate": 1, "level": "tusk"}, "option level 'tusk': allowed are client, task; did you"),
        (
            {"rate": 1, "widths": [3, 0]},
            "option widths.1 = 0: a list, each a whole number >= 1 and",
        ),
        ({"rate": 1, "angle": -1}, "option angle = -1: a number > -1 and <= 1 is allowed"),
        ({"rate": 1, "weights": {"a": -1}}, "each a number >= 0 and <= 1e6 or nothing is"),
    ],
)
def test_a_wrong_option_is_one_line(options, said):
    with pytest.raises(UserError, match=said) as error:
        construct("rule", Rule, options)
    assert "\n" not in str(error.value)


def test_what_is_bound_before_is_no_option():
    def build(place, width: Count = 3):
        return place, width

    assert construct("it", build, {"width": 5}, "here") == ("here", 5)
    assert [option.name for option in options_of(partial(build, "here"))] == ["width"]
    with pytest.raises(UserError, match="it: int is no class or function"):
        construct("it", 3, {})
    with pytest.raises(UserError, match="allowed are width"):
        construct("it", build, {"place": "there"}, "here")


def test_an_annotation_that_cannot_be_checked_is_left_to_the_plug_in():
    class Own:
        pass

    def build(one: Own, other: "Nowhere" = None):  # noqa: F821
        return one

    def single(one: Own):
        return one

    own = Own()
    assert construct("it", build, {"one": own}) is own
    assert construct("it", single, {"one": own}) is own


def test_whatever_a_plug_in_raises_is_one_line():
    def build(size: int = 1):
        raise ZeroDivisionError("out\nof luck")

    with pytest.raises(UserError, match=r"^it: ZeroDivisionError: out$"):
        construct("it", build, {})


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (Positive, "a number > 0 and <= 1e6"),
        (UpToOne, "a number >= 0 and <= 1"),
        (BelowOne, "a number >= 0 and < 1"),
        (Share, "a number > 0 and <= 1"),
        (Whole, f"a whole number >= 0 and <= {2**63 - 1}"),
        (Any, "anything"),
        (str | list[str], "a text or a list, each a text"),
        (Literal["a", "b"], "a or b"),
    ],
)
def test_what_is_allowed_in_words(annotation, words):
    assert allowed_words(annotation) == words


class Base:
    __module__ = "fedjoint"


@pytest.mark.parametrize("kind", ["strategies", "methods", "sources", "balances", "compressions"])
@pytest.mark.parametrize("name", ["subprocess:Popen", "subprocess:check_output", "builtins:exec"])
def test_nothing_is_called_that_is_no_plug_in(kind, name, monkeypatch):
    called = []
    monkeypatch.setattr("subprocess.Popen.__init__", lambda *a, **k: called.append(a))
    with pytest.raises(UserError, match=r"is no fedjoint\.Base; subclass that"):
        make_plugin(kind, name, {"args": "true"}, Base)
    with pytest.raises(UserError, match=r"no fedjoint\.Metric"):
        make_metric(name, {"args": "true"})
    assert not called
