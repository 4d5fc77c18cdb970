"""The settings with which a node replaces those of a run."""

import pytest
from support.plugins import plugin

from fedjoint.config.data import SourceConfig
from fedjoint.config.load import check
from fedjoint.errors import UserError
from fedjoint.node.own_data import check_registered, own_data, with_own_data


def test_own_data_replace_settings_of_the_run(tmp_path):
    assert own_data(None, []) == {}
    with pytest.raises(UserError, match="--tasks belongs to --data"):
        own_data(None, ["digit"])
    with pytest.raises(UserError, match="no such file"):
        own_data(tmp_path / "none.csv", [])
    table = tmp_path / "own.toml"
    table.write_text('clients = 2\nsource = {options = {path = "x.csv"}}\n')
    assert own_data(table, ["a"]) == {
        "source": {"options": {"path": "x.csv"}},
        "clients": 2,
        "task_mix": [["a"]],
    }


def test_options_of_the_run_s_source_are_added_to_and_those_of_another_are_not():
    # The run's test set goes with the run's own files.
    files = {"path": "all.csv", "test_path": "rest.csv"}
    run = {"source": plugin("csv", **files, targets={"ill": "multiclass"})}
    settings = check({"data": run | {"partition": "natural"}}).model_dump()

    def on_the_node(own):
        return with_own_data(settings, {"source": own}, [0]).data.source

    assert on_the_node({"options": {"path": "mine.csv"}}).options == {
        "path": "mine.csv",
        "targets": {"ill": "multiclass"},
    }
    assert on_the_node("digits") == SourceConfig(name="digits")
    assert on_the_node(plugin("text", path="x")).options == {"path": "x"}


CODE = "their.code:Thing"
OWN = {"source": {"options": {"path": "mine.csv"}}}


def of_node(run, own):
    return with_own_data(check(run).model_dump(mode="json"), own, [0])


@pytest.mark.parametrize(
    ("setting", "run"),
    [
        ("problem", {"problem": CODE}),
        ("metrics.digit", {"metrics": {"digit": ["accuracy", CODE]}}),
        ("losses.digit", {"losses": {"digit": CODE}}),
        ("local.augment", {"local": {"augment": ["noise", CODE]}}),
        ("balance", {"balance": CODE}),
        ("data.source", {"data": {"source": CODE}}),
        ("model.backbone", {"model": {"backbone": CODE}}),
        (
            "model.groups.a.backbone",
            {"model": {"groups": {"a": {"clients": [0], "backbone": CODE}}}},
        ),
        ("strategy.compression", {"strategy": {"compression": CODE}}),
    ],
)
def test_code_that_a_run_names_by_its_place_is_refused_wherever_it_is_named(setting, run):
    with pytest.raises(UserError, match=rf"^{setting} names code by its place"):
        check_registered(of_node(run, OWN), "joint", OWN)


def test_what_is_installed_the_server_s_own_code_and_the_node_s_own_source_may_be_named():
    run = {
        "metrics": {"digit": ["accuracy", "macro_f1"]},
        "losses": {"digit": "focal"},
        "strategy": CODE,
        "engine": CODE,
        "callbacks": [CODE],
    }
    for source in (CODE, {"name": CODE}):
        own = {"source": source}
        check_registered(of_node(run, own), "prox", own)
