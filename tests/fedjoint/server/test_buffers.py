"""BatchNorm's statistics travel, and no rule and no diagnostic sees them: mean, or median."""

import numpy as np
import pytest
import torch

from fedjoint.clients.joint import Joint
from fedjoint.config.load import check
from fedjoint.errors import UserError
from fedjoint.model.layout import Layout
from fedjoint.problem import build_problem
from fedjoint.simulation import simulate

CLIENTS = 5


def configure(folder, **strategy):
    return check(
        {
            "rounds": strategy.pop("rounds", 1),
            "data": {"clients": CLIENTS, "partition": "quantity", "alpha": 2.0},
            "model": {
                "backbone": {
                    "name": "cnn",
                    "options": {"hidden": [3], "batch_norm": True},
                }
            },
            "local": {"steps": 2},
            "engine": {"name": "inline"},
            "output": {"dir": str(folder)},
            "strategy": strategy,
        }
    )


def first(config):
    """Return the layout and the first backbone."""
    model = build_problem(config).model(config)
    state = model.state_dict()
    return model.layout(), {name: state[name].clone() for name in model.layout().shapes}


def move(client, layout, factor):
    """Return how a client moves, buffers by ``factor`` times as much."""
    found = torch.randn(layout.size, generator=torch.Generator().manual_seed(client))
    buffers = found[layout.parameters.size :]
    buffers.copy_(factor * buffers.abs())  # a variance is never negative
    return found


@pytest.fixture
def moved(monkeypatch, tmp_path):
    """Run a round in which clients only make known moves."""

    def run(factor, **strategy):
        def train(self, job):
            moves = [move(client, job.layout, factor) for client in job.cohort.clients.tolist()]
            job.shared += torch.stack(moves)
            return {}

        monkeypatch.setattr(Joint, "train", train)
        return simulate(configure(tmp_path, **strategy))

    return run


def test_buffers_come_last(tmp_path):
    layout, _ = first(configure(tmp_path))
    assert layout.buffers == ("backbone.2.running_mean", "backbone.2.running_var")
    assert layout.size == layout.parameters.size + 2 * 3
    assert list(layout.shapes)[:-2] == list(layout.parameters.shapes)
    with pytest.raises(UserError, match="not the last"):
        Layout({"mean": (1,), "w": (2,)}, ("mean",))


@pytest.mark.parametrize(
    "strategy",
    [
        {"name": "fedavg"},
        {"name": "fedadam"},
        {"name": "pcgrad"},
        {"name": "mgda", "options": {"level": "task"}},
        {"name": "krum", "options": {"malicious": 1}},
        {"name": "median"},
        {"name": "normclip", "options": {"norm": 0.5}},
        {"name": "fedavg", "compression": {"name": "topk", "options": {"fraction": 0.1}}},
        {"name": "fedavg", "compression": {"name": "int8"}},
    ],
    ids=str,
)
def test_rules_do_not_see_buffers_and_these_take_the_mean_or_the_median(moved, strategy):
    one, thousand = moved(1, **strategy), moved(1000, **strategy)
    config = one.config
    layout, start = first(config)
    assert not torch.equal(layout.flat(one.backbone), layout.flat(start))
    for name in layout.parameters.shapes:
        assert torch.equal(one.backbone[name], thousand.backbone[name]), name
    assert one.records[0].kept is None
    assert one.records[0].diagnostics == thousand.records[0].diagnostics

    sizes = build_problem(config).data.sizes
    moves = np.stack([move(client, layout, 1).numpy() for client in range(CLIENTS)])
    moves = moves[:, layout.parameters.size :]
    robust = strategy["name"] in ("krum", "median", "normclip")
    mean = np.median(moves, 0) if robust else (sizes / sizes.sum()) @ moves
    for factor, result in ((1, one), (1000, thousand)):
        step = layout.flat(result.backbone) - layout.flat(start)
        found = step[layout.parameters.size :].numpy()
        np.testing.assert_allclose(found, factor * mean, rtol=1e-4, atol=1e-5)


def test_what_is_sent_is_counted(moved):
    up = {}
    for name in ("none", "int8"):
        result = moved(1, name="fedavg", compression={"name": name})
        up[name] = result.records[0].bytes.up // CLIENTS
    layout, _ = first(result.config)
    learnt, buffers = layout.parameters.size, 6
    assert up == {"none": 4 * learnt + 4 * buffers, "int8": learnt + 4 + 4 * buffers}


@pytest.mark.parametrize(
    ("name", "rounds", "options"),
    [
        ("scaffold", 1, {}),  # the controls are zero at first
        ("ifca", 2, {"clusters": 1}),
        ("cfl", 2, {"most": 1}),
        ("ditto", 2, {}),
        ("apfl", 2, {"alpha": 0.0}),
    ],
)
def test_methods_that_send_more_are_fedavg_where_they_should_be(tmp_path, name, rounds, options):
    # SCAFFOLD's mean is over clients, however many examples they have.
    same = {"rounds": rounds, "weight_by": "client"}
    plain = simulate(configure(tmp_path, name="fedavg", **same))
    other = simulate(configure(tmp_path, name=name, options=options, **same))
    assert [record.kept for record in other.records] == [None] * rounds
    assert other.records[-1].clients.trained == CLIENTS
    for tensor, expected in zip(other.backbone.values(), plain.backbone.values(), strict=True):
        torch.testing.assert_close(tensor, expected, rtol=1e-4, atol=1e-6)
    if name != "ditto":  # which is evaluated with models of the clients' own
        assert other.metrics["test"] == pytest.approx(plain.metrics["test"], abs=1e-5)


@pytest.mark.parametrize("name", ["scaffold", "feddyn", "ifca"])
def test_a_run_goes_on_where_parameters_are_broadcast(tmp_path, name):
    result = simulate(configure(tmp_path, name=name, rounds=3))
    assert [record.kept for record in result.records] == [None] * 3
    assert [record.clients.trained for record in result.records] == [CLIENTS] * 3


def test_a_robust_rule_merges_where_there_are_no_buffers(tmp_path):
    settings = configure(tmp_path, name="median").model_dump(mode="json")
    backbone = {"name": "mlp", "options": {"hidden": [3]}}
    result = simulate(settings | {"model": settings["model"] | {"backbone": backbone}})
    assert result.records[0].kept is None and result.records[0].clients.trained == CLIENTS
