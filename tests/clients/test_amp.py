"""FedAMP at the clients, against plain PyTorch."""

import torch

from fedjoint.clients.amp import AMP


def test_clients_go_on_from_their_own_models_with_a_pull(make_world):
    """Against plain PyTorch: u_i pulls at w_i, which goes on from where it was."""
    world, lam = make_world("batched"), 0.4
    found = world.train(AMP(lam))
    for client in world.clients:
        model = world.model(client, world.received[1])
        for round in world.rounds:
            target = world.model(client, world.received[round])
            for x, y in world.minibatches(client, round):
                pull = sum(
                    (p - q.detach()).square().sum()
                    for p, q in zip(
                        model.backbone.parameters(), target.backbone.parameters(), strict=True
                    )
                )
                loss = world.loss(model, x, y) + lam / 2 * pull
                world.step(loss, model.parameters(), round)
            torch.testing.assert_close(
                found[round].shared[client], world.flat(model), rtol=1e-4, atol=2e-6
            )
    assert torch.equal(found[2].personal[0], found[2].shared)
