"""Methods that train the shared backbone, against the papers' loops in plain PyTorch."""

import pytest
import torch

from fedjoint.clients.feddyn import FedDyn
from fedjoint.clients.joint import Joint
from fedjoint.clients.prox import Prox
from fedjoint.clients.scaffold import Scaffold


def test_joint_is_plain_gradient_descent(world):
    found = world.train(Joint())
    for client in world.clients:
        heads = {}
        for round in world.rounds:
            model = world.model(client, world.received[round], heads)
            for x, y in world.minibatches(client, round):
                world.step(world.loss(model, x, y), model.parameters(), round)
            heads = {f"heads.{name}": t for name, t in model.heads.state_dict().items()}
            world.same(model, found[round].shared[client], found[round].private, client)
            assert found[round].steps[client] == len(list(world.minibatches(client, round)))
            shared, private = found[round].personal
            world.same(world.model(client, world.evaluated, heads), shared[client], private, client)
        assert found[round].extras == {}


def test_prox_adds_a_quadratic_pull_to_the_loss(world):
    """Li et al., 2020, equation 2: h(w) = F(w) + mu / 2 * |w - w_t|^2."""
    mu = 0.7
    found = world.train(Prox(mu))
    for client in world.clients:
        heads = {}
        for round in world.rounds:
            model = world.model(client, world.received[round], heads)
            anchor = world.model(client, world.received[round]).backbone
            for x, y in world.minibatches(client, round):
                pairs = zip(model.backbone.parameters(), anchor.parameters(), strict=True)
                distance = sum((w - start).square().sum() for w, start in pairs)
                loss = world.loss(model, x, y) + mu / 2 * distance
                world.step(loss, model.parameters(), round)
            heads = {f"heads.{name}": t for name, t in model.heads.state_dict().items()}
            world.same(model, found[round].shared[client], found[round].private, client)


def test_scaffold_corrects_by_control_variates(world):
    """Karimireddy et al., 2020, algorithm 1 with option II."""
    random = torch.Generator().manual_seed(1)
    control = {r: 0.3 * torch.randn(world.layout.size, generator=random) for r in world.rounds}
    found = world.train(Scaffold(), lambda round: {"control": control[round]})
    for client in world.clients:
        heads, own = {}, torch.zeros(world.layout.size)
        for round in world.rounds:
            c, x_server = control[round], world.received[round]
            rate = 0.2 * 0.5 ** (round - 1)
            model = world.model(client, x_server, heads)
            steps = 0
            for x, y in world.minibatches(client, round):
                loss = world.loss(model, x, y)
                parameters = [*model.backbone.parameters(), *model.heads.parameters()]
                gradients = list(torch.autograd.grad(loss, parameters))
                shift = list(world.layout.views(c - own).values())  # y <- y - rate (g - c_i + c)
                for i, s in enumerate(shift):
                    gradients[i] = gradients[i] + s
                for p, g in zip(parameters, gradients, strict=True):
                    p.data -= rate * g
                steps += 1
            heads = {f"heads.{name}": t for name, t in model.heads.state_dict().items()}
            world.same(model, found[round].shared[client], found[round].private, client)
            new = own - c + (x_server - world.flat(model)) / (steps * rate)
            kept, sent = found[round].private["control"], found[round].extras["control"]
            torch.testing.assert_close(kept[client], new, rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(sent[client], new - own, rtol=1e-4, atol=1e-4)
            own = new


@pytest.mark.parametrize("path", ["batched", "sequential"])
def test_scaffold_s_control_under_momentum_is_a_mean_of_gradients(make_world, path):
    """Algorithm 1 again: c_i of option II is what the gradients on the way were, on average."""
    rate, m, twice = 0.05, 0.9, [1.0, 2.0]
    local = {
        "epochs": 2,
        "batch_size": 12,
        "optimiser": {"lr": rate, "momentum": m},
        "lr_scales": twice,
        "path": path,
    }
    world = make_world(path, local=local)
    random = torch.Generator().manual_seed(1)
    c = 0.3 * torch.randn(world.layout.size, generator=random)
    found = world.train(Scaffold(), lambda round: {"control": c})
    for client in world.clients:
        model = world.model(client, world.received[1])
        parameters = [*model.backbone.parameters(), *model.heads.parameters()]
        optimiser = torch.optim.SGD(parameters, lr=rate * twice[client % 2], momentum=m)
        gradients = []
        for x, y in world.minibatches(client, 1):
            optimiser.zero_grad()
            world.loss(model, x, y).backward()
            gradients.append(torch.cat([p.grad.flatten() for p in model.backbone.parameters()]))
            for p, s in zip(parameters, world.layout.views(c).values(), strict=False):
                p.grad += s  # c_i is zero as yet
            optimiser.step()
        # The k-th gradient is in the buffer of its step, and of all after it, ever less.
        steps = len(gradients)
        shares = torch.tensor([sum(m**j for j in range(steps - k)) for k in range(steps)])
        mean = (shares / shares.sum()) @ torch.stack(gradients)
        torch.testing.assert_close(found[1].shared[client], world.flat(model), rtol=1e-3, atol=1e-5)
        torch.testing.assert_close(found[1].private["control"][client], mean, rtol=1e-3, atol=1e-4)


def test_feddyn_regularises_dynamically(world):
    """Acar et al., 2021, algorithm 1."""
    alpha = 0.6
    found = world.train(FedDyn(alpha))
    for client in world.clients:
        heads, gradient = {}, torch.zeros(world.layout.size)
        for round in world.rounds:
            server = world.received[round]
            model = world.model(client, server, heads)
            for x, y in world.minibatches(client, round):
                theta = torch.cat([p.reshape(-1) for p in model.backbone.parameters()])
                loss = world.loss(model, x, y)
                loss = loss - gradient @ theta + alpha / 2 * (theta - server).square().sum()
                world.step(loss, model.parameters(), round)
            heads = {f"heads.{name}": t for name, t in model.heads.state_dict().items()}
            world.same(model, found[round].shared[client], found[round].private, client)
            gradient = gradient - alpha * (world.flat(model) - server)
            kept = found[round].private["dual"][client]
            torch.testing.assert_close(kept, gradient, rtol=1e-4, atol=1e-5)
        assert found[round].extras == {}
