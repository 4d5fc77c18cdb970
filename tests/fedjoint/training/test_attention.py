"""Attention in a batched program: one product a layer, whatever the order of positions."""

import pytest
import torch
from torch import nn
from torch.func import functional_call, vmap

from fedjoint.training.attention import batchable
from fedjoint.training.trace import trace

CLIENTS, EXAMPLES, POSITIONS, WIDTH = 2, 3, 5, 8


class Attends(nn.Module):
    def __init__(self, batch_first):
        super().__init__()
        self.attention = nn.MultiheadAttention(WIDTH, 2, batch_first=batch_first)

    def forward(self, x):
        return self.attention(x, x, x)[0]


class Turns(nn.Module):
    """A linear layer of inputs whose positions come first."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        return self.layer(x.transpose(0, 1))


MODELS = {
    "attention": lambda: Attends(True),
    "attention, positions first": lambda: Attends(False),
    "linear": Turns,
}


@pytest.mark.parametrize("name", MODELS)
def test_weights_are_not_copied_for_every_position(name):
    model = MODELS[name]()
    weights = {n: torch.randn(CLIENTS, *p.shape) for n, p in model.named_parameters()}
    x = torch.randn(CLIENTS, EXAMPLES, POSITIONS, WIDTH)

    def program(*inputs):
        *own, x = inputs
        held = dict(zip(weights, own, strict=True))
        with batchable(x.device):
            return [vmap(lambda w, x: functional_call(model, w, (x,)))(held, x)]

    notes = trace(program, [*weights.values(), x])
    sizes = [note.meta["shape"].numel() for note in notes.steps if "shape" in note.meta]
    assert max(sizes) <= max(x.numel() * 3, *(w.numel() for w in weights.values()))
    (found,) = program(*weights.values(), x)
    for client in range(CLIENTS):
        own = {n: w[client] for n, w in weights.items()}
        torch.testing.assert_close(found[client], functional_call(model, own, (x[client],)))
