"""One operation for all clients, against PyTorch's own on each client's rows."""

import pytest
import torch
import torch.nn.functional as F
from torch.func import grad, vmap

from fedjoint.model.likelihood import negative_log

torch.manual_seed(0)
LOGS = torch.randn(3, 5, 4).log_softmax(-1)
Y = torch.randint(-1, 4, (3, 5))
FACTORS = torch.randn(3, 5)


def weighed(logs, y, factors, loss=negative_log):
    return (factors * loss(logs, y)).sum()


def pytorchs(logs, y):
    return F.nll_loss(logs, y, ignore_index=-1, reduction="none")


@pytest.mark.parametrize("client", range(3))
def test_of_one_client(client):
    own = LOGS[client].clone().requires_grad_()
    theirs = LOGS[client].clone().requires_grad_()
    weighed(own, Y[client], FACTORS[client]).backward()
    weighed(theirs, Y[client], FACTORS[client], pytorchs).backward()
    assert torch.equal(negative_log(own, Y[client]), pytorchs(theirs, Y[client]))
    assert torch.equal(own.grad, theirs.grad)


def test_of_all_clients_whichever_way_they_are_differentiated():
    expected = torch.stack([pytorchs(logs, y) for logs, y in zip(LOGS, Y, strict=True)])
    assert torch.equal(vmap(negative_log)(LOGS, Y), expected)
    assert torch.equal(vmap(negative_log, (1, 1), 1)(LOGS.transpose(0, 1), Y.mT).mT, expected)

    of_each = torch.stack(
        [
            grad(weighed)(logs, y, factors, pytorchs)
            for logs, y, factors in zip(LOGS, Y, FACTORS, strict=True)
        ]
    )
    inside = vmap(grad(weighed))(LOGS, Y, FACTORS)
    own = LOGS.clone().requires_grad_()
    vmap(weighed)(own, Y, FACTORS).sum().backward()
    assert torch.equal(inside, of_each)
    assert torch.equal(own.grad, of_each)


def test_one_label_or_one_model_for_all():
    found = vmap(negative_log, (0, None))(LOGS, Y[0])
    assert torch.equal(found, torch.stack([pytorchs(logs, Y[0]) for logs in LOGS]))


@pytest.mark.parametrize("missing", [-1, -2, -100])
def test_whatever_is_below_zero_is_missing(missing):
    logs, y = LOGS[0].clone().requires_grad_(), torch.tensor([0, missing, 3, missing, 1])
    found = negative_log(logs, y)
    found.sum().backward()
    assert (found != 0).tolist() == (y >= 0).tolist()
    assert (logs.grad != 0).any(1).tolist() == (y >= 0).tolist()
    assert torch.equal(vmap(negative_log)(LOGS, y.expand(3, 5))[0], found)
