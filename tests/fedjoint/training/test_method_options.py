"""Options of a local method that is named in the configuration, rather than by the strategy."""

import pytest
import torch

from fedjoint.config.load import check
from fedjoint.errors import UserError
from fedjoint.exports.personal import PersonalModels
from fedjoint.problem import build_problem
from fedjoint.runs.directory import RunDir
from fedjoint.runs.whole import check_whole
from fedjoint.server.strategy import make_strategy
from fedjoint.simulation import simulate


def tree(folder, **tables):
    return {
        "rounds": 2,
        "data": {"clients": 4},
        "model": {"backbone": {"options": {"hidden": [8]}}},
        "engine": {"name": "inline"},
        "output": {"dir": str(folder)},
        **tables,
    }


def test_they_are_what_a_strategy_would_say(tmp_path):
    local = {"method": "prox", "options": {"mu": 0.7}}
    own = simulate(tree(tmp_path, local=local))
    theirs = simulate(tree(tmp_path, strategy={"name": "fedprox", "options": {"mu": 0.7}}))
    none = simulate(tree(tmp_path))
    for name, tensor in theirs.backbone.items():
        assert torch.equal(own.backbone[name], tensor)
    assert any(not torch.equal(own.backbone[n], t) for n, t in none.backbone.items())


@pytest.mark.parametrize("adaptive", [False, True])
def test_they_make_the_clients_models_after_the_run(tmp_path, adaptive):
    options = {"alpha": 0.25, "adaptive": adaptive}
    config = check(tree(tmp_path, local={"method": "apfl", "options": options}))
    result = simulate(config)
    run = RunDir.open(result.path)
    places = {client: client for client in range(4)}
    done = check_whole(run).saved
    models = PersonalModels(run, done, True, run.config(), build_problem(config), run.state, places)
    task = next(task for task in models.problem.data.task_names if models.holders(task))
    client = models.holders(task)[0]
    layout = models.trainers[""].layout
    own = layout.views(result.heads()[client]["own.backbone"])
    found = models.model(client, task).weights
    alpha = result.heads()[client].get("alpha", torch.tensor(0.25))
    assert (alpha == 0.25) != adaptive
    for name, shared in result.backbone.items():
        torch.testing.assert_close(found[name], alpha * own[name] + (1 - alpha) * shared)


def test_a_strategy_with_wrong_options_for_its_method_is_found_at_the_start(tmp_path):
    (tmp_path / "mine.py").write_text(
        "from fedjoint.strategies.fedavg import FedAvg\n\n\n"
        "class Mine(FedAvg):\n    method = 'prox'\n"
    )
    with pytest.raises(UserError, match="local method prox needs the option mu"):
        make_strategy(check(tree(tmp_path, strategy={"name": f"{tmp_path / 'mine.py'}:Mine"})))
