"""What a client draws is its own, whoever trains beside it: as if it trained alone."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from fedjoint.config.load import check
from fedjoint.errors import UserError
from fedjoint.problem import build_problem
from fedjoint.simulation import simulate
from fedjoint.training.draws import Constants, Drawing, InOrder
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
    drawn = Drawing(CPU, scattered=False).run(SEEDS, lambda: many(x))
    assert torch.equal(drawn, alone(OPERATIONS[name], x))
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_replayed_program_draws_the_same(name):
    x = torch.linspace(-1, 1, 3 * 4 * 6).view(3, 4, 6)
    many = replayed(lambda x: (torch.vmap(OPERATIONS[name], randomness="different")(x),))
    drawing = Drawing(CPU, scattered=False)
    for _ in range(4):
        (drawn,) = drawing.run(SEEDS, lambda: many(x))
        assert torch.equal(drawn, alone(OPERATIONS[name], x))


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_program_that_is_traced_among_draws_uses_up_none(name):
    x = torch.linspace(-1, 1, 2 * 4 * 6).view(2, 4, 6)  # as many as a trace has
    many = torch.vmap(OPERATIONS[name], randomness="different")
    drawing = Drawing(CPU, scattered=False)
    drawing.run(SEEDS[:2], lambda: many(x))  # from here on it knows that clients draw
    traced = replayed(lambda x: (many(x),))
    for _ in range(2):
        (drawn,) = drawing.run(SEEDS[:2], lambda: traced(x))
        assert torch.equal(drawn, alone(OPERATIONS[name], x))


#: Random operations on tensors whose rows are not one after the other in memory.
SCATTERED = {
    "dropout": lambda x: nn.functional.dropout(x.t(), 0.5),
    "noise": lambda x: x.t() + torch.randn_like(x.t()),
    "in place": lambda x: x * torch.zeros_like(x.t()).bernoulli_(0.3).t(),
    "of a product": lambda x: nn.functional.dropout((x @ x.new_ones(6, 5)).t(), 0.5),
}


@pytest.mark.parametrize("name", SCATTERED)
def test_the_order_in_memory_makes_no_difference(name):
    x = torch.linspace(-1, 1, 3 * 4 * 6).view(3, 4, 6)
    many = torch.vmap(SCATTERED[name], randomness="different", in_dims=1)
    drawing = Drawing(CPU, scattered=True)
    drawn = drawing.run(SEEDS, lambda: many(x.transpose(0, 1).contiguous()))
    one_by_one = [
        drawing.run([seed], lambda own=own: SCATTERED[name](own))
        for seed, own in zip(SEEDS, x, strict=True)
    ]
    torch.testing.assert_close(drawn, torch.stack(one_by_one))
    with InOrder() as order:
        SCATTERED[name](x[0])
    assert order.needed
    with InOrder() as order:
        OPERATIONS["two"](x[0])
    assert not order.needed


class Encoder(nn.Module):
    """Reads an image row by row; drops what its attention has transposed."""

    def __init__(self):
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.3, batch_first=True)

    def forward(self, x):
        return self.layer(x.reshape(-1, 8, 8)).mean(1)


def test_a_run_ends_alike_whether_clients_train_together_or_one_by_one(tmp_path):
    ends = []
    for path in ("batched", "sequential"):
        config = check(
            {
                "rounds": 2,
                "data": {"clients": 4, "task_mix": [["digit"]], "examples_per_client": 40},
                "local": {"path": path},
                "engine": {"name": "inline"},
                "output": {"dir": str(tmp_path)},
            }
        )
        result = simulate(config, replace(build_problem(config), backbone=Encoder))
        assert not result.records[-1].fallback or path == "sequential"
        ends.append(result.backbone)
    for name, tensor in ends[0].items():
        torch.testing.assert_close(ends[1][name], tensor, rtol=1e-4, atol=1e-5)


def test_draws_go_on_from_step_to_step():
    x = torch.ones(3, 4, 6)
    many = torch.vmap(OPERATIONS["dropout"], randomness="different")
    twice = Drawing(CPU, scattered=False).run(SEEDS, lambda: many(many(x)))
    assert torch.equal(
        twice, alone(lambda own: OPERATIONS["dropout"](OPERATIONS["dropout"](own)), x)
    )


def test_what_draws_nothing_runs_once():
    calls = []
    for _ in range(3):
        Drawing(CPU, scattered=False).run(SEEDS, lambda: calls.append(None))
    assert len(calls) == 3


@pytest.mark.parametrize(
    "operation",
    [lambda x: torch.rand(7), torch.vmap(lambda x: x[torch.randperm(4)], randomness="different")],
)
def test_numbers_that_are_no_client_s_are_refused(operation):
    with pytest.raises(UserError, match="no client's own"):
        Drawing(CPU, scattered=False).run(SEEDS, lambda: operation(torch.ones(3, 4)))


def test_attention_that_drops_nothing_stays_what_it_is():
    q, k, v = torch.randn(3, 2, 1, 5, 4)
    attention = nn.functional.scaled_dot_product_attention
    with Constants():
        found = attention(q, k, v)
    assert torch.equal(found, attention(q, k, v)) and not torch.equal(found, q)
