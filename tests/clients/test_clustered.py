"""Cluster-wise backbones at the clients, against plain PyTorch."""

import torch

from fedjoint.clients.clustered import Clustered


def backbones(world, count=4):
    """Return random backbones ``[count, P]``, of which clients like different ones."""
    random = torch.Generator().manual_seed(7)
    noise = torch.randn(count, world.layout.size, generator=random)
    return world.received[1] + 0.3 * noise


def best(world, client, candidates):
    """Return the number of the backbone with the lowest loss on the client's training data."""
    data = world.problem.data.client(client).train
    with torch.no_grad():
        losses = [float(world.loss(world.model(client, b), data.x, data.y)) for b in candidates]
    return losses.index(min(losses))


def descended(world, client, backbone):
    """Return the backbone ``[P]`` after the client's first round from ``backbone``."""
    model = world.model(client, backbone)
    for x, y in world.minibatches(client, 1):
        world.step(world.loss(model, x, y), model.parameters(), 1)
    return world.flat(model)


def test_a_client_joins_the_cluster_of_its_lowest_loss_and_trains_it(world):
    candidates = backbones(world)
    found = world.train(Clustered(), lambda round: {"backbones": candidates})[1]
    chosen = [best(world, client, candidates) for client in world.clients]
    assert len(set(chosen)) > 1, "the clients should like different ones"
    assert found.extras["cluster"].tolist() == chosen
    for client, cluster in zip(world.clients, chosen, strict=True):
        expected = descended(world, client, candidates[cluster])
        torch.testing.assert_close(found.shared[client], expected, rtol=1e-4, atol=2e-6)


def test_an_assignment_decides_and_strangers_choose(world):
    candidates = backbones(world)
    chosen = [best(world, client, candidates) for client in world.clients]
    other = (chosen[0] + 1) % len(candidates)
    sent = {"backbones": candidates, "assignment": torch.tensor([other, -1])}
    found = world.train(Clustered(), lambda round: sent)[1]
    clusters = [other, *chosen[1:]]
    assert found.extras["cluster"].tolist() == clusters
    for client, cluster in zip(world.clients, clusters, strict=True):
        expected = descended(world, client, candidates[cluster])
        torch.testing.assert_close(found.shared[client], expected, rtol=1e-4, atol=2e-6)
    # They are evaluated by the same rule, with the heads that they have by then.
    assert torch.equal(found.personal[0][0], candidates[other])


def test_of_one_cluster_there_is_no_choice(world):
    candidates = backbones(world, 1)
    sent = {"backbones": candidates, "assignment": torch.tensor([0, -1])}
    found = world.train(Clustered(), lambda round: sent)[1]
    assert found.extras["cluster"].tolist() == [0, 0, 0]
