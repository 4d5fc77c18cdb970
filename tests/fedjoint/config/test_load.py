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
        ({"balance": {"nam": "dwa"}}, "unknown key 'balance.nam': allowed here are name, options"),
        ({"metrics": {"ink": {"nam": "r2"}}}, "unknown key 'metrics.ink.nam'.*mean 'name'"),
        ({"callbacks": [{"name": "a:b", "option": {}}]}, "unknown key 'callbacks.0.option'"),
        ({"metrics": {"ink": {}}}, "metrics.ink.name: Field required"),
        ({"strategy": {"compression": {"options": {"fraction": 1}}}}, "set its name"),
        ({"data": {"source": 3}}, "data.source: .*(given: 3)"),
    ],
)
def test_a_wrong_plug_in_is_one_line(tree, said):
    with pytest.raises(UserError, match=said.replace("(", r"\(").replace(")", r"\)")) as error:
        check(tree)
    assert "\n" not in str(error.value)
