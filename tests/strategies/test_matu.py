"""MaTU at the server, in plain loops over what clients with one and with two tasks send."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fedjoint.config.load import check
from fedjoint.config.scenario import scenario_config
from fedjoint.errors import UserError
from fedjoint.server.strategy import checked_merge, circumstances, make_strategy
from fedjoint.simulation import simulate
from fedjoint.strategies.matu import MaTU

SIZE, NAMES = 30, ("c", "a", "b")  # the order of names is not that of tasks
TASKS = torch.tensor([[1, 0, 0], [1, 1, 0], [0, 1, 0], [1, 1, 0]], dtype=torch.bool)


def make(**options):
    found = make_strategy(check({"strategy": {"name": "matu", "options": options}}))
    circumstances(found).rising = dict.fromkeys(NAMES, True)
    return found


def unify(vectors):
    """Task vectors as one, by coordinate: the vector, and what becomes of each."""
    vectors = np.array(vectors)
    sign = np.sign(vectors.sum(0))
    vector = sign * np.where(vectors * sign > 0, np.abs(vectors), 0).max(0)
    masked = np.where(vectors * sign > 0, vector, 0)
    factors = np.abs(vectors).sum(1) / np.abs(masked).sum(1)
    return vector, masked, factors


def sent(draw, received, origin, seed, tasks=TASKS, clients=(0, 3, 6, 9)):
    """Updates, and the vectors of each task that the server has to make of them."""
    updates = draw(len(tasks), common=0.5, seed=seed)
    random = np.random.default_rng(seed)
    masks = torch.zeros(len(tasks), 3, 4, dtype=torch.uint8)
    factors, vectors = torch.zeros(len(tasks), 3), {}
    weights = updates.weights.double().numpy()
    for row, has in enumerate(tasks.tolist()):
        whole = (received[row] + updates.matrix[row] - origin).double().numpy()
        own = sorted(name for name, own in zip(NAMES, has, strict=True) if own)
        for slot, name in enumerate(own):
            part = whole
            if len(own) > 1:
                mask, factor = random.random(SIZE) < 0.7, 0.5 + random.random()
                bits = np.packbits(mask, bitorder="little")
                masks[row, slot], factors[row, slot] = torch.from_numpy(bits), factor
                part = factor * mask * whole
            vectors.setdefault(name, []).append((weights[row], part))
    updates = replace(
        updates,
        tasks=tasks,
        task_names=NAMES,
        clients=torch.tensor(clients),
        extras={"masks": masks, "factors": factors},
    )
    return updates, vectors


def aggregated(vectors, threshold, agreement):
    """The docstring's steps 2 and 3."""
    means = {}
    for name, own in vectors.items():
        total = sum(weight for weight, _ in own)
        mean = sum(weight * part for weight, part in own) / total
        agreed = np.abs(np.mean([np.sign(part) for _, part in own], 0))
        means[name] = np.where(agreed >= agreement, 1, agreed) * mean
    mixed = {}
    for name, own in means.items():
        alike = {o: np.mean(np.sign(own) * np.sign(v)) for o, v in means.items()}
        shares = {o: s if s > threshold else 0 for o, s in alike.items()} | {name: 1}
        mixed[name] = sum(shares[o] * v for o, v in means.items()) / sum(shares.values())
    return mixed


def merged(strategy, updates, backbones, received):
    updates = replace(updates, backbones=backbones, received=torch.tensor(received))
    of, steps = checked_merge(strategy, updates)
    return backbones[of] + steps


@pytest.mark.parametrize(("threshold", "agreement"), [(0.0, 0.4), (0.3, 0.0), (1.0, 1.0)])
def test_two_rounds_by_hand(draw, threshold, agreement):
    strategy = make(threshold=threshold, agreement=agreement)
    origin = draw(4).backbone
    updates, vectors = sent(draw, origin.expand(4, -1), origin, seed=1)
    after = merged(strategy, updates, origin[None], [0] * 4)
    expected = aggregated(vectors, threshold, agreement)
    places = strategy.receives(2, updates.clients, TASKS).tolist()
    assert places == [3, 2, 1, 2]
    check_backbones(strategy, after, origin, expected)
    # The next round builds on what was sent, from the origin.
    updates, vectors = sent(draw, after[places], origin, seed=2)
    after = merged(strategy, updates, after, places)
    check_backbones(strategy, after, origin, aggregated(vectors, threshold, agreement))


def check_backbones(strategy, after, origin, vectors):
    """Of a, of a and c, and of c; and what is told of the set of two."""
    both, masked, factors = unify([vectors["a"], vectors["c"]])
    expected = [np.zeros(SIZE), vectors["a"], both, vectors["c"]]
    np.testing.assert_allclose(after - origin, expected, rtol=1e-3, atol=1e-5)
    told = strategy.broadcast(after.mean(0))
    assert torch.equal(told["origin"], origin) and int(told["tasks"]) == 3
    assert {name for name in told if "/" in name} == {"masks/a/c", "factors/a/c"}
    bits = np.packbits(masked != 0, axis=1, bitorder="little")
    assert (told["masks/a/c"].numpy() == bits).all()
    np.testing.assert_allclose(told["factors/a/c"], factors, rtol=1e-3)


def test_who_is_absent_keeps_what_it_had_and_new_sets_begin_at_the_origin(draw):
    strategy, origin = make(), draw(4).backbone
    updates, _ = sent(draw, origin.expand(4, -1), origin, seed=1)
    first = merged(strategy, updates, origin[None], [0] * 4)
    tasks = torch.tensor([[0, 0, 1], [1, 0, 1]], dtype=torch.bool)
    assert strategy.receives(2, torch.tensor([8, 9]), tasks).tolist() == [0, 0]
    updates, vectors = sent(draw, origin.expand(2, -1), origin, 2, tasks, (8, 9))
    after = merged(strategy, updates, first, [0, 0])
    assert torch.equal(after[0], origin) and torch.equal(after[1], first[1])  # the origin, and a
    assert strategy.receives(3, torch.tensor([8, 9]), tasks).tolist() == [4, 5]
    found = aggregated(vectors, 0.0, 0.4)
    np.testing.assert_allclose(after[3] - origin, found["c"], rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(after[4] - origin, found["b"], rtol=1e-3, atol=1e-5)


def test_one_task_of_everyone_is_federated_averaging(draw):
    strategy, updates = MaTU(agreement=0.0), draw(5)
    updates = replace(updates, tasks=torch.tensor([[True, False, False]] * 5), extras={})
    after = merged(strategy, updates, updates.backbone[None], [0] * 5)
    torch.testing.assert_close(after[1], updates.backbone + updates.mean(), rtol=1e-4, atol=1e-5)


def test_opposed_tasks_of_different_clients_are_apart(tmp_path):
    settings = ["rounds=30", "engine.name=inline", "diagnostics.every=0", f"output.dir={tmp_path}"]
    settings += ["data.source.options.conflict_degrees=120", "strategy.name=matu"]
    result = simulate(scenario_config("conflict", settings))
    assert min(result.metrics["test"].values()) > 0.8


def test_tasks_of_one_client_are_trained_one_after_the_other(tmp_path):
    settings = ["rounds=2", "engine.name=inline", f"output.dir={tmp_path}", "local.steps=3"]
    settings += ['data.task_mix=[["task0","task1"]]', "strategy.name=matu"]
    record = simulate(scenario_config("conflict", settings)).records[-1]
    assert record.steps.mean == 2 * 3
    assert record.loss.keys() == {"task0", "task1"} and min(record.loss.values()) > 0


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"balance": {"name": "uncertainty"}}, "balance = 'uncertainty': matu trains the tasks"),
        ({"strategy": {"name": "matu", "clip": 1.0}}, "strategy.clip would scale the factors"),
        ({"model": {"heads": "shared"}}, "model.heads = 'shared': matu mixes what all tasks have"),
    ],
)
def test_what_it_is_not_made_for_is_refused(settings, line):
    with pytest.raises(UserError, match=line):
        make_strategy(check({"strategy": {"name": "matu"}, **settings}))
