"""What is replayed equals, bit for bit, the program that was traced."""

import logging

import pytest
import torch
from torch import nn
from torch.func import functional_call, vmap

from fedjoint.training.replay import replayed
from fedjoint.training.trace import functional

CLIENTS, BATCH = 5, 6

MODELS = {
    "mlp": lambda: nn.Sequential(nn.Linear(9, 4), nn.ReLU(), nn.Linear(4, 2)),
    "in place": lambda: nn.Sequential(nn.Linear(9, 4), nn.ReLU(inplace=True), nn.Linear(4, 2)),
    "cnn": lambda: nn.Sequential(
        nn.Unflatten(1, (1, 3, 3)), nn.Conv2d(1, 2, 3, padding=1), nn.MaxPool2d(2), nn.Flatten()
    ),
    "dropout": lambda: nn.Sequential(nn.Linear(9, 4), nn.Dropout(0.5), nn.Linear(4, 2)),
}


def program(model, autocast=False):
    def loss(weights, x, scales):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            out = functional_call(model, weights, (x,))
        value = (out.float().square().sum(1) * scales["all"]).mean()
        return value, value.detach()

    many = functional(vmap(loss, randomness="different"))

    def gradients(weights, x, scales):
        own = {n: w.detach().requires_grad_() for n, w in weights.items()}
        with torch.enable_grad():
            values, losses = many(own, x, scales)
            of = torch.autograd.grad(values.sum(), list(own.values()))
        return dict(zip(own, of, strict=True)), losses

    return gradients


def calls(function, model, count, clients=CLIENTS):
    """Return what ``count`` calls give, with weights that move."""
    torch.manual_seed(0)
    weights = {n: torch.stack([p.detach()] * clients) for n, p in model.named_parameters()}
    found = []
    for _ in range(count):
        x = torch.randn(clients, BATCH, 9)
        of, losses = function(weights, x, {"all": torch.rand(clients, BATCH)})
        weights = {n: p - 0.1 * of[n] for n, p in weights.items()}
        found.append((of, losses))
    return found


@pytest.mark.parametrize("autocast", [False, True], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("name", MODELS)
def test_replay_equals_the_program_bit_for_bit(name, autocast, caplog):
    torch.manual_seed(1)
    model = MODELS[name]()
    plain = program(model, autocast)
    with caplog.at_level(logging.INFO, "fedjoint.training"):
        pairs = zip(calls(plain, model, 3), calls(replayed(plain), model, 3), strict=True)
    assert "not traced" not in caplog.text
    for (expected, losses), (of, found) in pairs:
        assert list(of) == list(expected)
        assert all(torch.equal(of[n], expected[n]) for n in of)
        assert torch.equal(found, losses)


def test_it_is_traced_once_for_any_number_of_clients():
    model = MODELS["mlp"]()
    plain, runs = program(model), []

    def counted(*arguments):
        runs.append(arguments)
        return plain(*arguments)

    function = replayed(counted)
    for clients in (CLIENTS, 1, 2, 9):
        pairs = zip(
            calls(plain, model, 2, clients), calls(function, model, 2, clients), strict=True
        )
        for (expected, _), (of, _) in pairs:
            assert all(torch.equal(of[n], expected[n]) for n in of)
    assert len(runs) == 2  # of two and of three clients


def test_it_is_traced_once_its_shapes_have_come_often_enough():
    model = MODELS["mlp"]()
    plain, runs = program(model), []

    def counted(*arguments):
        runs.append(len(arguments[1]))
        return plain(*arguments)

    function = replayed(counted, after=2)
    calls(function, model, 2)
    assert runs == [CLIENTS] * 2
    expected, found = calls(plain, model, 5), calls(function, model, 5)
    assert len(runs) == 4  # and then of two and of three clients
    for (of, _), (also, _) in zip(expected, found, strict=True):
        assert all(torch.equal(of[n], also[n]) for n in of)


def test_it_runs_as_it_is_where_it_cannot_be_traced(caplog):
    def halves_until_small(x):
        while x.sum() > 1:
            x = x / 2
        return (x,)

    with caplog.at_level(logging.INFO, "fedjoint.training"):
        function = replayed(halves_until_small)
        assert torch.equal(function(torch.full((4,), 2.0))[0], torch.full((4,), 0.25))
        assert torch.equal(function(torch.full((4,), 16.0))[0], torch.full((4,), 0.25))
    assert "not traced" in caplog.text
