"""Variants of a scenario: their settings, and the table of what they reach."""

import runpy
import sys

import pytest

from fedjoint.errors import UserError
from fedjoint.simulations._variants import Variants

SCENARIO = {
    "name": "small",
    "rounds": 1,
    "data": {"source": "digits", "clients": 4, "task_mix": [["digit"], ["loop"]]},
    "model": {"backbone": {"name": "mlp", "options": {"hidden": [4]}}},
    "local": {"epochs": 1, "optimiser": {"lr": 0.1}},
}
ARMS = {"plain": {}, "slower": {"local": {"optimiser": {"lr": 0.001}}}}


def more(folder):
    return {"output": {"dir": str(folder)}, "engine": {"name": "inline"}}


def test_an_arm_has_the_scenario_s_settings_but_for_its_own(tmp_path):
    variants = Variants(SCENARIO, ARMS)
    plain, slower = (variants.config(arm, more(tmp_path)) for arm in ARMS)
    assert (plain.local.optimiser.lr, slower.local.optimiser.lr) == (0.1, 0.001)
    assert plain.model_copy(update={"local": slower.local}) == slower
    with pytest.raises(UserError, match="strategy"):
        Variants(SCENARIO, {"none": {"strategy": {"name": "fedavgg"}}}).measure(
            1, 1, more(tmp_path)
        )


def test_a_table_has_a_row_for_each_and_gains_over_the_first(tmp_path):
    variants = Variants(SCENARIO, ARMS)
    arms, common = variants.measure(2, 2, more(tmp_path))
    lines = list(variants.table(arms, common, "arm"))
    assert lines[0] == "| arm | digit | loop | gain on each | kB |"
    rows = [line.strip("| ").split(" | ") for line in lines[2:]]
    assert [row[0] for row in rows] == ["each client", "plain", "slower"]
    assert rows[0][-1] == "0" and rows[1][-1] == rows[2][-1] != "0"
    assert rows[1][3].strip() == "" and rows[2][3].count("±") == 2


def test_several_models_stand_beside_one_of_them(tmp_path, monkeypatch):
    module = runpy.run_module("fedjoint.simulations.ensembles.__main__")
    few = module["settings"]
    monkeypatch.setitem(
        module["measure"].__globals__,
        "settings",
        lambda *given, **more: few(*given, **more, rounds=2),
    )
    found = [module["measure"](seed, str(tmp_path)) for seed in (0, 1)]
    lines = list(module["table"](found, 0.2))
    assert len(lines) == 2 + 4 * 3 and all(line.count("±") == 3 for line in lines[2:])
    pairs = [seed["clients' models, of one run"] for seed in found]
    for cell, at in ((3, 0), (4, 1)):
        mean = sum(pair[at]["digit"] for pair in pairs) / 2
        assert lines[2].split("|")[cell].strip().startswith(f"{mean:.3f}")


@pytest.mark.parametrize("program", ["couplings", "places"])
def test_every_arm_of_a_program_fits_its_scenario(program, monkeypatch, tmp_path):
    found = runpy.run_module(f"fedjoint.simulations.{program}.__main__")["VARIANTS"]
    assert len(found.arms) > 3
    for arm in found.arms:
        assert found.config(arm, more(tmp_path)).rounds == found.scenario["rounds"]
    monkeypatch.setattr(sys, "argv", [program, "--seeds", "x"])
    with pytest.raises(SystemExit):
        runpy.run_module(f"fedjoint.simulations.{program}.__main__", run_name="__main__")
