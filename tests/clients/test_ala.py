"""FedALA at the clients, against plain PyTorch."""

import pytest
import torch
from support import small

from fedjoint.clients.ala import ALA
from fedjoint.simulation import simulate


@pytest.mark.parametrize("rate", [0.5, 30.0])
def test_a_client_learns_its_merge_and_goes_on_from_it(world, rate):
    method = ALA(mix_epochs=2, mix_rate=rate)
    found = world.train(method)
    clipped = 0
    for client in world.clients:
        model = world.model(client, world.received[1])
        for x, y in world.minibatches(client, 1):
            world.step(world.loss(model, x, y), model.parameters(), 1)
        own, received = world.flat(model), world.received[2]
        mix = torch.ones(len(own))
        for x, y in world.minibatches(client, 2, stream=1, epochs=2):
            state = model.state_dict() | world.layout.views(own + mix * (received - own))
            model.load_state_dict(state)
            loss = world.loss(model, x, y)
            gradient = torch.autograd.grad(loss, list(model.backbone.parameters()))
            named = dict(
                zip([n for n, _ in model.backbone.named_parameters()], gradient, strict=True)
            )
            flat = torch.cat(
                [named[n.removeprefix("backbone.")].flatten() for n in world.layout.shapes]
            )
            mix = (mix - rate * (received - own) * flat).clamp(0, 1)
        clipped += int((mix == 0).sum())
        torch.testing.assert_close(found[2].private["own.mix"][client], mix, rtol=1e-3, atol=1e-4)
        model.load_state_dict(model.state_dict() | world.layout.views(own + mix * (received - own)))
        for x, y in world.minibatches(client, 2):
            world.step(world.loss(model, x, y), model.parameters(), 2)
        torch.testing.assert_close(found[2].shared[client], world.flat(model), rtol=1e-3, atol=1e-4)
        last = found[2].shared[client]
        expected = last + mix * (world.evaluated - last)
        torch.testing.assert_close(found[2].personal[0][client], expected, rtol=1e-3, atol=1e-4)
    assert (rate > 1) == bool(clipped)


def test_where_nothing_is_learnt_of_the_merge_it_is_fedavg(tmp_path):
    options = {"mix_rate": 1e-12}
    ala = simulate(small.config(tmp_path, strategy={"name": "fedala", "options": options}))
    plain = simulate(small.config(tmp_path))
    for name, tensor in plain.backbone.items():
        torch.testing.assert_close(ala.backbone[name], tensor, rtol=1e-4, atol=1e-6)
    assert ala.metrics["test"] == pytest.approx(plain.metrics["test"], abs=1e-5)
