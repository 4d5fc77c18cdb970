"""What is replayed equals, bit for bit, the program that was traced."""

import logging

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call, grad, vmap

from fedjoint.training import replay
from fedjoint.training.replay import replayed
from fedjoint.training.trace import functional

CLIENTS, BATCH = 5, 6

EQUAL = {"rtol": 0.0, "atol": 0.0}

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

    many = vmap(loss, randomness="different")

    def gradients(weights, x, scales):
        own = {n: w.detach().requires_grad_() for n, w in weights.items()}
        with torch.enable_grad():
            values, losses = many(own, x, scales)
            of = torch.autograd.grad(values.sum(), list(own.values()))
        return dict(zip(own, of, strict=True)), losses

    return functional(gradients, vmap(grad(loss, has_aux=True), randomness="different"))


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
    # What changes tensors in place is traced in another form, whose halves round elsewhere.
    close = {"rtol": 0.05, "atol": 0.01} if autocast and name in ("in place", "dropout") else EQUAL
    for (expected, losses), (of, found) in pairs:
        assert list(of) == list(expected)
        torch.testing.assert_close(of, expected, **close)
        torch.testing.assert_close(found, losses, **close)


class Normalised(nn.Module):
    def forward(self, x):
        return F.normalize(x)


class Deviation(nn.Module):
    def forward(self, x):
        return x / x.std(1, keepdim=True)


class Writes(nn.Module):
    """Fills its result part by part."""

    def forward(self, x):
        result = torch.zeros_like(x)
        result[:, 0] = x[:, 1]
        result[:, 1:] = x[:, :-1]
        return result


@pytest.mark.parametrize(
    "layer",
    [Normalised, Deviation, Writes],
    ids=["normalize", "std", "writes"],
)
def test_a_model_whose_gradient_changes_tensors_in_place_is_traced_too(layer, caplog):
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(9, 4), layer())
    plain = program(model)
    with caplog.at_level(logging.INFO, "fedjoint.training"):
        pairs = list(zip(calls(plain, model, 3), calls(replayed(plain), model, 3), strict=True))
    assert "not traced" not in caplog.text
    for (expected, losses), (of, found) in pairs:
        torch.testing.assert_close(of, expected)
        torch.testing.assert_close(found, losses)


def test_only_so_many_traces_are_kept(monkeypatch):
    monkeypatch.setattr(replay, "_MOST", 2)
    runs = []

    def double(x):
        runs.append(x.shape)
        return (x * 2,)

    function = replayed(double)
    for width in (3, 4, 5, 5, 4, 3):
        assert torch.equal(function(torch.ones(2, width))[0], torch.full((2, width), 2.0))
    assert len(runs) == 2 * 4  # of 3, 4, 5, and of 3 once more; each of two and of three clients


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
