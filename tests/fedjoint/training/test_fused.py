"""A fused step is one of torch.optim.SGD, whatever makes the gradients."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call, grad, vmap

from fedjoint.training.fused import descending
from fedjoint.training.trace import functional, trace

CLIENTS, STEPS, RATE = 3, 4, 0.1


class Tied(nn.Module):
    """One weight in two products."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(4, 4))

    def forward(self, x):
        return F.relu(x @ self.weight) @ self.weight.T


class Products(nn.Module):
    """Either weight's gradient is a product with the other."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Parameter(torch.empty(4, 2)), nn.Parameter(torch.empty(2, 4))

    def forward(self, x):
        return x @ (self.a @ self.b) + (self.b.square() / 2).sum(0)


class Scaled(nn.Module):
    """Some parameters enter by themselves: the gradient of one is a copy of the other."""

    def __init__(self):
        super().__init__()
        self.scale, self.shift = nn.Parameter(torch.empty(4)), nn.Parameter(torch.empty(4))
        self.idle = nn.Parameter(torch.empty(3))

    def forward(self, x):
        return x * self.scale + (self.scale * self.shift)


MODELS = {
    "mlp": lambda: nn.Sequential(
        nn.Linear(4, 5), nn.ReLU(inplace=True), nn.Linear(5, 3, bias=False), nn.Tanh(),
        nn.Linear(3, 2), nn.Sigmoid(),
    ),
    "deep inputs": lambda: nn.Sequential(nn.Unflatten(1, (2, 2)), nn.Linear(2, 3), nn.Flatten()),
    "convolution": lambda: nn.Sequential(nn.Unflatten(1, (1, 4)), nn.Conv1d(1, 2, 3), nn.Flatten()),
    "embedding": lambda: nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 4), nn.GELU()),
    "tied": Tied,
    "products": Products,
    "scaled": Scaled,
}  # fmt: skip


def draw(model):
    generator = torch.Generator().manual_seed(1)
    shapes = {n: p.shape for n, p in model.named_parameters()}
    weights = {
        n: torch.randn(CLIENTS, *shape, generator=generator) / 2 for n, shape in shapes.items()
    }
    return weights, torch.randn(STEPS, CLIENTS, 6, 4, generator=generator)


def _inside(loss):
    return vmap(grad(loss, has_aux=True))


def inside(loss):
    """Differentiate each client's loss, inside vmap."""
    return functional(_inside(loss))


def outside(loss):
    """Differentiate the sum of the clients' losses."""

    def gradients(own, x):
        own = {n: p.detach().requires_grad_() for n, p in own.items()}
        with torch.enable_grad():
            values, losses = vmap(loss)(own, x)
            of = torch.autograd.grad(values.sum(), list(own.values()), materialize_grads=True)
        return dict(zip(own, of, strict=True)), losses

    return functional(gradients, _inside(loss))


@pytest.mark.parametrize("differentiated", [inside, outside])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("decay", [0.0, 0.05])
@pytest.mark.parametrize("name", MODELS)
def test_a_step_is_that_of_torch(name, momentum, decay, differentiated):
    model = MODELS[name]()
    weights, batches = draw(model)
    names = list(weights)

    def loss(own, x):
        value = functional_call(model, own, (x,)).square().mean()
        return value, value.detach()

    def program(*inputs):
        *own, x = inputs
        of, losses = differentiated(loss)(dict(zip(names, own, strict=True)), x)
        return [*of.values(), losses]

    stacked = [p.clone() for p in weights.values()]
    traced = trace(program, [*(p.clone() for p in stacked), batches[0].clone()]).graph()
    step = descending(traced, len(names), momentum, decay).compiled()
    buffers = [torch.zeros_like(p) for p in stacked] if momentum else []
    losses = [step(*stacked, x, RATE, *buffers)[0] for x in batches]
    for client in range(CLIENTS):
        own = {n: p[client].clone().requires_grad_() for n, p in weights.items()}
        sgd = torch.optim.SGD(own.values(), RATE, momentum=momentum, weight_decay=decay)
        for number, x in enumerate(batches):
            value, _ = loss(own, x[client])
            sgd.zero_grad()
            value.backward()
            if name == "scaled":  # torch leaves out what has no gradient; a zero decays
                own["idle"].grad = torch.zeros(3)
            sgd.step()
            torch.testing.assert_close(losses[number][client], value.detach(), rtol=1e-4, atol=1e-5)
        for n, p in zip(names, stacked, strict=True):
            torch.testing.assert_close(p[client], own[n].detach(), rtol=1e-4, atol=1e-5)


def test_products_go_into_the_weights():
    model = MODELS["mlp"]()
    weights, batches = draw(model)

    def program(w, b, x):
        out = torch.baddbmm(b[:, None], x, w)
        return [torch.bmm(x.transpose(1, 2), out), out.sum(1), out.square().sum((1, 2))]

    inputs = [weights["0.weight"].transpose(1, 2).contiguous(), weights["0.bias"], batches[0]]
    step = descending(trace(program, inputs).graph(), 2, 0.0, 0.0)
    called = [node.target.__name__ for node in step.graph.nodes if node.op == "call_function"]
    assert "_by_product" in called
    assert "bmm" not in called


@pytest.mark.parametrize(
    "program",
    [lambda w, x: [w.transpose(1, 2), x.sum()], lambda w, x: [w * 2, w.view(-1)]],
    ids=["gradient", "result"],
)
def test_views_of_a_parameter_are_refused(program):
    traced = trace(program, [torch.rand(2, 3, 3), torch.rand(2)]).graph()
    with pytest.raises(NotImplementedError, match="view of a parameter"):
        descending(traced, 1, 0.0, 0.0)


def test_a_transposed_product_goes_into_the_weights_too():
    def program(w, x):
        out = torch.bmm(x, w.transpose(1, 2))
        return [torch.bmm(x.transpose(1, 2), out).transpose(1, 2), out.square().sum((1, 2))]

    _, batches = draw(MODELS["mlp"]())
    weight = torch.randn(CLIENTS, 5, 4, generator=torch.Generator().manual_seed(2))
    gradient, _ = program(weight, batches[0])
    step = descending(trace(program, [weight, batches[0]]).graph(), 1, 0.0, 0.0)
    called = [node.target.__name__ for node in step.graph.nodes if node.op == "call_function"]
    assert "_by_product" in called
    expected = weight - RATE * gradient
    step.compiled()(weight, batches[0], RATE)
    torch.testing.assert_close(weight, expected)
