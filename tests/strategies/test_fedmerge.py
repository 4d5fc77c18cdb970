"""FedMerge against autograd through the mixture, and what it becomes with one model."""

from dataclasses import replace

import pytest
import torch

from fedjoint.config.scenario import scenario_config
from fedjoint.server.strategy import checked_merge
from fedjoint.simulation import simulate
from fedjoint.strategies.fedmerge import FedMerge


def merged(strategy, updates, backbones, received):
    """Merge; return the backbones of after it."""
    updates = replace(updates, backbones=backbones, received=torch.tensor(received))
    of, steps = checked_merge(strategy, updates)
    return backbones[of] + steps


def slopes(updates, models, logits):
    """Differentiate the clients' losses by the models and the logits of their mixtures.

    Each is ``-<u_i, b_i>``, to first order: its gradient at what the client received is ``-u_i``.
    """
    models, logits = (t.double().requires_grad_() for t in (models, logits))
    mixture = logits.softmax(1) @ models
    loss = -(updates.weights.double() * (updates.matrix.double() * mixture).sum(1)).sum()
    return torch.autograd.grad(loss, (models, logits))


def begun(draw, **options):
    """A strategy after its first round with clients 0, 3, 6 and 9, and the backbones since."""
    strategy, first = FedMerge(models=3, spread=0.5, **options), draw(4)
    return strategy, merged(strategy, first, first.backbone[None], [0] * 4)


def test_the_first_models_lie_around_the_backbone(draw):
    backbone = torch.randn(4000, generator=torch.Generator().manual_seed(3))
    models = FedMerge(models=3, spread=0.2).first_models(backbone)
    torch.testing.assert_close(models.mean(0), backbone, rtol=1e-4, atol=1e-5)
    # Of three numbers around their mean, two are free.
    expected = 0.2 * backbone.square().mean().sqrt() * (2 / 3) ** 0.5
    apart = (models - backbone).square().mean(1).sqrt()
    torch.testing.assert_close(apart, expected.expand(3), rtol=0.05, atol=0)


def test_models_and_shares_follow_the_chain_rule(draw):
    strategy, backbones = begun(draw, mix_rate=0.3, server_lr=0.7)
    models, logits = (strategy.state[name].clone() for name in ("models", "logits"))
    second = draw(4, seed=5, round=2)
    after = merged(strategy, second, backbones, [1, 2, 3, 4])
    by_models, by_logits = slopes(second, models, logits[1:])
    # The mean over those who have a model, by how much: what the paper's rate stands for.
    mass = (second.weights[:, None] * logits[1:].softmax(1)).sum(0).double()
    expected = models.double() - 0.7 * by_models / mass[:, None]
    torch.testing.assert_close(strategy.state["models"].double(), expected, rtol=1e-4, atol=1e-5)
    expected = logits[1:].double() - 0.3 * by_logits / by_logits.abs().max()
    torch.testing.assert_close(
        strategy.state["logits"][1:].double(), expected, rtol=1e-3, atol=1e-5
    )
    assert not strategy.state["logits"][0].any()
    mixtures = strategy.state["logits"].softmax(1) @ strategy.state["models"]
    torch.testing.assert_close(after, mixtures, rtol=1e-4, atol=1e-5)


def test_of_the_first_round_too(draw):
    strategy, first = FedMerge(models=3, spread=0.5, mix_rate=0.3), draw(4)
    models = strategy.first_models(first.backbone)
    merged(strategy, first, first.backbone[None], [0] * 4)
    by_models, by_logits = slopes(first, models, torch.zeros(4, 3))
    torch.testing.assert_close(
        strategy.state["models"].double(), models - 3 * by_models, rtol=1e-4, atol=1e-5
    )
    expected = -0.3 * by_logits / by_logits.abs().max()
    torch.testing.assert_close(
        strategy.state["logits"][1:].double(), expected, rtol=1e-3, atol=1e-5
    )


def test_the_absent_keep_their_shares_and_the_new_begin_with_all(draw):
    strategy, backbones = begun(draw)
    before = strategy.state["logits"].clone()
    second = replace(draw(3, seed=5, round=2), clients=torch.tensor([3, 9, 40]))
    after = merged(strategy, second, backbones, [2, 4, 0])
    logits = strategy.state["logits"]
    assert torch.equal(logits[[0, 1, 3]], before[[0, 1, 3]]) and len(logits) == len(after) == 6
    assert strategy.receives(3, torch.tensor([9, 40, 41]), torch.ones(3, 1)).tolist() == [4, 5, 0]
    # The models of the absent have moved, and so have their mixtures.
    torch.testing.assert_close(after[1], logits[1].softmax(0) @ strategy.state["models"])
    torch.testing.assert_close(after[0], strategy.state["models"].mean(0), rtol=1e-4, atol=1e-5)


def test_one_model_is_federated_averaging(draw):
    strategy, first = FedMerge(models=1), draw(5)
    after = merged(strategy, first, first.backbone[None], [0] * 5)
    torch.testing.assert_close(after, (first.backbone + first.mean()).expand(6, -1))


def test_updates_of_nothing_move_nothing(draw):
    strategy, backbones = begun(draw)
    still = replace(draw(4, round=2), matrix=torch.zeros(4, 30))
    torch.testing.assert_close(merged(strategy, still, backbones, [1, 2, 3, 4]), backbones)


def test_shares_that_have_all_but_vanished_stay_finite(draw):
    strategy, backbones = begun(draw)
    strategy.state["logits"][1:] = torch.tensor([500.0, 0.0, 0.0])
    after = merged(strategy, draw(4, seed=5, round=2), backbones, [1, 2, 3, 4])
    assert after.isfinite().all()


@pytest.mark.parametrize("models", [2, 5])
def test_opposed_tasks_find_models_of_their_own(tmp_path, models):
    settings = ["rounds=30", "engine.name=inline", "diagnostics.every=0", f"output.dir={tmp_path}"]
    settings += ["data.source.options.conflict_degrees=120", "strategy.name=fedmerge"]
    settings += [f"strategy.options.models={models}"]
    result = simulate(scenario_config("conflict", settings))
    # One backbone gets 0.25 at best; see the README.
    assert min(result.metrics["test"].values()) > 0.8
    shares = result.records[-1].strategy["models per client"]
    assert 1 <= shares < models
