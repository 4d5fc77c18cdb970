"""What a client draws is its own, whoever trains beside it: as if it trained alone."""

import pytest
import torch
from torch import nn

from fedjoint.errors import UserError
from fedjoint.training.draws import Constants, Drawing
from fedjoint.training.replay import replayed

CPU = torch.device("cpu")
SEEDS = [11, 22, 33]

#: Random operations of a model, each on ``[rows, 6]`` of one client.
OPERATIONS = {
    "dropout": lambda x: nn.functional.dropout(x, 0.5),
    "alpha dropout": lambda x: nn.functional.alpha_dropout(x, 0.5, training=True),
    "dropout of channels": lambda x: nn.functional.dropout1d(x[:, None], 0.5)[:, 0],
    "noise": lambda x: x + torch.randn_like(x),
    "noise of a size": lambda x: x + torch.randn(6),
    "in place": lambda x: x * torch.zeros_like(x).bernoulli_(0.3),
    "whole numbers": lambda x: x + torch.randint(0, 9, (6,)),
    "two": lambda x: nn.functional.dropout(x, 0.5) + torch.rand_like(x),
}


def alone(operation, x):
    """Return what each client gets that draws from PyTorch seeded by its seed."""
    rows = []
    with torch.random.fork_rng():
        for seed, own in zip(SEEDS[: len(x)], x, strict=True):
            torch.manual_seed(seed)
            rows.append(operation(own))
    return torch.stack(rows)


@pytest.mark.parametrize("name", OPERATIONS)
def test_each_client_draws_as_if_alone(name):
    x = torch.linspace(-1, 1, 3 * 4 * 6).view(3, 4, 6)
    many = torch.vmap(OPERATIONS[name], randomness="different")
    before = torch.random.get_rng_state()
    drawn = Drawing(CPU).run(SEEDS, lambda: many(x))
    assert torch.equal(drawn, alone(OPERATIONS[name], x))
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_replayed_program_draws_the_same(name):
    x = torch.linspace(-1, 1, 3 * 4 * 6).view(3, 4, 6)
    many = replayed(lambda x: (torch.vmap(OPERATIONS[name], randomness="different")(x),))
    drawing = Drawing(CPU)
    for _ in range(4):
        (drawn,) = drawing.run(SEEDS, lambda: many(x))
        assert torch.equal(drawn, alone(OPERATIONS[name], x))


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_program_that_is_traced_among_draws_uses_up_none(name):
    x = torch.linspace(-1, 1, 2 * 4 * 6).view(2, 4, 6)  # as many as a trace has
    many = torch.vmap(OPERATIONS[name], randomness="different")
    drawing = Drawing(CPU)
    drawing.run(SEEDS[:2], lambda: many(x))  # from here on it knows that clients draw
    traced = replayed(lambda x: (many(x),))
    for _ in range(2):
        (drawn,) = drawing.run(SEEDS[:2], lambda: traced(x))
        assert torch.equal(drawn, alone(OPERATIONS[name], x))


def test_draws_go_on_from_step_to_step():
    x = torch.ones(3, 4, 6)
    many = torch.vmap(OPERATIONS["dropout"], randomness="different")
    twice = Drawing(CPU).run(SEEDS, lambda: many(many(x)))
    assert torch.equal(
        twice, alone(lambda own: OPERATIONS["dropout"](OPERATIONS["dropout"](own)), x)
    )


def test_what_draws_nothing_runs_once():
    calls = []
    for _ in range(3):
        Drawing(CPU).run(SEEDS, lambda: calls.append(None))
    assert len(calls) == 3


@pytest.mark.parametrize(
    "operation",
    [lambda x: torch.rand(7), torch.vmap(lambda x: x[torch.randperm(4)], randomness="different")],
)
def test_numbers_that_are_no_client_s_are_refused(operation):
    with pytest.raises(UserError, match="no client's own"):
        Drawing(CPU).run(SEEDS, lambda: operation(torch.ones(3, 4)))


def test_attention_that_drops_nothing_stays_what_it_is():
    q, k, v = torch.randn(3, 2, 1, 5, 4)
    attention = nn.functional.scaled_dot_product_attention
    with Constants():
        found = attention(q, k, v)
    assert torch.equal(found, attention(q, k, v)) and not torch.equal(found, q)
