"""Methods that personalise, against the papers' loops in plain PyTorch."""

import numpy as np
import pytest
import torch

from fedjoint.clients.apfl import APFL
from fedjoint.clients.babu import Babu
from fedjoint.clients.ditto import Ditto
from fedjoint.clients.independent import Independent
from fedjoint.clients.rep import Rep
from fedjoint.errors import UserError


def heads_of(model):
    return {f"heads.{name}": tensor for name, tensor in model.heads.state_dict().items()}


def fit(world, model, client, round, parameters=None, **how):
    """Take the round's plain steps on ``parameters``, by default all."""
    for x, y in world.minibatches(client, round, **how):
        world.step(world.loss(model, x, y), parameters or model.parameters(), round)


def test_rep_fits_heads_and_then_the_body(world):
    """Collins et al., 2021, algorithm 1: head steps under a frozen body, then body steps."""
    found = world.train(Rep(head_steps=3))
    for client in world.clients:
        heads = {}
        for round in world.rounds:
            model = world.model(client, world.received[round], heads)
            head, body = list(model.heads.parameters()), list(model.backbone.parameters())
            fit(world, model, client, round, head, steps=3, stream=1)
            after_heads = {name: tensor.clone() for name, tensor in heads_of(model).items()}
            fit(world, model, client, round, body)
            heads = heads_of(model)
            assert all(torch.equal(heads[name], tensor) for name, tensor in after_heads.items())
            world.same(model, found[round].shared[client], found[round].private, client)


def test_rep_fits_heads_for_epochs(world):
    found = world.train(Rep(head_epochs=2))
    for client in world.clients:
        model = world.model(client, world.received[1])
        fit(world, model, client, 1, list(model.heads.parameters()), epochs=2, stream=1)
        fit(world, model, client, 1, list(model.backbone.parameters()))
        world.same(model, found[1].shared[client], found[1].private, client)


@pytest.mark.parametrize("options", [{}, {"head_steps": 1, "head_epochs": 1}])
def test_rep_needs_one_budget_for_heads(options):
    with pytest.raises(UserError, match="give either head_steps or head_epochs"):
        Rep(**options)


PARTS = {
    "head": lambda model: model.heads.parameters(),
    "body": lambda model: model.backbone.parameters(),
    "both": lambda model: model.parameters(),
}


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("at", ["evaluation", "end"])
def test_babu_tunes_what_and_when_it_is_asked_to(world, part, at):
    """Oh, Kim and Yun, 2022, table 5: head, body or the full network, for a few epochs."""
    world.trainer.config = world.config.model_copy(update={"rounds": 2})
    found = world.train(Babu(tune=part, tune_epochs=3, tune_at=at))
    for client in world.clients:
        for round in world.rounds:
            tuned = world.model(client, world.evaluated)
            if at == "evaluation" or round == 2:
                fit(world, tuned, client, round, list(PARTS[part](tuned)), epochs=3)
            world.same(tuned, found[round].personal[0][client], found[round].personal[1], client)


def test_babu_trains_the_body_alone_and_tunes_heads_to_evaluate(world):
    """Oh, Kim and Yun, 2022: the head keeps its first values; it is fine-tuned afterwards."""
    found = world.train(Babu())
    for client in world.clients:
        for round in world.rounds:
            model = world.model(client, world.received[round])
            first = {name: tensor.clone() for name, tensor in heads_of(model).items()}
            fit(world, model, client, round, list(model.backbone.parameters()))
            world.same(model, found[round].shared[client], found[round].private, client)
            assert all(
                torch.equal(found[round].private[name][client], tensor)
                for name, tensor in first.items()
            )
            tuned = world.model(client, world.evaluated, first)
            fit(world, tuned, client, round, list(tuned.heads.parameters()))
            shared, private = found[round].personal
            world.same(tuned, shared[client], private, client)


def test_ditto_trains_a_model_of_its_own_near_the_received(world):
    """Li et al., 2021, algorithm 1: v <- v - rate (grad F(v) + lam (v - w_t))."""
    lam = 0.8
    found = world.train(Ditto(lam))
    for client in world.clients:
        heads, own = {}, world.model(client, world.received[1])
        for round in world.rounds:
            server = world.model(client, world.received[round], heads)
            anchor = [p.detach().clone() for p in server.backbone.parameters()]
            for x, y in world.minibatches(client, round):
                pairs = zip(own.backbone.parameters(), anchor, strict=True)
                distance = sum((v - w).square().sum() for v, w in pairs)
                loss = world.loss(own, x, y) + lam / 2 * distance
                world.step(loss, own.parameters(), round)
            fit(world, server, client, round)
            heads = heads_of(server)
            world.same(server, found[round].shared[client], found[round].private, client)
            kept = found[round].private
            world.same(own, kept["own.backbone"][client], kept, client, "own.")
            shared, private = found[round].personal
            world.same(own, shared[client], private, client)


def mixture(model, own, local, alpha):
    """Return ``model`` with the parameters alpha * own + (1 - alpha) * local."""
    for m, v, w in zip(*(x.parameters() for x in (model, own, local)), strict=True):
        m.data = alpha * v.data + (1 - alpha) * w.data
    return model


def test_apfl_trains_a_mixture(world):
    """Deng, Kamani and Mahdavi, 2020, section 4: both steps from the models before them."""
    alpha = 0.3
    found = world.train(APFL(alpha))
    for client in world.clients:
        heads, own = {}, world.model(client, world.received[1])
        for round in world.rounds:
            local = world.model(client, world.received[round], heads)
            for x, y in world.minibatches(client, round):
                mixed = mixture(world.model(client), own, local, alpha)
                loss = world.loss(mixed, x, y)
                # d f(alpha v + (1 - alpha) w) / d v = alpha f'(mixture)
                gradients = torch.autograd.grad(loss, list(mixed.parameters()))
                world.step(world.loss(local, x, y), local.parameters(), round)
                for v, g in zip(own.parameters(), gradients, strict=True):
                    v.data -= 0.2 * 0.5 ** (round - 1) * alpha * g
            heads = heads_of(local)
            world.same(local, found[round].shared[client], found[round].private, client)
            kept = found[round].private
            world.same(own, kept["own.backbone"][client], kept, client, "own.")
            local = world.model(client, world.evaluated, heads)
            mixed = mixture(world.model(client), own, local, alpha)
            shared, private = found[round].personal
            world.same(mixed, shared[client], private, client)


@pytest.mark.parametrize("first", [0.0, 0.3, 1.0])
def test_apfl_learns_how_much_of_its_own(world, first):
    """Equation 10: alpha <- alpha - rate <v - w, grad f(mixture)>, in [0, 1], once a round."""
    found = world.train(APFL(first, adaptive=True))
    kept = []
    for client in world.clients:
        heads, own, alpha = {}, world.model(client, world.received[1]), first
        for round in world.rounds:
            rate = 0.2 * 0.5 ** (round - 1)
            local = world.model(client, world.received[round], heads)
            for batch, (x, y) in enumerate(world.minibatches(client, round)):
                mixed = mixture(world.model(client), own, local, alpha)
                loss = world.loss(mixed, x, y)
                gradients = torch.autograd.grad(loss, list(mixed.parameters()))
                apart = [v - w for v, w in zip(own.parameters(), local.parameters(), strict=True)]
                slope = sum((d * g).sum() for d, g in zip(apart, gradients, strict=True))
                world.step(world.loss(local, x, y), local.parameters(), round)
                for v, g in zip(own.parameters(), gradients, strict=True):
                    v.data -= rate * alpha * g
                if batch == 0:
                    alpha = min(max(alpha - rate * slope.item(), 0.0), 1.0)
            heads = heads_of(local)
            state = found[round].private
            assert float(state["alpha"][client]) == pytest.approx(alpha, rel=1e-4, abs=1e-6)
            world.same(local, found[round].shared[client], state, client)
            world.same(own, state["own.backbone"][client], state, client, "own.")
            local = world.model(client, world.evaluated, heads)
            shared, private = found[round].personal
            world.same(
                mixture(world.model(client), own, local, alpha), shared[client], private, client
            )
        kept.append(alpha)
    assert len(set(kept)) > 1  # everyone has learnt one of its own


def test_independent_clients_never_hear_of_the_others(world):
    found = world.train(Independent())
    assert not Independent.shares
    for client in world.clients:
        model = world.model(client, world.received[1])
        for round in world.rounds:
            fit(world, model, client, round)  # from where it was, whatever was received
            kept = found[round].private
            world.same(model, kept["own.backbone"][client], kept, client)
            shared, private = found[round].personal
            world.same(model, shared[client], private, client)
        assert np.array_equal(found[2].shared, world.received[2].expand(3, -1))
        assert found[2].extras == {}
