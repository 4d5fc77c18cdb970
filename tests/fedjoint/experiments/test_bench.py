"""Rankings by hand, and strategies side by side on small data."""

import io
import math
from dataclasses import replace

import numpy as np
import pytest
from handmade import both, printed, two_tasks, wide
from rich.console import Console
from scipy import stats

from fedjoint.engines.base import make_engine
from fedjoint.errors import UserError
from fedjoint.experiments.arms import run_arm
from fedjoint.experiments.bench import Bench, bench_strategies
from fedjoint.experiments.report import show_run
from fedjoint.experiments.show_bench import show_bench
from fedjoint.experiments.ways import JOINT


def test_a_ranking_in_numbers():
    alone = both("alone", [0.5, 0.8], [2.0, 1.0])
    arms = {
        # +20 % and +50 %, then -50 % and 0 %.
        "a": both("a", [0.6, 0.4], [1.0, 1.0]),
        # +60 % and +25 %, then +12.5 % and +20 %.
        "b": both("b", [0.8, 0.9], [1.5, 0.8]),
    }
    rows = Bench(arms, {"alone": alone}).rows()
    assert [row["strategy"] for row in rows] == ["b", "a", "alone"]
    # By task and seed: up b a alone; b alone a; size a b alone; b then a and alone share.
    ranks = {"a": (2 + 3 + 1 + 2.5) / 4, "b": (1 + 1 + 2 + 1) / 4}
    ranks["alone"] = (3 + 2 + 3 + 2.5) / 4
    assert {row["strategy"]: row["mean rank"] for row in rows} == pytest.approx(ranks)
    each = {"a": ([35.0, -25.0], 2.5), "b": ([42.5, 16.25], 4)}
    for row in rows[:2]:
        values, wins = each[row["strategy"]]
        assert row["Delta-m % vs alone"] == pytest.approx(np.mean(values))
        half = stats.t.ppf(0.975, 1) * abs(values[0] - values[1]) / 2
        assert row["Delta-m % vs alone 95 %"] == pytest.approx(half)
        assert row["won vs alone"] == wins / 4
    assert "Delta-m % vs alone" not in rows[2]
    best = rows[0]
    # Errors count negatively: the mean over tasks and the worst, by seed.
    assert best["test"] == pytest.approx(np.mean([(0.8 - 1.5) / 2, (0.9 - 0.8) / 2]))
    assert best["worst task"] == pytest.approx(np.mean([-1.5, -0.8]))
    assert best["up gain vs alone"] == pytest.approx(0.2)
    assert best["size gain vs alone"] == pytest.approx(0.35)
    assert best["MB"] == 3.0 and best["seconds a run"] == 1.0 and best["kept rounds"] == 0


def test_both_references_compare_with_everyone_and_each_other():
    references = {
        "alone": both("alone", [0.5, 0.6, 0.5], [2.0, 2.0, 2.0]),
        "per task": both("per task", [0.8, 0.8, 0.9], [1.0, 1.0, 1.5]),
    }
    found = Bench({"fedavg": both("fedavg", [0.4, 0.6, 0.6], [1.5, 1.5, 2.0])}, references)
    rows = {row["strategy"]: row for row in found.rows()}
    assert "Delta-m % vs per task" in rows["alone"] and "Delta-m % vs alone" in rows["per task"]
    gain = np.mean([(0.4 - 0.8) / 0.8, (0.6 - 0.8) / 0.8, (0.6 - 0.9) / 0.9])
    gain += np.mean([-0.5 / 1, -0.5 / 1, -0.5 / 1.5])
    assert rows["fedavg"]["Delta-m % vs per task"] == pytest.approx(50 * gain)
    assert rows["fedavg"]["won vs per task"] == 0 and rows["per task"]["won vs alone"] == 1


@pytest.mark.parametrize("overlap", [0.0, 0.3])
def test_marks_are_corrected_for_all_that_a_table_compares(overlap):
    alone = both("alone", [0.5, 0.5, 0.5], [1.0, 1.0, 1.0])
    # Worse by much more than the seeds differ; by as much; and not.
    arms = {
        "bad": both("bad", [0.3, 0.31, 0.3], [1.0, 1.1, 0.9]),
        "poor": both("poor", [0.45, 0.48, 0.42], [1.0, 1.0, 1.0]),
    }
    found = Bench(arms, {"alone": alone}, overlap=overlap)
    p = {
        (n, t): min(1.0, 4 * one)
        for (n, t), one in {
            ("bad", "up"): t_test([-0.2, -0.19, -0.2], overlap),
            ("poor", "up"): t_test([-0.05, -0.02, -0.08], overlap),
        }.items()
    }
    assert found.p_values("alone")["bad", "up"] == pytest.approx(p["bad", "up"])
    assert t_test([-0.05, -0.02, -0.08], 0.0) < 0.2 < p["poor", "up"]
    text = printed(lambda console: show_bench(found, 0.1, console))
    assert f"0.30±{half([0.3, 0.31, 0.3], overlap):.2f}*" in text
    assert f"0.45±{half([0.45, 0.48, 0.42], overlap):.2f}" in text
    assert f"0.45±{half([0.45, 0.48, 0.42], overlap):.2f}*" not in text


def t_test(values, overlap):
    error = math.sqrt((1 / len(values) + overlap) * np.var(values, ddof=1))
    return 2 * stats.t.sf(abs(np.mean(values)) / error, len(values) - 1)


def half(values, overlap):
    error = math.sqrt((1 / len(values) + overlap) * np.var(values, ddof=1))
    return stats.t.ppf(0.975, len(values) - 1) * error


def test_a_strategy_that_loses_a_metric_is_last_and_says_so():
    alone = both("alone", [0.5, 0.5, 0.5], [1.0, 1.0, 1.0])
    arms = {
        "lucky": both("lucky", [0.9, 0.9, math.nan], [0.1, 0.1, 0.1]),
        "plain": both("plain", [0.4, 0.4, 0.4], [1.2, 1.2, 1.3]),
    }
    found = Bench(arms, {"alone": alone})
    rows = found.rows()
    assert [row["strategy"] for row in rows] == ["alone", "plain", "lucky"]
    assert rows[2]["mean rank"] < rows[1]["mean rank"]
    delta_m = [row.get("Delta-m % vs alone") for row in rows]
    assert math.isnan(delta_m[2]) and delta_m[1] < 0
    assert rows[2]["test seeds"] == 2 and rows[2]["up seeds"] == 2 and rows[2]["size seeds"] == 3
    text = printed(lambda console: show_bench(found, 0.1, console))
    assert "0.400 ± 0.000 (2 of 3)" in text and "nan (2 of 3)" in text


def test_rounds_without_a_merge_are_counted():
    weak = both("weak", [0.5, 0.5], [1.0, 1.0])
    records = weak.seeds[1].runs[0].records
    records[0] = replace(records[0], kept="NaN")
    found = Bench({"weak": weak}, {"alone": both("alone", [0.5, 0.5], [1.0, 1.0])})
    assert {r["strategy"]: r["kept rounds"] for r in found.rows()} == {"weak": 1, "alone": 0}


def test_a_ranking_is_not_cut_at_80_columns():
    names = ["geometricmedian", "pcgrad[level=task]", "my/long/path/to/strategies.py:Strategy"]
    # The seeds move almost alike, and not quite: that would settle nothing.
    arms = {
        name: wide(name, float(-i), 1.1001 + 1e-4 * i) for i, name in enumerate([*names, "mgda"])
    }
    references = {"alone": wide("alone", -2.0), "per task": wide("per task", 5.0, 1.0999)}
    found = Bench(arms, references, failed={"x": "no [such]"}, left_out={"y": "too [few]"})
    text = printed(lambda console: show_bench(found, 0.1, console))
    # The mean of equal tasks and the worst of them; then the tasks.
    assert text.count("-1.100 ± 2.733") == 2 and text.count("-1.10±2.73") == 5
    # The path's gain over alone is as good as none, the last's is worse.
    assert text.count("-4.10±2.73*†") == 5 and text.count("-3.10±2.73 †") == 10
    assert "3.90±2.73†" not in text and text.count("3.90±2.73") == 5
    assert "x failed: no [such]" in text and "y is left out: too [few]" in text
    assert text.count("pcgrad[level=tas") >= 4  # not taken for markup
    assert text.count("-9.50") == 30 and text.count("-8.25") == 30  # the spread over clients


BROKEN = """
import fedjoint, torch
from fedjoint.server.strategy import circumstances
class Base(fedjoint.JointStrategy):
    def __init__(self, seed: int = -1):
        super().__init__()
        self.seed = seed
    def merge(self, updates):
        return updates.mean()
class Raises(Base):
    def broadcast(self, backbone):
        raise RuntimeError("no luck")
class Diverges(Base):
    def merge(self, updates):
        bad = circumstances(self).config.seed == self.seed
        return updates.mean() * (float("nan") if bad else 1.0)
class Late(Base):
    def merge(self, updates):
        return updates.mean() / (updates.round != 2)
"""


def test_a_broken_strategy_fails_alone(tmp_path):
    file = tmp_path / "broken.py"
    file.write_text(BROKEN)
    entries = [f"{file}:Raises", f"{file}:Diverges[seed=1]", f"{file}:Diverges", f"{file}:Late"]
    found = bench_strategies(two_tasks(tmp_path), [*entries, "fedavg"], 2)
    raises, diverges, sound, late = entries
    assert list(found.arms) == [sound, late, "fedavg"]
    assert list(found.references) == ["alone", "per task"] and found.merged_by == "fedavg"
    assert "no luck" in found.failed[raises]
    assert found.failed[diverges].startswith("before the first round: Diverges: merge")
    kept = {row["strategy"]: row["kept rounds"] for row in found.rows()}
    assert kept == {sound: 0, late: 2, "fedavg": 0, "alone": 0, "per task": 0}
    said = io.StringIO()
    show_run(found.arms[late].seeds[0].runs[0], Console(file=said, width=200))
    assert "in 1 of 3 rounds the backbone was kept; the last time: Late: merge" in said.getvalue()
    said = io.StringIO()
    show_run(found.arms["fedavg"].seeds[0].runs[0], Console(file=said, width=200))
    assert "kept" not in said.getvalue()


def test_a_broken_per_task_arm_is_left_out(tmp_path):
    file = tmp_path / "broken.py"
    file.write_text(BROKEN)
    config = two_tasks(tmp_path, rounds=1)
    found = bench_strategies(config, ["fedavg"], 1, per_task=f"{file}:Raises")
    assert list(found.references) == ["alone"] and "no luck" in found.left_out["per task"]
    with pytest.raises(UserError, match="unknown strategy 'fedavgg'"):
        bench_strategies(config, ["fedavg"], 1, per_task="fedavgg")


def test_options_are_those_of_the_entry(tmp_path):
    everyone = "multikrum[select=7;malicious=0]"
    entries = ["multikrum[select=1]", everyone, "krum", "fedavg"]
    config = two_tasks(tmp_path, strategy={"weight_by": "client"})
    arms = bench_strategies(config, entries, 1).arms
    final = {name: arms[name].seeds[0].runs[0].metrics["test"] for name in entries}
    assert final["multikrum[select=1]"] == final["krum"]
    assert final[everyone] == pytest.approx(final["fedavg"], abs=1e-3)
    assert final["krum"] != final["fedavg"]
    assert [arm.name for arm in arms.values()] == entries
    with pytest.raises(UserError, match=r"option of strategy multikrum 'selected': .* 'select'"):
        bench_strategies(config, ["fedavg", "multikrum[selected=1]"], 1)


def test_the_scenario_s_options_are_the_per_task_arm_s(tmp_path):
    strategy = {"name": "fedadam", "options": {"server_lr": 0.3}}
    config = two_tasks(tmp_path, rounds=1, strategy=strategy)
    found = bench_strategies(config, ["fedavg"], 1)
    run = found.references["per task"].seeds[0].runs[0]
    assert run.config.strategy.options == {"server_lr": 0.3} and found.merged_by == "fedadam"
    other = bench_strategies(config, ["fedadam"], 1, per_task="fedavgm[momentum=0.5]")
    run = other.references["per task"].seeds[0].runs[0]
    assert run.config.strategy.options == {"momentum": 0.5} and other.merged_by == "fedavgm"
    run = other.arms["fedadam"].seeds[0].runs[0]
    assert run.config.strategy.options == {"server_lr": 0.3}
    with pytest.raises(UserError, match="belong to fedadam, which is not among the strategies"):
        bench_strategies(config, ["fedavg"], 1, per_task="fedavg")


@pytest.mark.slow
def test_one_ray_serves_every_run_and_ends(tmp_path, monkeypatch):
    import ray

    import fedjoint.engines.ray as engine

    started = []
    start = engine.start

    def counted(config):
        started.append(config)
        start(config)

    monkeypatch.setattr(engine, "start", counted)
    config = two_tasks(tmp_path, rounds=1, engine={"name": "ray", "workers": 1})
    found = bench_strategies(config, ["fedavg", "median"], 1)
    assert len(started) == 1 and not ray.is_initialized()
    inline = run_arm(JOINT, two_tasks(tmp_path, rounds=1), 1)
    assert found.arms["fedavg"].best("digit") == inline.best("digit")
    with make_engine(config.engine).session(), make_engine(config.engine).session():
        pass
    assert len(started) == 2 and not ray.is_initialized()
