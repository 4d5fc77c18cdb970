"""Backbones that train or are shared in part, against federated averaging in plain PyTorch."""

import copy

import pytest
import torch
from support import adapted
from torch import nn
from torch.nn import functional as F

import fedjoint
from fedjoint.exports.export import export


def layers(*frozen):
    """Return a factory of three layers, of which some are frozen."""

    def make():
        backbone = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 5), nn.Tanh())
        for at in frozen:
            backbone[at].requires_grad_(False)
        return backbone

    return make


def frozen_head(features):
    return nn.Linear(features, 2).requires_grad_(False)


#: what -> backbone, patterns of what is shared, head
CASES = {
    "an adapter": (adapted.Adapted, ["*"], None),
    "an adapter but for its norm": (adapted.Adapted, ["*", "!*.norm.*"], None),
    "frozen below": (layers(0), ["*"], None),
    "frozen above": (layers(2), ["*"], None),
    "a frozen head": (layers(), ["*"], frozen_head),
    "the lower layers": (layers(), ["backbone.0.*"], None),
    "the upper layers": (layers(), ["backbone.2.*"], None),
    "one tensor, all else frozen or private": (layers(0), ["*.weight"], None),
}


def federated_averaging(model, shared, rounds=3, epochs=2, rate=0.1):
    """Return every client's model after the last round, and the shared tensors after it."""
    clients = [copy.deepcopy(model) for _ in adapted.SIZES]
    mean = {name: model.state_dict()[name].clone() for name in shared}
    for _ in range(rounds):
        for index, own in enumerate(clients):
            own.load_state_dict(mean, strict=False)
            data = adapted.Halves().client(index).train
            optimiser = torch.optim.SGD([p for p in own.parameters() if p.requires_grad], rate)
            for _ in range(epochs):  # one minibatch: no order to draw
                optimiser.zero_grad()
                F.cross_entropy(own(data.x)["side"], data.y["side"]).backward()
                optimiser.step()
        states = list(zip([own.state_dict() for own in clients], adapted.SIZES / 60, strict=True))
        mean = {name: sum(state[name] * share for state, share in states) for name in shared}
    for own in clients:
        own.load_state_dict(mean, strict=False)
    return clients, mean


@pytest.mark.parametrize("path", ["batched", "sequential"])
@pytest.mark.parametrize("what", CASES)
def test_it_is_plain_federated_averaging(what, path, tmp_path):
    backbone, share, head = CASES[what]
    problem = adapted.problem(backbone, head)
    settings = adapted.settings(tmp_path, local={"path": path})
    result = fedjoint.simulate(settings | {"model": {"share": share}}, problem)

    model = problem.model(result.config)
    shared = list(model.layout().shapes)
    clients, mean = federated_averaging(model, shared)
    start, kept = model.state_dict(), result.heads()
    assert {n for n in result.backbone if n not in shared} == model.frozen().keys()
    for name, tensor in result.backbone.items():
        torch.testing.assert_close(tensor, mean.get(name, start[name]))
    right = 0
    for client, own in enumerate(clients):
        state, data = own.state_dict(), adapted.Halves().client(client).test
        for name, tensor in kept[client].items():
            torch.testing.assert_close(tensor, state[name], rtol=1e-4, atol=1e-6)
        trained = {n for n, p in own.named_parameters() if p.requires_grad}
        assert kept[client].keys() | set(shared) == trained
        logits = own(data.x)["side"]
        right += (logits.argmax(1) == data.y["side"]).sum().item()
        exported = export(result.path, "side", client=client, problem=problem).model
        torch.testing.assert_close(exported(data.x), logits, rtol=1e-4, atol=1e-5)
    assert result.metrics["test"]["side"] == pytest.approx(right / 60)


EVERY_WAY = [
    {"strategy": {"name": "fedavg", "compression": "topk"}},
    {"strategy": "scaffold"},
    {"strategy": "feddyn"},
    {"strategy": "fedprox"},
    {"strategy": "ditto"},
    {"strategy": {"name": "apfl", "options": {"adaptive": True}}},
    {"strategy": "fedrep"},
    {"strategy": "fedbabu"},
    {"strategy": "ifca"},
    {"strategy": "pcgrad"},
    {"balance": "uncertainty"},
    {"local": {"method": "independent"}},
    {"local": {"optimiser": {"name": "adamw", "lr": 0.01}}},
    {"local": {"precision": "bfloat16"}},
]


@pytest.mark.parametrize("more", EVERY_WAY, ids=str)
def test_batched_is_one_by_one(more, tmp_path):
    def run(path):
        local = more.get("local", {}) | {"path": path}
        settings = adapted.settings(tmp_path, **{**more, "local": local})
        model = {"share": ["*", "!*.norm.*"]}
        return fedjoint.simulate(settings | {"model": model}, adapted.problem())

    batched, alone = run("batched"), run("sequential")
    assert batched.records[-1].fallback is None
    loose = (
        {"rtol": 0.1, "atol": 1e-2} if "precision" in str(more) else {"rtol": 1e-3, "atol": 1e-5}
    )
    start = adapted.problem().model(batched.config).frozen()
    for name, tensor in batched.backbone.items():
        torch.testing.assert_close(tensor, alone.backbone[name], **loose)
        assert name not in start or torch.equal(tensor, start[name])
    private = alone.heads()
    for client, state in batched.heads().items():
        for name, tensor in state.items():
            torch.testing.assert_close(tensor, private[client][name], **loose)
