"""The rules that Flower has, too, give what Flower's own classes give."""

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import strategy as flower
from flwr.supercore.task_identity import TaskIdentity

from fedjoint.strategies._adaptive import Adaptive
from fedjoint.strategies.bulyan import Bulyan
from fedjoint.strategies.fedadagrad import FedAdagrad
from fedjoint.strategies.fedavg import FedAvg
from fedjoint.strategies.fedavgm import FedAvgM
from fedjoint.strategies.fedyogi import FedYogi
from fedjoint.strategies.krum import Krum
from fedjoint.strategies.median import Median
from fedjoint.strategies.multikrum import MultiKrum
from fedjoint.strategies.trimmedmean import TrimmedMean


@pytest.fixture(autouse=True)
def identity(monkeypatch):
    """Messages can only be made inside a run: say that this is one."""
    for name in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)


def replies(updates, backbone):
    """Return what Flower's clients would send: whole models."""
    for update, examples in zip(updates.matrix, updates.examples, strict=True):
        content = RecordDict(
            {
                "arrays": ArrayRecord({"w": Array((backbone + update).numpy())}),
                "metrics": MetricRecord({"num-examples": int(examples)}),
            }
        )
        yield Message(content=content, dst_node_id=0, message_type="train")


def by_flower(theirs, updates, backbone):
    arrays, _ = theirs.aggregate_train(updates.round, list(replies(updates, backbone)))
    return torch.from_numpy(np.asarray(arrays["w"].numpy(), dtype=np.float32))


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (FedAvg(), flower.FedAvg()),
        (FedAvgM(0.5, 0.8), flower.FedAvgM(server_learning_rate=0.5, server_momentum=0.8)),
        (FedYogi(), flower.FedYogi()),
        (FedAdagrad(), flower.FedAdagrad()),
    ],
    ids=lambda x: type(x).__name__,
)
def test_server_optimisers_over_three_rounds(ours, theirs, draw):
    backbone = torch.zeros(30)
    if isinstance(ours, Adaptive):  # Flower starts v at zero, the paper does not
        theirs.v_t = {"w": np.full(30, ours.tau**2, np.float32)}
    for round in (1, 2, 3):
        updates = draw(5, seed=round, round=round)
        if isinstance(theirs, flower.FedAvgM):
            theirs.current_arrays = ArrayRecord({"w": Array(backbone.numpy())})
        else:
            theirs.current_arrays = {"w": backbone.numpy()}
        expected = by_flower(theirs, updates, backbone)
        backbone = backbone + ours.merge(updates)
        torch.testing.assert_close(backbone, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("rows", [7, 8])
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (Median(), flower.FedMedian()),
        (TrimmedMean(0.2), flower.FedTrimmedAvg(beta=0.2)),
        (Krum(1), flower.Krum(num_malicious_nodes=1)),
        (MultiKrum(2, 3), flower.MultiKrum(num_malicious_nodes=2, num_nodes_to_select=3)),
        (Bulyan(1), flower.Bulyan(num_malicious_nodes=1)),
    ],
    ids=lambda x: type(x).__name__,
)
def test_robust_rules(ours, theirs, rows, draw):
    updates = draw(rows)
    expected = by_flower(theirs, updates, updates.backbone) - updates.backbone
    torch.testing.assert_close(ours.merge(updates), expected, rtol=1e-4, atol=1e-5)
