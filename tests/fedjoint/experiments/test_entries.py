"""Strategies with options on one line."""

import pytest

from fedjoint.config.load import check
from fedjoint.errors import UserError
from fedjoint.experiments.entries import entry_configs, split_entries


def read(text, **strategy):
    """Return the name and the options of every entry."""
    made = entry_configs(check({"strategy": strategy}), split_entries(text))
    return {label: (c.strategy.name, c.strategy.options) for label, c in made.items()}


def test_entries_are_read_as_written():
    found = read(
        "fedavg, pcgrad[level=task],krum[malicious=2; select = 3],"
        "my/file.py:Mine[sizes=[1, 2];names=[\"a,b;]\", 'c'];on=true;rate=1e-3;kind=a b]"
    )
    assert list(found.values()) == [
        ("fedavg", {}),
        ("pcgrad", {"level": "task"}),
        ("krum", {"malicious": 2, "select": 3}),
        (
            "my/file.py:Mine",
            {"sizes": [1, 2], "names": ["a,b;]", "c"], "on": True, "rate": 1e-3, "kind": "a b"},
        ),
    ]
    assert list(found)[:3] == ["fedavg", "pcgrad[level=task]", "krum[malicious=2; select = 3]"]


def test_a_name_may_appear_with_different_options():
    found = read("mgda,mgda[level=client],mgda[length=mean]")
    assert [options for _, options in found.values()] == [
        {},
        {"level": "client"},
        {"length": "mean"},
    ]


def test_the_options_of_the_configuration_go_to_its_own_strategy():
    found = read("fedavg,mgda,mgda[level=task]", name="mgda", options={"level": "client", "x": 1})
    assert [options for _, options in found.values()] == [
        {},
        {"level": "client", "x": 1},
        {"level": "task", "x": 1},
    ]


def test_options_that_belong_to_nobody_are_an_error():
    with pytest.raises(UserError, match=r"{'beta': 0.1} belong to trimmedmean, which is not"):
        read("fedavg,median", name="trimmedmean", options={"beta": 0.1})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("fedavg,pcgrad[level=task", r"pcgrad\[level=task: write name or name\[option=value"),
        ("krum]", r"krum\]: write name"),
        ("krum[2]", r"krum\[2\]: write name"),
        ("krum[=2]", r"krum\[=2\]: write name"),
        ("krum[malicious=1]x", "write name"),
        ("[a=1]", "write name"),
        ("krum[malicious=1;malicious=2]", "malicious is given twice"),
        ("fedavg,krum,fedavg", "strategy fedavg is given twice"),
        ("", "no strategy is named"),
    ],
)
def test_what_is_malformed_is_one_line(text, said):
    with pytest.raises(UserError, match=said) as error:
        read(text)
    assert "\n" not in str(error.value)
