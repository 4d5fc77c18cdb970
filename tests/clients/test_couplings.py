"""The local methods of FedProto, FedMD and FedDF against plain PyTorch."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from fedjoint.clients.feddf import FedDF
from fedjoint.clients.fedmd import FedMD
from fedjoint.clients.fedproto import FedProto
from fedjoint.errors import UserError
from fedjoint.model.tasks import Task
from fedjoint.randomness import Purpose, generator
from fedjoint.training.trainer import Trainer

CLASSES, FEATURES = 10, 8
PULL = 0.7


def prototypes():
    """Return a prototype for each class but the last three."""
    return {
        "prototypes/digit": torch.randn(
            CLASSES, FEATURES, generator=torch.Generator().manual_seed(3)
        ),
        "seen/digit": (torch.arange(CLASSES) < 7).float(),
    }


def pulled(features, labels, known):
    """Return the mean squared distance of the labelled examples whose class has a prototype."""
    rows = [i for i, y in enumerate(labels.tolist()) if y >= 0 and known["seen/digit"][y]]
    if not rows:
        return features.sum() * 0
    away = [features[i] - known["prototypes/digit"][labels[i]] for i in rows]
    return torch.stack(away).square().mean()


def test_features_are_pulled_to_the_prototypes_of_their_classes(world):
    known = prototypes()
    found = world.train(FedProto(pull=PULL), lambda round: known if round == 2 else {})
    for client in world.clients:
        model = world.model(client, world.received[1])
        for round in world.rounds:
            for x, y in world.minibatches(client, round):
                loss = world.loss(model, x, y)
                if round == 2:
                    loss = loss + PULL * pulled(model.backbone(x), y["digit"], known)
                world.step(loss, model.parameters(), round)
            private = found[round].private
            world.same(model, private["own.backbone"][client], private, client)
            train = world.problem.data.client(client).train
            features = model.backbone(train.x).detach()
            for label in range(CLASSES):
                own = features[train.y["digit"] == label]
                sums = found[round].extras["heard.sums/digit"][client, label]
                torch.testing.assert_close(sums, own.sum(0), rtol=1e-4, atol=1e-5)
                assert found[round].extras["heard.counts/digit"][client, label] == len(own)


def test_merged_backbones_are_pulled_alike(world):
    known = prototypes()
    merged = world.train(FedProto(pull=PULL, merge=True), lambda round: known)
    for client in world.clients:
        model = world.model(client, world.received[1])
        for x, y in world.minibatches(client, 1):
            loss = world.loss(model, x, y) + PULL * pulled(model.backbone(x), y["digit"], known)
            world.step(loss, model.parameters(), 1)
        world.same(model, merged[1].shared[client], merged[1].private, client)


def with_public(world, count=20):
    x = torch.randn(count, *world.problem.example.shape[1:], generator=torch.Generator())
    world.problem = replace(world.problem, public=x)
    world.trainer = Trainer(world.problem, world.config, torch.device("cpu"))
    return x


def test_clients_approach_the_consensus_and_then_revisit_their_own_data(world):
    x, steps = with_public(world), 3
    consensus = torch.randn(len(x), CLASSES, generator=torch.Generator().manual_seed(1))
    found = world.train(
        FedMD(digest_steps=steps),
        lambda round: {"consensus/digit": consensus} if round == 2 else {},
    )
    size = world.config.local.batch_size
    for client in world.clients:
        model = world.model(client, world.received[1])
        for round in world.rounds:
            rng = generator(world.config.seed, Purpose.MINIBATCHES, "public", round)
            for _ in range(steps if round == 2 else 0):
                at = rng.choice(len(x), size, replace=False)
                loss = F.l1_loss(model(x[at])["digit"], consensus[at])
                trained = [p for n, p in model.named_parameters() if "ink" not in n]
                world.step(loss, trained, round)
            for own, y in world.minibatches(client, round):
                world.step(world.loss(model, own, y), model.parameters(), round)
            private, extras = found[round].private, found[round].extras
            world.same(model, private["own.backbone"][client], private, client)
            logits = model(x)["digit"].detach()
            told = extras["heard.logits/digit"][client]
            torch.testing.assert_close(told, logits, rtol=1e-4, atol=1e-5)
            assert "heard.logits/ink" not in extras


@pytest.mark.parametrize("path", ["batched", "sequential"])
def test_whole_models_distil_the_ensemble_and_then_train(make_world, path):
    model = {"backbone": {"options": {"hidden": [8]}}, "heads": "shared"}
    world, steps = make_world(path, model=model), 3
    x = with_public(world)
    ensemble = torch.randn(len(x), CLASSES, generator=torch.Generator().manual_seed(1))
    found = world.train(FedDF(digest_steps=steps), lambda round: {"consensus/digit": ensemble})
    for client in world.clients:
        model = world.model(client, world.received[1])
        rng = generator(world.config.seed, Purpose.MINIBATCHES, "public", 1)
        for _ in range(steps):
            at = rng.choice(len(x), world.config.local.batch_size, replace=False)
            # As the gradient goes, cross-entropy with the ensemble's probabilities is KL.
            loss = F.cross_entropy(model(x[at])["digit"], ensemble[at].softmax(1))
            world.step(loss, [p for n, p in model.named_parameters() if "ink" not in n], 1)
        for own, y in world.minibatches(client, 1):
            world.step(world.loss(model, own, y), model.parameters(), 1)
        assert found[1].private == {}
        world.same(model, found[1].shared[client], {}, client)
        told = found[1].extras["heard.logits/digit"][client]
        torch.testing.assert_close(told, model(x)["digit"].detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["multiclass", "multilabel"])
def test_the_ensemble_is_matched_by_its_divergence(kind):
    drawn = torch.Generator().manual_seed(0)
    logits, ensemble = torch.randn(2, 5, 4, generator=drawn, dtype=torch.float64)
    found = FedDF().apart(Task("a", kind, 4))(logits, ensemble)
    multiclass = kind == "multiclass"
    of = torch.distributions.Categorical if multiclass else torch.distributions.Bernoulli
    divergence = torch.distributions.kl_divergence(of(logits=ensemble), of(logits=logits))
    torch.testing.assert_close(found, divergence.mean())
    assert FedDF().apart(Task("a", kind, 4))(ensemble, ensemble).abs() < 1e-12


def test_other_public_examples_have_another_mark(world):
    marks = []
    for count in (20, 21):
        with_public(world, count)
        marks.append(world.train(FedMD())[1].extras["heard.public"])
    assert len(np.unique(marks[0])) == 1
    assert not torch.equal(*marks)


@pytest.mark.parametrize("method", [FedMD, FedDF])
def test_without_public_examples_it_is_refused(world, method):
    name = method.__name__.lower()
    with pytest.raises(UserError, match=f"{name} needs examples that all clients have"):
        world.train(method())
