"""FedHCA2 against the paper's formulas in loops, SciPy's minimum, and autograd for its weights."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from fedjoint.config.scenario import scenario_config
from fedjoint.model.layout import Layout
from fedjoint.server.strategy import checked_merge
from fedjoint.simulation import simulate
from fedjoint.strategies.fedhca2 import FedHCA2

ENCODER = slice(0, 20)
#: Where each tensor of a task's decoder is; what has one name and shape attends to one another.
DECODERS = {
    "a": {"body.weight": slice(20, 24), "body.bias": slice(24, 26), "out.weight": slice(26, 28)},
    "b": {"body.weight": slice(28, 32), "body.bias": slice(32, 34), "out.weight": slice(34, 37)},
}
SHAPES = {"backbone.w": (20,)}
SHAPES |= {f"heads.a.{n}": s for n, s in (("body.weight", (2, 2)), ("body.bias", (2,)))}
SHAPES |= {"heads.a.out.weight": (1, 2)}
SHAPES |= {f"heads.b.{n}": s for n, s in (("body.weight", (2, 2)), ("body.bias", (2,)))}
SHAPES |= {"heads.b.out.weight": (1, 3)}
LAYOUT = Layout(SHAPES)
TASKS = torch.tensor([[1, 0], [1, 0], [0, 1], [1, 1]], dtype=torch.bool)


def drawn(draw, seed, tasks=TASKS, clients=(0, 3, 6, 9)):
    """Updates of clients, who send nothing new of the decoders of other tasks."""
    updates = draw(len(tasks), size=37, common=0.5, seed=seed)
    matrix = updates.matrix.clone()
    for row, has in enumerate(tasks.tolist()):
        for task, own in zip("ab", has, strict=True):
            for at in DECODERS[task].values():
                matrix[row, at] *= own
    return replace(
        updates,
        matrix=matrix,
        tasks=tasks,
        task_names=("a", "b"),
        layout=LAYOUT,
        clients=torch.tensor(clients),
    )


def conflict_averse(encoders, radius):
    """The paper's step, from the dual of CAGrad as SciPy minimises it."""
    mean, count = encoders.mean(0), len(encoders)
    size = np.linalg.norm(mean)

    def dual(x):
        g = x @ encoders
        return g @ mean + radius * size * np.sqrt(g @ g + 1e-16)

    whole = {"type": "eq", "fun": lambda x: x.sum() - 1}
    start, bounds = np.full(count, 1 / count), [(0, 1)] * count
    found = minimize(dual, start, bounds=bounds, constraints=whole, options={"ftol": 1e-14})
    g = found.x @ encoders
    return (mean + radius * size / np.linalg.norm(g) * g) / (1 + radius**2)


def attention(updates):
    """``[rows, P]``, of every decoder over those of all clients and tasks."""
    matrix = updates.matrix.double().numpy()
    found = np.zeros_like(matrix)
    for tensor in ("body.weight", "body.bias", "out.weight"):
        pairs = [
            (row, DECODERS[task][tensor])
            for row, has in enumerate(updates.tasks.tolist())
            for task, own in zip("ab", has, strict=True)
            if own
        ]
        for row, at in pairs:
            d = matrix[row, at]
            others = [matrix[o, p] for o, p in pairs if len(matrix[o, p]) == len(d)]
            scores = np.array([np.exp(d @ other / len(d) ** 0.5) for other in others])
            found[row, at] = scores / scores.sum() @ np.stack(others)
    return found


def by_hand(updates, weights, radius):
    """``[rows, P]``: by how much clients move, and what of it their weights are multiplied with.

    Args:
        updates: of the clients.
        weights: row -> what multiplies: name of a layer -> number.
        radius: of the conflict-averse step.
    """
    matrix = updates.matrix.double().numpy()
    along = attention(updates)
    along[:, ENCODER] = conflict_averse(matrix[:, ENCODER], radius)
    moved = matrix.copy()
    sets = [tuple(row) for row in updates.tasks.tolist()]
    for row, has in enumerate(sets):
        same = [other for other, o in enumerate(sets) if o == has]
        moved[row, ENCODER] = matrix[same, ENCODER].mean(0)
        for layer, places in LAYERS.items():
            for at in places:
                moved[row, at] += weights[row][layer] * along[row, at]
    return moved, along


LAYERS = {"encoder": [ENCODER]} | {
    f"{task}.{layer}": [at for name, at in own.items() if name.startswith(layer)]
    for task, own in DECODERS.items()
    for layer in ("body", "out")
}


def merged(strategy, updates, backbones, received):
    updates = replace(updates, backbones=backbones, received=torch.tensor(received))
    of, steps = checked_merge(strategy, updates)
    return backbones[of] + steps


@pytest.mark.parametrize("radius", [0.0, 0.4, 0.8])
def test_the_first_round_is_the_paper_s(draw, radius):
    strategy, updates = FedHCA2(radius=radius, start=0.3), drawn(draw, 1)
    after = merged(strategy, updates, updates.backbone[None], [0] * 4)
    moved, _ = by_hand(updates, [dict.fromkeys(LAYERS, 0.3)] * 4, radius)
    expected = updates.backbone.double() + torch.from_numpy(moved)
    torch.testing.assert_close(after[1:].double(), expected, rtol=1e-3, atol=2e-4)
    # Newcomers get the mean, of a decoder over those with its task.
    weights = updates.weights.double()
    for has, places in (
        (TASKS.any(1), [ENCODER]),
        (TASKS[:, 0], DECODERS["a"].values()),
        (TASKS[:, 1], DECODERS["b"].values()),
    ):
        own = weights * has
        for at in places:
            mean = own @ after[1:, at].double() / own.sum()
            torch.testing.assert_close(after[0, at].double(), mean, rtol=1e-4, atol=1e-5)


def test_weights_follow_the_chain_rule_of_the_next_updates(draw):
    strategy, first = FedHCA2(start=0.3, rate=0.1), drawn(draw, 1)
    backbones = merged(strategy, first, first.backbone[None], [0] * 4)
    _, along = by_hand(first, [dict.fromkeys(LAYERS, 0.3)] * 4, 0.4)
    second = drawn(draw, 2)
    after = merged(strategy, second, backbones, [1, 2, 3, 4])
    weights = []
    for row in range(4):
        # What the client was led to is a function of its weights; its loss is -<next u, that>.
        own = torch.full((len(LAYERS),), 0.3, dtype=torch.float64, requires_grad=True)
        led, u = torch.from_numpy(along[row]), second.matrix[row].double()
        loss = -sum(
            own[n] * (led[at] * u[at]).sum()
            for n, places in enumerate(LAYERS.values())
            for at in places
        )
        (slope,) = torch.autograd.grad(loss, own)
        found = {}
        for n, (layer, places) in enumerate(LAYERS.items()):
            lengths = [sum(float(v[at] @ v[at]) for at in places) ** 0.5 for v in (led, u)]
            share = float(slope[n]) / np.prod(lengths) if all(lengths) else 0.0
            found[layer] = 0.3 - 0.1 * share
        weights.append(found)
        stored = dict(zip(LAYERS, strategy.state["weights"][row + 1].tolist(), strict=True))
        assert stored == pytest.approx(found, abs=1e-3)
    moved, _ = by_hand(second, weights, 0.4)
    expected = backbones[1:].double() + torch.from_numpy(moved)
    torch.testing.assert_close(after[1:].double(), expected, rtol=1e-3, atol=3e-4)


def test_weights_stay_between_none_and_all(draw):
    strategy, first = FedHCA2(start=0.5, rate=1e9), drawn(draw, 1)
    backbones = merged(strategy, first, first.backbone[None], [0] * 4)
    merged(strategy, drawn(draw, 2), backbones, [1, 2, 3, 4])
    weights = strategy.state["weights"]
    assert {0.0, 1.0} < set(weights.flatten().tolist()) <= {0.0, 0.5, 1.0}


def test_the_absent_keep_what_they_had_and_the_new_come_later(draw):
    strategy, first = FedHCA2(rate=0.3), drawn(draw, 1)
    backbones = merged(strategy, first, first.backbone[None], [0] * 4)
    before = {name: tensor.clone() for name, tensor in strategy.state.items()}
    second = drawn(draw, 2, TASKS[:3], (3, 9, 40))
    after = merged(strategy, second, backbones, [2, 4, 0])
    assert strategy.receives(3, torch.tensor([0, 3, 9, 40, 7]), TASKS[[0] * 5]).tolist() == [
        *(1, 2, 4, 5, 0)
    ]
    assert torch.equal(after[[1, 3]], backbones[[1, 3]]) and len(after) == 6
    for name in ("weights", "along"):
        assert torch.equal(strategy.state[name][[1, 3]], before[name][[1, 3]])
    assert (strategy.state["weights"][5] == 0.1).all()  # led nowhere yet


def test_clients_that_send_nothing_stay(draw):
    strategy, still = FedHCA2(), replace(drawn(draw, 1), matrix=torch.zeros(4, 37))
    backbones = merged(strategy, still, still.backbone[None], [0] * 4)
    assert torch.equal(backbones, still.backbone.expand(5, -1))
    assert torch.equal(merged(strategy, still, backbones, [1, 2, 3, 4]), backbones)
    assert (strategy.state["weights"] == 0.1).all()


@pytest.mark.parametrize("heads", ["private", "shared"])
def test_opposed_tasks_are_apart(tmp_path, heads):
    settings = ["rounds=30", "engine.name=inline", "diagnostics.every=0", f"output.dir={tmp_path}"]
    settings += ["data.source.options.conflict_degrees=120", "strategy.name=fedhca2"]
    result = simulate(scenario_config("conflict", [*settings, f"model.heads={heads}"]))
    # One backbone gets 0.25 at best; see the README.
    assert min(result.metrics["test"].values()) > 0.8
