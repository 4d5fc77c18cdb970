"""Which local method runs under which strategy: never another than the strategy is named for."""

import json
import logging

import pytest

from fedjoint._util.logs import JsonLines
from fedjoint.cli.running import label
from fedjoint.config.load import check
from fedjoint.errors import UserError
from fedjoint.experiments.ways import independent
from fedjoint.registry import find, registered
from fedjoint.runs.directory import RunDir
from fedjoint.server.strategy import make_strategy
from fedjoint.simulation import simulate

OPTIONS = {"prox": {"mu": 0.1}, "rep": {"head_steps": 2}, "ditto": {"lam": 0.1}}
OPTIONS |= {"apfl": {"alpha": 0.5}, "feddyn": {"alpha": 0.1}, "amp": {"lam": 0.1}}
OPTIONS |= {"matu": {}, "ala": {"mix_epochs": 1, "mix_rate": 1.0}}
OWN = [n for n in registered("strategies") if find("strategies", n).method != "joint"]
HALVES = {"scaffold": "scaffold", "feddyn": "feddyn"}
HALVES |= {"feddf": "feddf", "fedmd": "fedmd", "fedproto": "fedproto", "amp": "fedamp"}
HALVES |= {"matu": "matu"}


def configured(strategy, method=None, options=None):
    local = {"method": method, "options": options or OPTIONS.get(method, {})} if method else {}
    model = {"heads": "shared"} if strategy == "feddf" else {}
    return check({"strategy": {"name": strategy}, "local": {"steps": 2, **local}, "model": model})


def test_the_strategies_with_a_half_of_their_own_are_known():
    own = (
        "apfl ditto fedala fedamp fedbabu feddf feddyn fedmd fedproto fedprox fedrep matu scaffold"
    )
    assert " ".join(OWN) == own


@pytest.mark.parametrize("strategy", OWN)
@pytest.mark.parametrize("method", ["own", "prox", "joint", "independent"])
def test_a_strategy_s_own_half_is_not_replaced(strategy, method):
    own = find("strategies", strategy).method
    method = own if method == "own" else method
    with pytest.raises(UserError) as error:
        make_strategy(configured(strategy, method))
    said = str(error.value)
    assert said.startswith(f"local.method = '{method}': strategy {strategy} is not itself without")
    assert f" {own};" in said and "set strategy.name = 'fedavg'" in said and "\n" not in said
    make_strategy(configured(strategy))
    make_strategy(independent(configured(strategy)))  # the arm to compare with


@pytest.mark.parametrize("method", HALVES)
def test_half_a_strategy_is_not_run_without_the_other(method):
    with pytest.raises(UserError, match=f"one half of strategy {HALVES[method]}: set"):
        make_strategy(configured("fedavg", method))


@pytest.mark.parametrize("strategy", ["fedavg", "pcgrad", "krum", "ifca"])
@pytest.mark.parametrize("method", sorted(set(registered("methods")) - set(HALVES)))
def test_every_other_method_runs_under_every_other_strategy(strategy, method):
    make_strategy(configured(strategy, method))


@pytest.mark.parametrize("optimiser", ["adam", "adamw"])
def test_scaffold_refuses_adam(optimiser):
    tree = {"strategy": {"name": "scaffold"}, "local": {"optimiser": {"name": optimiser}}}
    with pytest.raises(UserError, match=r"scaffold needs local\.optimiser\.name = 'sgd'"):
        make_strategy(check(tree))


def test_a_refusal_leaves_nothing_behind(tmp_path):
    config = configured("ditto", "prox")
    output = config.output.model_copy(update={"dir": str(tmp_path)})
    with pytest.raises(UserError):
        simulate(config.model_copy(update={"output": output}))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("strategy", "method", "runs", "options"),
    [
        ("fedprox", None, "prox", {"mu": 0.01}),
        ("fedavg", "prox", "prox", {"mu": 0.1}),
        ("fedavg", None, "joint", {}),
    ],
)
def test_the_method_that_runs_is_told(tmp_path, caplog, strategy, method, runs, options):
    caplog.set_level(logging.INFO, "fedjoint.server.serve")
    config = configured(strategy, method)
    tree = config.model_dump()
    tree["local"].pop("epochs")
    changes = {"rounds": 1, "engine": {"name": "inline"}, "output": {"dir": str(tmp_path)}}
    result = simulate(tree | {"data": {"clients": 3}} | changes)
    assert RunDir.open(result.path).info["method"] == runs
    (told,) = (r for r in caplog.records if getattr(r, "details", {}).get("event") == "method")
    line = json.loads(JsonLines().format(told))
    assert (line["strategy"], line["method"], line["method_options"]) == (strategy, runs, options)
    assert line["message"] == f"strategy {strategy}, local method {runs}"
    assert label(result.config) == f"run ({strategy}{', prox' if method else ''})"
