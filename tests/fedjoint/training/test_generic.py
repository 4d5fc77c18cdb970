"""A trace of few clients runs what its program runs, on any number of them."""

import pytest
import torch
from torch import nn
from torch.func import functional_call, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from fedjoint.training.generic import few, trace_for_any
from fedjoint.training.trace import functional

MODELS = {
    "mlp": (lambda: nn.Sequential(nn.Linear(12, 5), nn.Tanh(), nn.Linear(5, 2)), (12,)),
    "cnn": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten()
        ),
        (2, 4, 4),
    ),
    "attention": (lambda: nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True), (3, 8)),
    "group norm": (lambda: nn.Sequential(nn.Conv1d(2, 4, 3), nn.GroupNorm(2, 4)), (2, 6)),
    "two of everything": (lambda: nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), (2, 2)),
}


def program(model):
    names = [name for name, _ in model.named_parameters()]

    def loss(weights, x):
        with sdpa_kernel(SDPBackend.MATH):
            return functional_call(model, weights, (x,)).square().mean()

    many = functional(vmap(loss))

    def run(x, *weights):
        with torch.enable_grad():
            own = [w.detach().requires_grad_() for w in weights]
            total = many(dict(zip(names, own, strict=True)), x).sum()
            return list(torch.autograd.grad(total, own))

    return run


def draw(model, shape, clients):
    torch.manual_seed(clients)
    weights = [torch.randn(clients, *p.shape) for p in model.parameters()]
    return [torch.randn(clients, 2, *shape), *weights]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("traced_with", [1, 6])
def test_it_computes_what_the_program_computes_of_other_clients(name, traced_with):
    make, shape = MODELS[name]
    model = make()
    plain = program(model)
    traced = trace_for_any(plain, draw(model, shape, traced_with)).compiled()
    for clients in (1, 2, 3, 7):
        inputs = draw(model, shape, clients)
        for result, expected in zip(traced(*inputs), plain(*inputs), strict=True):
            torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "course",
    [
        lambda x: [x[: len(x) - 1]],
        lambda x: [x.exp() if len(x) == 2 else x],
        lambda x: [x.exp() if len(x) == 2 else x.sin()],
    ],
    ids=["a slice", "no operation", "another operation"],
)
def test_a_course_that_depends_on_the_number_of_clients_is_refused(course):
    with pytest.raises(NotImplementedError, match="how many clients"):
        trace_for_any(course, [torch.rand(5, 4)])


def test_a_factor_may_be_the_number_of_clients():
    traced = trace_for_any(lambda x: [x * (4 * len(x))], [torch.rand(5, 4)]).compiled()
    assert torch.equal(traced(torch.ones(7, 4))[0], torch.full((7, 4), 28.0))


def test_few_clients_lie_as_all_do():
    matrix = torch.arange(24.0).view(4, 6)
    for stacked in (matrix, matrix[:, 1:4], matrix[:, 1:5].view(4, 2, 2), matrix[:1].expand(4, 6)):
        found = few(stacked, 3)
        assert found.shape == (3, *stacked.shape[1:])
        assert found.stride() == stacked.stride()
        assert all(torch.equal(row, stacked[0]) for row in found)
    with pytest.raises(NotImplementedError, match="one after the other"):
        few(matrix.T, 3)
