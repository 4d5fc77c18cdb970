"""FedBN: normalisation stays with the client, against plain PyTorch."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fedjoint.clients.babu import Babu
from fedjoint.clients.joint import Joint
from fedjoint.model.backbones.cnn import cnn
from fedjoint.model.inputs import Inputs

MODEL = {
    "backbone": {
        "name": "cnn",
        "options": {"hidden": [4, 6], "batch_norm": True},
    }
}


def is_norm(name):
    return name.startswith(("backbone.2.", "backbone.6."))


@pytest.mark.parametrize("norm", ["shared", "local"])
def test_a_client_s_normalisation(norm, make_world):
    """Li et al., 2021, algorithm 1: average all but the batch normalisation."""
    world = make_world("batched", tasks=["digit"], model={**MODEL, "norm": norm})
    everything = world.problem.model(world.config).state_dict()
    numbers = {name for name in everything if everything[name].is_floating_point()}
    backbone = {name for name in numbers if name.startswith("backbone.")}
    norms = {name for name in backbone if is_norm(name)}
    assert len(norms) == 8  # scale, shift, mean and variance of each of the two
    assert set(world.layout.shapes) == (backbone if norm == "shared" else backbone - norms)

    found = world.train(Joint())
    for client in world.clients:
        kept = {}
        for round in world.rounds:
            model = world.model(client, world.received[round], kept)
            for x, y in world.minibatches(client, round):
                loss = F.cross_entropy(model(x)["digit"], y["digit"])
                world.step(loss, model.parameters(), round)
            state = model.state_dict()
            kept = {name: t.clone() for name, t in state.items() if name not in world.layout.shapes}
            world.same(model, found[round].shared[client], found[round].private, client)
            assert found[round].private.keys() == kept.keys()

        cohort = world.trainer.cohort(world.clients[[client]], world.clients[[client]])
        mine = {name: tensor[[client]] for name, tensor in found[round].private.items()}
        metrics, _ = world.trainer.evaluate(cohort, found[round].shared[[client]], mine)
        model.eval()
        data = world.problem.data.client(client).test
        right = (model(data.x)["digit"].argmax(1) == data.y["digit"]).sum()
        assert metrics["test/digit"].tolist() == [[len(data), len(data), right]]
        after = {n: t for n, t in model.state_dict().items() if "running" in n}
        assert after  # and evaluating has left the statistics alone
        for name, tensor in after.items():
            if norm == "local":
                torch.testing.assert_close(mine[name][0], tensor, rtol=1e-4, atol=2e-6)


def test_tuning_to_evaluate_leaves_the_received_statistics_alone(make_world):
    world = make_world("batched", tasks=["digit"], model={**MODEL, "norm": "shared"})
    before = world.evaluated.clone()
    world.train(Babu())
    assert torch.equal(world.evaluated, before)


def without_statistics():
    backbone = cnn(Inputs(shape=(64,), dtype="float32"), [4, 6], batch_norm=True)
    for at, layer in enumerate(backbone):
        if isinstance(layer, nn.BatchNorm2d):
            backbone[at] = nn.BatchNorm2d(layer.num_features, track_running_stats=False)
    return backbone


@pytest.mark.parametrize("norm", ["shared", "local"])
@pytest.mark.parametrize("path", ["batched", "sequential"])
def test_normalisation_without_running_statistics(path, norm, make_world):
    """Clients of different size: no padding enters the statistics of any batch."""
    world = make_world(
        path,
        tasks=["digit"],
        backbone=without_statistics,
        model={"norm": norm},
        evaluate={"batch_size": 25},
    )
    found = world.train(Joint())
    for client in world.clients:
        kept = {}
        for round in world.rounds:
            model = world.model(client, world.received[round], kept)
            for x, y in world.minibatches(client, round):
                world.step(
                    F.cross_entropy(model(x)["digit"], y["digit"]), model.parameters(), round
                )
            state = model.state_dict()
            kept = {name: t.clone() for name, t in state.items() if name not in world.layout.shapes}
            world.same(model, found[round].shared[client], found[round].private, client)

        at = world.clients[[client]]
        mine = {name: tensor[[client]] for name, tensor in found[2].private.items()}
        metrics, _ = world.trainer.evaluate(
            world.trainer.cohort(at, at), found[2].shared[[client]], mine
        )
        model.eval()
        data = world.problem.data.client(client)
        for split in ("train", "test"):
            x, y = getattr(data, split).x, getattr(data, split).y["digit"]
            said = torch.cat([model(part)["digit"].argmax(1) for part in x.split(25)])
            assert metrics[f"{split}/digit"].tolist() == [[len(x), len(x), (said == y).sum()]]
