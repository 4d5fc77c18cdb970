"""Outputs of many clients at once are those of each client's model, before and after a trace."""

import pytest
import torch
from torch import nn
from torch.func import functional_call

from fedjoint.model.joint import JointModel
from fedjoint.training import outputs as module
from fedjoint.training import replay
from fedjoint.training.outputs import make_outputs

PASSES = module._SEEN + 3


class Words(nn.Module):
    """Reads a dict."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x):
        return torch.relu(self.layer(x["a"]) * x["b"][:, None])


def model(backbone):
    return JointModel(backbone, {name: nn.Linear(3, 2) for name in ("one", "two")}).eval()


def stacked(own, clients):
    torch.manual_seed(0)
    return {n: torch.randn(clients, *t.shape) for n, t in own.state_dict().items()}


def alone(own, weights, x, client):
    mine = {n: t[client] for n, t in weights.items()}
    each = {n: t[client] for n, t in x.items()} if isinstance(x, dict) else x[client]
    return functional_call(own, mine, (each, ["two"]))["two"]


@pytest.mark.parametrize("clients", [1, 4])
@pytest.mark.parametrize("kind", ["tensor", "dict", "shared", "in place"])
def test_outputs_are_each_clients_own(kind, clients):
    inner = nn.Sequential(nn.Linear(4, 3), nn.ReLU(inplace=kind == "in place"))
    own = model(Words() if kind == "dict" else inner)
    weights = stacked(own, clients)
    function = make_outputs(own, ("two",), batched=True, channels_last=False)
    for number in range(PASSES):
        x = torch.randn(clients, 9, 4)
        if kind == "dict":
            x = {"a": x, "b": torch.rand(clients, 9)}
        elif kind == "shared":
            x = x[:1].expand(clients, -1, -1)
        with torch.no_grad():
            found = function(weights, x)
        assert list(found) == ["two"]
        for client in range(clients):
            expected = alone(own, weights, x, client)
            torch.testing.assert_close(found["two"][client], expected, msg=f"pass {number}")


def test_one_client_is_taken_as_it_is():
    own = model(nn.Linear(4, 3))
    weights, x = stacked(own, 1), torch.randn(1, 5, 4)
    function = make_outputs(own, ("two",), batched=False, channels_last=False)
    found = function({n: t[0] for n, t in weights.items()}, x)
    assert torch.equal(found["two"][0], alone(own, weights, x, 0))


def test_passes_of_longer_and_longer_clients_share_a_trace(monkeypatch):
    made = []
    trace = replay._trace
    monkeypatch.setattr(replay, "_trace", lambda *given: made.append(given) or trace(*given))
    own = model(nn.Linear(4, 3))
    function = make_outputs(own, ("two",), batched=True, channels_last=False)
    for rows in range(20, 20 + PASSES):
        function(stacked(own, 3), torch.randn(3, rows, 4)[:, 5:10])
    assert len(made) == 1
