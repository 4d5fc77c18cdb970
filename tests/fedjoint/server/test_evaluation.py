"""How the clients' own metrics spread, against each client's own evaluation."""

import numpy as np
import pytest
import torch

from fedjoint import Task, simulate
from fedjoint.config.load import check
from fedjoint.problem import build_problem
from fedjoint.runs.record import Steps
from fedjoint.server.evaluation import spread

ERROR = Task("size", "regression", 1, metric="rmse")


def test_spread_of_known_numbers():
    up = np.array([0.9, 0.1, np.nan, *np.linspace(0.2, 0.8, 9), 0.3])
    down = np.full(13, np.nan)
    down[4] = 2.5
    found = spread(np.stack([up, down], 1), [Task("digit", "multiclass", 10), ERROR])
    # Twelve clients: the worst tenth is the worst two.
    known = [0.9, 0.1, *np.linspace(0.2, 0.8, 9), 0.3]
    assert found["digit"] == {
        "clients": 12,
        "std": pytest.approx(np.std(known)),
        "worst": 0.1,
        "worst_tenth": pytest.approx(0.15),
    }
    assert found["size"] == {"clients": 1, "std": 0.0, "worst": 2.5, "worst_tenth": 2.5}
    large = np.array([[1.0], [3.0]])
    assert spread(large, [ERROR])["size"]["worst"] == 3.0  # less is better
    assert spread(np.full((3, 1), np.nan), [ERROR]) == {}


SETTINGS = {
    "rounds": 2,
    "data": {"clients": 6, "task_mix": [["digit"], ["digit", "ink"]]},
    "model": {"backbone": {"options": {"hidden": [8]}}},
    "engine": {"name": "inline"},
}


@pytest.mark.parametrize("path", ["batched", "sequential"])
def test_a_record_tells_the_spread_of_the_clients(tmp_path, path):
    tree = SETTINGS | {"output": {"dir": str(tmp_path)}, "local": {"path": path}}
    config = check(tree)
    result = simulate(config)
    problem = build_problem(config)
    heads, model = result.heads(), problem.model(config)
    own = {"digit": [], "ink": []}
    for client in range(6):
        model.load_state_dict(result.backbone | heads[client], strict=False)
        model.eval()
        test = problem.data.client(client).test
        for task in problem.tasks:
            if task.name in test.y:
                with torch.no_grad():
                    said = model(test.x)[task.name]
                sums = task.metric_fn.statistics(said, test.y[task.name]).sum(0)
                own[task.name].append(task.metric_fn.value(sums))
    found = result.records[-1].spread
    assert {name: values["clients"] for name, values in found.items()} == {"digit": 6, "ink": 3}
    for name, values in own.items():
        assert found[name]["std"] == pytest.approx(np.std(values), abs=1e-6)
        assert found[name]["worst"] == pytest.approx(min(values), abs=1e-6)


@pytest.mark.parametrize(
    ("strategy", "times", "more"),
    [("fedavg", 1, 0), ("ditto", 2, 0), ("apfl", 2, 0), ("fedrep", 1, 10), ("fedbabu", 1, 0)],
)
def test_a_record_tells_all_the_gradients_that_a_method_takes(tmp_path, strategy, times, more):
    tree = {"output": {"dir": str(tmp_path)}, "local": {"steps": 4}, "strategy": {"name": strategy}}
    each = 4 * times + more
    for record in simulate(check(SETTINGS | tree)).records:
        assert record.steps == Steps(mean=each, total=6 * each)


def test_a_task_may_have_several_metrics_of_which_the_first_decides(tmp_path):
    metrics = {"digit": ["accuracy", "macro_f1", {"name": "auroc", "options": {"bins": 64}}]}
    several = simulate(check({**SETTINGS, "metrics": metrics, "output": {"dir": str(tmp_path)}}))
    one = simulate(check({**SETTINGS, "output": {"dir": str(tmp_path)}}))
    for found, single in zip(several.records, one.records, strict=True):
        for split, values in single.evaluation.items():
            rest = {n: v for n, v in found.evaluation[split].items() if "/" not in n}
            assert rest == values
            extra = found.evaluation[split].keys() - values.keys()
            assert extra == {"digit/macro F1", "digit/AUROC"}
        assert found.spread.keys() == single.spread.keys() | extra
        assert found.spread["digit"] == single.spread["digit"]
    text = (several.path / "metrics.csv").read_text().splitlines()[0]
    assert "evaluation/test/digit/AUROC" in text
