"""Plug-ins in the configuration: by name alone, or with options."""

import pytest

from fedjoint.config.load import check, override
from fedjoint.errors import UserError


@pytest.mark.parametrize(
    "given", ["topk", {"name": "topk"}, {"name": "topk", "options": {}}], ids=repr
)
def test_a_name_alone_is_short_for_a_table(given):
    found = check({"strategy": {"compression": given}}).strategy.compression
    assert (found.name, found.options) == ("topk", {})


def test_options_without_a_name_are_those_of_the_default():
    found = check({"model": {"backbone": {"options": {"hidden": [4]}}}}).model.backbone
    assert (found.name, found.options) == ("mlp", {"hidden": [4]})


def test_settings_reach_into_what_was_a_name_alone():
    tree = override({"data": {"source": "text"}}, ["data.source.options.path=x"])
    assert tree["data"]["source"] == {"name": "text", "options": {"path": "x"}}
    assert override({"engine": "ray"}, ["engine.name=inline"])["engine"] == {"name": "inline"}


@pytest.mark.parametrize(
    ("tree", "said"),
    [
        (
            {"data": {"target_scale": {"a": "auto"}}},
            "data.target_scale.a: allowed are own, none, or a list",
        ),
        (
            {"data": {"target_scale": {"a": [0, float("nan")]}}},
            "data.target_scale.a.1: Input should be a finite number",
        ),
        ({"strategy": 5}, "strategy: Input should be a table"),
        ({"engine": {"threads": 100_000}}, "engine.threads: Input should be less than"),
        ({"balance": {"nam": "dwa"}}, "unknown key 'balance.nam': allowed here are name, options"),
        ({"metrics": {"ink": {"nam": "r2"}}}, "unknown key 'metrics.ink.0.nam'.*mean 'name'"),
        ({"callbacks": [{"name": "a:b", "option": {}}]}, "unknown key 'callbacks.0.option'"),
        ({"metrics": {"ink": {}}}, "metrics.ink.0.name: Field required"),
        ({"strategy": {"compression": {"options": {"fraction": 1}}}}, "set its name"),
        ({"data": {"source": 3}}, "data.source: .*(given: 3)"),
    ],
)
def test_a_wrong_plug_in_is_one_line(tree, said):
    with pytest.raises(UserError, match=said.replace("(", r"\(").replace(")", r"\)")) as error:
        check(tree)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("before", "settings", "after"),
    [
        ({"local": {"epochs": 2}}, ["local.steps=3"], {"local": {"steps": 3}}),
        ({"local": {"steps": 3}}, ["local.epochs=2"], {"local": {"epochs": 2}}),
        (
            {"local": {"epochs": 2}},
            ["local.steps=3", "local.epochs=1"],  # both are asked for: the schema refuses them
            {"local": {"steps": 3, "epochs": 1}},
        ),
        (
            {"strategy": {"name": "fedavgm", "options": {"momentum": 0.9}}},
            ["strategy.name=krum"],
            {"strategy": {"name": "krum"}},
        ),
        (
            {"strategy": {"name": "fedavgm", "options": {"momentum": 0.9}}},
            ["strategy.options.malicious=2", "strategy.name=krum"],
            {"strategy": {"name": "krum", "options": {"malicious": 2}}},
        ),
        (
            {"strategy": {"name": "fedavgm", "options": {"momentum": 0.9}}},
            ["strategy.name=fedavgm"],
            {"strategy": {"name": "fedavgm", "options": {"momentum": 0.9}}},
        ),
        (
            {"local": {"method": "prox", "options": {"mu": 1}}},
            ["local.method=ditto"],
            {"local": {"method": "ditto"}},
        ),
        (
            {"data": {"source": {"name": "text", "options": {"path": "x"}}}},
            ["data.source.name=csv", "data.source.options.path=y"],
            {"data": {"source": {"name": "csv", "options": {"path": "y"}}}},
        ),
    ],
)
def test_what_is_set_takes_the_place_of_its_alternative(before, settings, after):
    assert override(before, settings) == after
