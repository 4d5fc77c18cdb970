"""MaTU at the clients, against plain PyTorch: each task is trained alone from its own backbone."""

import numpy as np
import torch
from torch.nn import functional as F

from fedjoint.clients.matu import MaTU

LOSSES = {
    "digit": lambda model, x, y: F.cross_entropy(model(x)["digit"], y["digit"]),
    "ink": lambda model, x, y: F.mse_loss(model(x)["ink"], y["ink"]),
}


def told(world):
    """What the server sends for the set of two tasks; the origin is elsewhere than the backbone."""
    random = np.random.default_rng(0)
    size = world.layout.size
    masks = random.random((2, size)) < 0.6
    return {
        "origin": world.received[1] + torch.from_numpy(random.normal(0, 0.02, size)).float(),
        "tasks": torch.tensor(4),
        "masks/digit/ink": torch.from_numpy(np.packbits(masks, axis=1, bitorder="little")),
        "factors/digit/ink": torch.tensor([1.2, 0.7]),
    }, masks


def test_each_task_is_trained_alone_and_sent_with_its_modulators(world):
    sent, masks = told(world)
    found = world.train(MaTU(), lambda round: sent)
    origin, factors = sent["origin"], sent["factors/digit/ink"]
    for client in world.clients.tolist():
        heads = {}
        for round in world.rounds:
            vectors = []
            for at, (task, loss) in enumerate(LOSSES.items()):
                part = factors[at] * torch.from_numpy(masks[at]) * (world.received[round] - origin)
                model = world.model(client, origin + part, heads)
                own = [*model.backbone.parameters(), *model.heads[task].parameters()]
                for x, y in world.minibatches(client, round):
                    world.step(loss(model, x, y), own, round)
                vectors.append((world.flat(model) - origin).double().numpy())
                trained = model.state_dict().items()
                heads |= {n: t for n, t in trained if n.startswith(f"heads.{task}.")}
            sign = np.sign(sum(vectors))
            unified = sign * np.max([np.where(v * sign > 0, np.abs(v), 0) for v in vectors], 0)
            np.testing.assert_allclose(
                found[round].shared[client] - origin, unified, rtol=1e-3, atol=1e-5
            )
            extras = {name: rows[client] for name, rows in found[round].extras.items()}
            bits = np.unpackbits(extras["masks"].numpy(), axis=1, bitorder="little")
            for at, v in enumerate(vectors):
                # Where a coordinate all but vanishes, rounding decides its sign.
                clear = np.abs(sum(vectors)) > 1e-5
                agrees = (v * sign > 0)[clear]
                assert (bits[at, : len(v)].astype(bool)[clear] == agrees).mean() > 0.999
                factor = np.abs(v).sum() / np.abs(unified[v * sign > 0]).sum()
                np.testing.assert_allclose(extras["factors"][at], factor, rtol=1e-3)
            assert not extras["masks"][2:].any() and not extras["factors"][2:].any()
            for name, tensor in heads.items():
                torch.testing.assert_close(
                    found[round].private[name][client], tensor, rtol=1e-4, atol=2e-6
                )


def test_each_task_is_evaluated_with_its_own_backbone(world):
    sent, masks = told(world)
    backbones, _ = world.train(MaTU(), lambda round: sent)[2].personal
    vector = world.evaluated - sent["origin"]
    parts = sent["factors/digit/ink"][:, None] * torch.from_numpy(masks) * vector
    expected = (sent["origin"] + parts).expand(3, -1, -1)
    torch.testing.assert_close(backbones, expected)


def test_before_anybody_has_trained_its_tasks_a_client_starts_from_what_it_received(world):
    sent, _ = told(world)
    sent = {name: tensor for name, tensor in sent.items() if "/" not in name}
    backbones, _ = world.train(MaTU(), lambda round: sent)[2].personal
    assert torch.equal(backbones, world.evaluated.expand(3, 2, -1))


def test_a_client_with_one_task_trains_as_ever(make_world):
    world = make_world("batched", tasks=("digit",))
    found = world.train(MaTU(), lambda round: told(world)[0])
    for client in world.clients.tolist():
        model = world.model(client, world.received[1])
        for x, y in world.minibatches(client, 1):
            own = [*model.backbone.parameters(), *model.heads["digit"].parameters()]
            world.step(LOSSES["digit"](model, x, y), own, 1)
        torch.testing.assert_close(found[1].shared[client], world.flat(model), rtol=1e-4, atol=2e-6)
    assert not found[1].extras["masks"].any() and found[2].personal[0].ndim == 2
