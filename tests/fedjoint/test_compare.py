"""Comparisons against plain PyTorch, SciPy, and curves written by hand."""

import csv
import io
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from rich.console import Console
from scipy import stats

from fedjoint import bench, compare
from fedjoint.arms import Arm, as_it_is, independent, run_arm
from fedjoint.centralised import centralised, run_centralised
from fedjoint.cli.compare import compare_command
from fedjoint.compare import Comparison
from fedjoint.config.load import check
from fedjoint.config.scenario import scenario_config
from fedjoint.engines.session import session
from fedjoint.errors import UserError
from fedjoint.model.metrics import METRICS
from fedjoint.model.tasks import Task
from fedjoint.problem import build_problem
from fedjoint.report import show_run
from fedjoint.runs.files import write_csv
from fedjoint.simulation import RunResult
from fedjoint.training.order import schedule

ACCURACY = Task("kind", "multiclass", 3)
ERROR = Task("size", "regression", 1, metric=METRICS["rmse"])


def digits(tmp_path, **more):
    tree = {
        "rounds": 3,
        "data": {"clients": 7},
        "model": {"hidden": [16, 8]},
        "local": {
            "epochs": 2,
            "optimiser": {"lr": 0.05, "momentum": 0.5, "weight_decay": 0.01},
            "lr_decay": 0.9,
        },
        "engine": {"name": "inline"},
        "output": {"dir": str(tmp_path)},
    }
    return check({**tree, **more})


def curve(**values):
    """Return the records of a run: split and task -> value at rounds 2, 4, ..."""
    count = max(len(v) for v in values.values())
    records = []
    for round in range(1, 2 * count + 1):
        at: dict[str, dict] = {"train": {}, "valid": {}, "test": {}}
        for name, series in values.items():
            split, task = name.split("_")
            at[split][task] = series[round // 2 - 1]
        records.append(
            {
                "round": round,
                "evaluation": None if round % 2 else at,
                "bytes": {"down": 10**6, "up": 5 * 10**5},
                "seconds": {"round": 0.5},
                "diagnostics": None,
                "kept": None,
            }
        )
    return RunResult(Path(), check({}), records, {})


def arm(name, *runs, tasks=(ACCURACY,)):
    return Arm(name, tasks, list(runs))


def final(name, *values):
    """Return an arm with these test accuracies, one per seed."""
    return arm(name, *(curve(test_kind=[v], train_kind=[v + 0.1]) for v in values))


def comparison(joint, alone, pooled=None):
    return Comparison(
        joint, alone, pooled or replace(joint, name="centralised"), dict.fromkeys(NAMES, 0.1)
    )


NAMES = ("joint", "independent", "centralised")


# Training against plain PyTorch


def train_alone(problem, config, data, client, steps=None):
    """Train on one client's data with torch.optim; return the model."""
    model, local = problem.model(config), config.local
    tasks = [task for task in problem.tasks if task.name in data.train.y]
    for round in range(1, config.rounds + 1):
        optimiser = torch.optim.SGD(
            model.parameters(),
            lr=local.optimiser.lr * local.lr_decay ** (round - 1),
            momentum=local.optimiser.momentum,
            weight_decay=local.optimiser.weight_decay,
        )
        budget = {"epochs": local.epochs} if steps is None else {"steps": steps}
        drawn = schedule(
            config.seed,
            round,
            np.array([client]),
            np.array([len(data.train)]),
            batch_size=local.batch_size,
            **budget,
        )
        for index, mask in zip(drawn.index[:, 0], drawn.mask[:, 0], strict=True):
            at = torch.from_numpy(index[mask])
            features = model.backbone(data.train.x[at])
            loss = torch.zeros(())
            for task in tasks:
                y = data.train.y[task.name][at]
                known = ~y.isnan().any(-1) if y.is_floating_point() else y >= 0
                if known.any():
                    out = model.heads[task.name](features)[known]
                    way = F.mse_loss if y.is_floating_point() else F.cross_entropy
                    loss = loss + way(out, y[known])
            optimiser.zero_grad(set_to_none=False)
            loss.backward()
            optimiser.step()
    return model


def pooled_metrics(problem, models):
    """Return every task's test metric, over the examples of all clients together."""
    found = {}
    for task in problem.tasks:
        outputs, labels = [], []
        for data, model in models:
            if task.name in data.test.y:
                with torch.no_grad():
                    outputs.append(model.heads[task.name](model.backbone(data.test.x)))
                labels.append(data.test.y[task.name])
        out, y = torch.cat(outputs), torch.cat(labels)
        if task.kind == "multiclass":
            found[task.name] = (out.argmax(1) == y)[y >= 0].double().mean().item()
        else:
            known = ~y.isnan().any(-1)
            out, y = out[known].double(), y[known].double()
            found[task.name] = 1 - (((out - y) ** 2).sum() / ((y - y.mean(0)) ** 2).sum()).item()
    return found


def test_independent_is_every_client_trained_alone(tmp_path):
    # Neither another method's options nor a reference, which is of one seed, are its own.
    other = {"method": "prox", "options": {"mu": 1.0}}
    plain = digits(tmp_path, diagnostics={"reference": "nowhere"})
    config = independent(plain.model_copy(update={"local": plain.local.model_copy(update=other)}))
    problem = build_problem(config)
    (result,) = run_arm("independent", config, 1).runs
    heads, models = result.heads(), []
    layout = problem.model(config).layout()
    for client in range(len(problem.data.sizes)):
        data = problem.data.client(client)
        model = train_alone(problem, config, data, client)
        models.append((data, model))
        own = layout.views(heads[client]["own.backbone"])
        for name, tensor in model.state_dict().items():
            if name.startswith("backbone.") or name.split(".")[1] in data.train.y:
                kept = own[name] if name in own else heads[client][name]
                torch.testing.assert_close(kept, tensor, rtol=1e-4, atol=1e-5)
    expected = pooled_metrics(problem, models)
    assert result.metrics["test"] == pytest.approx(expected, abs=1e-4)


def test_centralised_is_one_model_of_everyone_s_data(tmp_path):
    made, problem = centralised(digits(tmp_path, rounds=2), rate=0.02)
    data = problem.data.client(0)
    assert made.local.optimiser.lr == 0.02
    # Two epochs of the clients: as many examples, in batches as large.
    assert made.local.steps == round(2 * len(data.train) / 16)
    (result,) = run_arm("centralised", made, 1, prepare=lambda config: (config, problem)).runs
    model = train_alone(problem, made, data, 0, steps=made.local.steps)
    assert result.metrics["test"] == pytest.approx(
        pooled_metrics(problem, [(data, model)]), abs=1e-3
    )


@pytest.mark.parametrize(
    ("local", "fraction"),
    [({"epochs": 3}, 1.0), ({"epochs": 1}, 0.5), ({"steps": 4}, 1.0), ({"steps": 9}, 0.3)],
)
def test_centralised_sees_as_many_examples_as_the_clients(tmp_path, local, fraction):
    config = digits(
        tmp_path, data={"clients": 30}, local=local, strategy={"fraction": fraction}, rounds=1
    )
    sizes = build_problem(config).data.sizes
    seen = 0
    for client, size in enumerate(sizes):
        drawn = schedule(0, 1, np.array([client]), np.array([size]), batch_size=16, **local)
        seen += int(drawn.mask.sum())
    made, _ = centralised(config, 0.1)
    assert 16 * (made.local.steps or 0) == pytest.approx(fraction * seen, abs=8.5)


def test_centralised_pays_for_nothing_that_only_clients_need(tmp_path):
    config = digits(
        tmp_path,
        rounds=1,
        strategy={"name": "krum", "compression": {"name": "topk"}, "min_clients": 5},
        local={"epochs": 1, "lr_scales": [0.01, 1.0]},
    )
    pooled, rate = run_centralised(config, 1, [0.05])
    plain, _ = run_centralised(digits(tmp_path, rounds=1, local={"epochs": 1}), 1, [0.05])
    assert rate == 0.05
    assert pooled.runs[0].metrics == plain.runs[0].metrics


def test_the_centralised_rate_is_chosen_by_validation_and_not_by_test(tmp_path, monkeypatch):
    asked = []

    def fake(name, config, seeds, *, prepare, on_run):
        made, _ = prepare(config)
        rate = made.local.optimiser.lr
        asked.append((rate, config.seed, seeds))
        valid = {0.1: 0.6, 0.2: 0.9, 0.4: 0.5}[rate]
        return arm(name, *[curve(valid_kind=[valid], test_kind=[1 - valid])] * seeds)

    monkeypatch.setattr("fedjoint.centralised.run_arm", fake)
    found, rate = run_centralised(digits(tmp_path, seed=5), 3, [0.1, 0.2, 0.4])
    assert rate == 0.2 and found.final("kind", "valid") == [0.9] * 3
    assert asked == [(0.1, 5, 1), (0.2, 5, 1), (0.4, 5, 1), (0.2, 6, 2)]


def test_a_rate_that_loses_a_task_is_not_chosen(tmp_path, monkeypatch):
    tasks = (ACCURACY, ERROR)
    runs = {
        0.1: curve(valid_kind=[0.4], valid_size=[0.9]),
        0.2: curve(valid_kind=[0.9], valid_size=[None]),
        0.4: curve(valid_kind=[0.4], valid_size=[0.8]),
    }

    def fake(name, config, seeds, *, prepare, on_run):
        return arm(name, runs[prepare(config)[0].local.optimiser.lr], tasks=tasks)

    monkeypatch.setattr("fedjoint.centralised.run_arm", fake)
    # A smaller root mean squared error is better.
    assert run_centralised(digits(tmp_path), 1, list(runs))[1] == 0.4


@pytest.mark.parametrize("text", ["fast", "0.1,-1", "inf"])
def test_a_wrong_rate_is_one_line_and_leaves_nothing(tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=f"--centralised-lr {text}: give positive numbers"):
        compare_command("digits", centralised_lr=text)
    assert not list(tmp_path.iterdir())


# What is said about the runs


def test_intervals_are_students():
    values = [0.8, 0.9, 0.85, 0.7]
    rows = comparison(final("joint", *values), final("independent", 0.5, 0.5, 0.5, 0.5)).rows()
    row = next(r for r in rows if (r["task"], r["arm"]) == ("kind", "joint"))
    low, high = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
    assert (row["test"] - row["test 95 %"], row["test"] + row["test 95 %"]) == pytest.approx(
        (low, high)
    )
    assert row["train - test"] == pytest.approx(0.1)


def test_rounds_to_target_by_hand():
    alone = arm("independent", curve(test_kind=[0.4, 0.5]), curve(test_kind=[0.5, 0.6]))
    joint = arm("joint", curve(test_kind=[0.5, 0.7]), curve(test_kind=[0.3, 0.5]))
    found = comparison(joint, alone)
    assert found.rounds_to_target(joint, ACCURACY) == pytest.approx([2, math.nan], nan_ok=True)
    assert found.rounds_to_target(alone, ACCURACY) == [4, 4]
    row = next(r for r in found.rows() if (r["task"], r["arm"]) == ("kind", "joint"))
    assert (row["rounds to target"], row["reached"]) == (2, 1)


def test_an_error_should_fall():
    tasks = (ERROR,)
    alone = arm("independent", curve(test_size=[3, 2], train_size=[1, 1]), tasks=tasks)
    joint = arm("joint", curve(test_size=[2.5, 1.5], train_size=[1, 1]), tasks=tasks)
    found = comparison(joint, alone)
    assert found.rounds_to_target(joint, ERROR) == [4]
    assert found.gain(ERROR) == [0.5]
    assert "may help" in found.verdict() and "+0.500" in found.verdict()
    row = found.rows()[0]
    assert row["train - test"] == 0.5  # better on the training data


@pytest.mark.parametrize(
    ("joint", "alone", "begins"),
    [
        ([0.8, 0.81, 0.82], [0.7, 0.71, 0.72], "Joint training helps: +0.100 ± 0.000"),
        ([0.8, 0.7], [0.7, 0.7], "Joint training may help, but the seeds do not"),
        ([0.8], [0.7], "Joint training may help, but one seed does not"),
        ([0.6, 0.61], [0.7, 0.7], "Joint training does not help here: -0.095"),
        ([0.8, 0.81, math.nan], [0.7, 0.7, 0.7], "Joint training may help, but a metric"),
        ([math.nan], [0.7], "Nobody can tell"),
    ],
)
def test_the_verdict_follows_the_interval(joint, alone, begins):
    verdict = comparison(final("joint", *joint), final("independent", *alone)).verdict()
    assert verdict.startswith(begins), verdict
    assert ("worse on kind" in verdict) == (joint[0] < alone[0])


@pytest.mark.parametrize(("degrees", "helps"), [(0, True), (180, False)])
def test_opposed_tasks_do_not_help_and_equal_ones_do(tmp_path, degrees, helps):
    # Little data each: alone, a client cannot even out the noise.
    settings = ["engine.name=inline", "rounds=12", f"output.dir={tmp_path}", "diagnostics.every=0"]
    settings += ["data.examples_per_client=32", "data.synthetic.noise=1.0", "data.task_mix=[]"]
    settings += ["local.optimiser.lr=0.05"]
    config = scenario_config("conflict", [*settings, f"data.synthetic.conflict_degrees={degrees}"])
    found = compare.compare(config, 2, [0.05])
    assert found.verdict().startswith("Joint training " + ("helps" if helps else "does not help"))


def test_bytes_are_backbones_down_and_up(tmp_path):
    config = digits(tmp_path)
    found = compare.compare(config, 1, [0.05])
    size = build_problem(config).model(config).layout().size
    assert found.joint.megabytes == [7 * 4 * size * 3 * 2 / 1e6]
    assert found.independent.megabytes == found.centralised.megabytes == [0]


# Tables


def printed(show, found):
    """Return what ``show`` prints on 80 columns, which has to be all that it prints on many."""
    texts = []
    for width in (80, 500):
        file = io.StringIO()
        show(found, Console(file=file, width=width))
        texts.append(file.getvalue())
    narrow, full = ("".join(sorted(text.replace("─", ""))).strip() for text in texts)
    assert narrow == full
    assert all(len(line) <= 80 for line in texts[0].splitlines())
    return texts[0]


def wide(name, value):
    """Return an arm of the five tasks of digits over three seeds, with wide numbers."""
    tasks = build_problem(check({})).tasks
    runs = []
    for seed in range(3):
        each: dict[str, list[float]] = {}
        for split in ("train", "valid", "test"):
            each |= {f"{split}_{task.name}": [value - 1.1 * seed] for task in tasks}
        runs.append(curve(**each))
    return Arm(name, tuple(tasks), runs)


def test_nothing_is_cut_at_80_columns():
    found = comparison(wide("joint", -1.0), wide("independent", -2.0), wide("centralised", 0.5))
    text = printed(compare.show, found)
    assert text.count("-2.100 ± 2.733") == 6 and text.count("centroid") == 3
    assert "centralised" in text and "0.1" in text


def test_a_ranking_is_not_cut_either():
    names = ["geometricmedian", "pcgrad[level=task]", "my/long/path/to/strategies.py:Strategy"]
    arms = {name: wide(name, float(-i)) for i, name in enumerate([*names, "mgda"])}
    found = bench.Bench(arms, wide("independent", -2.0), {"x": "no [such]"})
    text = printed(bench.show, found)
    # The mean of equal tasks and the worst of them; then the tasks.
    assert text.count("-1.100 ± 2.733") == 2 and text.count("-1.10±2.73") == 5
    # The path and the last are worse than alone or as good: -2 and -3.
    assert text.count("-4.10±2.73*") == 5 and "-3.10±2.73*" not in text
    assert "x failed: no [such]" in text
    assert text.count("pcgrad[level=tas") == 4  # not taken for markup


# Strategies side by side

UP, DOWN = Task("up", "regression", 1), ERROR


def both(name, up, down, **more):
    """Return an arm of two tasks: one metric that should rise, one that should fall, by seed."""
    runs = [curve(test_up=[u], test_size=[d]) for u, d in zip(up, down, strict=True)]
    for run in runs:
        for record in run.records:
            record.update(more)
    return arm(name, *runs, tasks=(UP, DOWN))


def test_a_ranking_in_numbers():
    alone = both("independent", [0.5, 0.8], [2.0, 1.0])
    arms = {
        # +20 % and +50 %, then -50 % and 0 %.
        "a": both("a", [0.6, 0.4], [1.0, 1.0]),
        # +60 % and +25 %, then +12.5 % and +20 %.
        "b": both("b", [0.8, 0.9], [1.5, 0.8]),
    }
    rows = bench.Bench(arms, alone, {}).rows()
    assert [row["strategy"] for row in rows] == ["b", "a", "independent"]
    # By task and seed: up b a i; b i a; size a b i; b then a and i share.
    ranks = {"a": (2 + 3 + 1 + 2.5) / 4, "b": (1 + 1 + 2 + 1) / 4}
    ranks["independent"] = (3 + 2 + 3 + 2.5) / 4
    assert {row["strategy"]: row["mean rank"] for row in rows} == pytest.approx(ranks)
    each = {"a": [35.0, -25.0], "b": [42.5, 16.25], "independent": [0.0, 0.0]}
    for row in rows:
        values = each[row["strategy"]]
        assert row["Delta-m %"] == pytest.approx(np.mean(values))
        half = stats.t.ppf(0.975, 1) * abs(values[0] - values[1]) / 2
        assert row["Delta-m % 95 %"] == pytest.approx(half)
    best = rows[0]
    # Errors count negatively: the mean over tasks and the worst, by seed.
    assert best["test"] == pytest.approx(np.mean([(0.8 - 1.5) / 2, (0.9 - 0.8) / 2]))
    assert best["worst task"] == pytest.approx(np.mean([-1.5, -0.8]))
    assert best["up gain"] == pytest.approx(0.2) and best["size gain"] == pytest.approx(0.35)
    assert best["MB"] == 3.0 and best["seconds a run"] == 1.0 and best["kept rounds"] == 0


def test_a_strategy_that_loses_a_metric_is_last_and_says_so():
    alone = both("independent", [0.5, 0.5, 0.5], [1.0, 1.0, 1.0])
    arms = {
        "lucky": both("lucky", [0.9, 0.9, math.nan], [0.1, 0.1, 0.1]),
        "plain": both("plain", [0.4, 0.4, 0.4], [1.2, 1.2, 1.3]),
    }
    found = bench.Bench(arms, alone, {})
    rows = found.rows()
    assert [row["strategy"] for row in rows] == ["independent", "plain", "lucky"]
    assert rows[2]["mean rank"] < rows[1]["mean rank"]
    assert math.isnan(rows[2]["Delta-m %"]) and rows[1]["Delta-m %"] < 0
    assert rows[2]["test seeds"] == 2 and rows[2]["up seeds"] == 2 and rows[2]["size seeds"] == 3
    text = printed(bench.show, found)
    assert "0.400 ± 0.000 (2 of 3)" in text and "nan (2 of 3)" in text


def test_rounds_without_a_merge_are_counted():
    arms = {"weak": both("weak", [0.5, 0.5], [1.0, 1.0])}
    arms["weak"].runs[1].records[0]["kept"] = "NaN"
    found = bench.Bench(arms, both("independent", [0.5, 0.5], [1.0, 1.0]), {})
    assert {r["strategy"]: r["kept rounds"] for r in found.rows()} == {"weak": 1, "independent": 0}


BROKEN = """
import fedjoint, torch
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
        return updates.mean() * (float("nan") if self.config.seed == self.seed else 1.0)
class Late(Base):
    def merge(self, updates):
        return updates.mean() / (updates.round != 2)
"""


def test_a_broken_strategy_fails_alone(tmp_path):
    file = tmp_path / "broken.py"
    file.write_text(BROKEN)
    entries = [f"{file}:Raises", f"{file}:Diverges[seed=1]", f"{file}:Diverges", f"{file}:Late"]
    found = bench.bench_strategies(digits(tmp_path), [*entries, "fedavg"], 2)
    raises, diverges, sound, late = entries
    assert list(found.arms) == [sound, late, "fedavg"]
    assert "no luck" in found.failed[raises]
    assert found.failed[diverges].startswith("no round has merged; the last one: Diverges: merge")
    kept = {row["strategy"]: row["kept rounds"] for row in found.rows()}
    assert kept == {sound: 0, late: 2, "fedavg": 0, "independent": 0}
    said = io.StringIO()
    show_run(found.arms[late].runs[0], Console(file=said, width=200))
    assert "in 1 of 3 rounds the backbone was kept; the last time: Late: merge" in said.getvalue()
    said = io.StringIO()
    show_run(found.arms["fedavg"].runs[0], Console(file=said, width=200))
    assert "kept" not in said.getvalue()


def test_options_are_those_of_the_entry(tmp_path):
    entries = ["multikrum[select=1]", "multikrum[select=7]", "krum", "fedavg"]
    config = digits(tmp_path, strategy={"weight_by": "client"})
    arms = bench.bench_strategies(config, entries, 1).arms
    final = {name: arms[name].runs[0].metrics["test"] for name in entries}
    assert final["multikrum[select=1]"] == final["krum"]
    assert final["multikrum[select=7]"] == pytest.approx(final["fedavg"], abs=1e-3)
    assert final["krum"] != final["fedavg"]
    assert [arm.name for arm in arms.values()] == entries
    with pytest.raises(UserError, match=r"option of strategy multikrum 'selected': .* 'select'"):
        bench.bench_strategies(config, ["fedavg", "multikrum[selected=1]"], 1)


def test_rows_are_numbers_in_the_file(tmp_path):
    rows = comparison(final("joint", 0.8, 0.9), final("independent", 0.7, 0.7)).rows()
    write_csv(rows, tmp_path / "a.csv")
    with (tmp_path / "a.csv").open() as file:
        read = list(csv.DictReader(file))
    assert float(read[0]["test"]) == pytest.approx(0.85)
    assert [row["task"] for row in read] == ["kind"] * 3 + ["mean"] * 3
    assert float(read[-1]["MB"]) == 3.0


@pytest.mark.slow
def test_one_ray_serves_every_run_and_ends(tmp_path, monkeypatch):
    import ray

    import fedjoint.engines.ray as engine

    started = []
    start = engine._start

    def counted(config):
        started.append(config)
        start(config)

    monkeypatch.setattr(engine, "_start", counted)
    config = digits(tmp_path, rounds=1, engine={"name": "ray", "workers": 1})
    found = bench.bench_strategies(config, ["fedavg", "median"], 1)
    assert len(started) == 1 and not ray.is_initialized()
    inline = run_arm("fedavg", digits(tmp_path, rounds=1), 1, prepare=as_it_is)
    assert found.arms["fedavg"].runs[0].metrics == inline.runs[0].metrics
    with session(config.engine), session(config.engine):
        pass
    assert len(started) == 2 and not ray.is_initialized()
