"""A run too small for Ray's start says what one process would have taken."""

import io

import pytest
from rich.console import Console
from support.records import make_record

from fedjoint.config.load import check
from fedjoint.experiments.report import show_what_inline_takes
from fedjoint.runs.record import Seconds
from fedjoint.runs.result import RunResult

# A round of 0.6 s, of which 0.2 are training and 0.1 evaluation.
ALONE = Seconds(0.1, 0.2, 0.1, 0.1, 0.1, 0.6, work=0.2)
TWO = Seconds(0.1, 0.2, 0.1, 0.1, 0.1, 0.6, work=0.4)


def said(tmp_path, seconds, took, engine="ray"):
    config = check({"data": {"source": {"name": "digits"}}, "engine": {"name": engine}})
    records = [make_record(round, seconds=seconds) for round in range(1, 11)]
    text = io.StringIO()
    result = RunResult(tmp_path, config, records, {})
    show_what_inline_takes(result, took, Console(file=text, width=200))
    return text.getvalue()


@pytest.mark.parametrize(
    ("seconds", "own"),
    [
        (ALONE, 6.0),  # one of the workers had all the work
        (TWO, 9.0),  # two trained and evaluated beside one another
    ],
)
def test_it_adds_up_what_workers_did_beside_one_another(tmp_path, seconds, own):
    line = said(tmp_path, seconds, took=2 * own)
    assert f"about {own} s where Ray took {2 * own} with" in line
    assert line.count("\n") == 1 and "the same bits" in line
    assert said(tmp_path, seconds, took=1.1 * own) == ""


def test_another_engine_says_nothing(tmp_path):
    assert said(tmp_path, ALONE, took=60.0, engine="inline") == ""
