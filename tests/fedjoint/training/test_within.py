"""How the tasks of one client agree, against autograd on each task's loss in plain PyTorch."""

import numpy as np
import pytest
import torch
from support.mixed import KEPT, gradients, norm, plain, problem

import fedjoint
from fedjoint.config.load import check
from fedjoint.simulation import simulate
from fedjoint.training.trainer import Trainer


@pytest.mark.parametrize("path", ["batched", "sequential"])
@pytest.mark.parametrize("backbone", [plain, norm])
@pytest.mark.parametrize("most", [1024, 7])
def test_inner_products_are_those_of_autograd(path, backbone, most):
    local, evaluate = {"path": path}, {"batch_size": most}
    trainer = Trainer(
        problem(backbone), check({"local": local, "evaluate": evaluate}), torch.device("cpu")
    )
    received = trainer.layout.flat(trainer.model.state_dict())
    ids = np.array(KEPT)
    for at in trainer.chunks(ids):
        clients = ids[at]
        cohort = trainer.cohort(clients, clients)
        fresh = trainer.fresh(cohort.tasks, fedjoint.LocalMethod(), received)
        private = {n: torch.stack([t] * len(clients)) for n, t in fresh.items()}
        shared = received.expand(len(clients), -1)
        found = trainer.within(trainer.job(cohort, 1, received, {}, shared, private))
        for row, client in enumerate(clients.tolist()):
            u, v = gradients(trainer.model, client, slice(most)).values()
            expected = torch.stack([u, v]) @ torch.stack([u, v]).T
            torch.testing.assert_close(found[row], expected, rtol=1e-4, atol=1e-7)
        assert torch.equal(received, trainer.layout.flat(trainer.model.state_dict()))


@pytest.mark.parametrize("blocks", [1, 3])
def test_the_record_has_their_mean_cosine(blocks, tmp_path):
    tree = {
        "rounds": 2,
        "engine": {"name": "inline", "blocks": blocks},
        "output": {"dir": str(tmp_path)},
        "diagnostics": {"within_every": 2, "every": 0},
        "local": {"optimiser": {"lr": 1e-12}},  # so that nothing moves before the second round
    }
    result = simulate(tree, problem(plain))
    first, second = (record.diagnostics for record in result.records)
    assert first is None
    model, pairs = problem(plain).model(check(tree)), {}
    for client in KEPT:
        of = gradients(model, client)
        u, v = of.values()
        pairs.setdefault(tuple(of), []).append(float(u @ v / u.norm() / v.norm()))
    within = second["within"]
    assert within["ids"] == ["a", "b", "c"] and within["clients"] == 3
    for i, one in enumerate(within["ids"]):
        for j, other in enumerate(within["ids"]):
            values = pairs.get((one, other)) or pairs.get((other, one))
            expected = 1.0 if i == j else np.mean(values) if values else None
            assert within["cosine"][i][j] == pytest.approx(expected, abs=1e-4)
    every = np.concatenate(list(pairs.values()))
    assert within["conflicting"] == pytest.approx((every < 0).mean())


def test_it_changes_nothing(tmp_path):
    tree = {"rounds": 3, "engine": "inline", "output": {"dir": str(tmp_path)}}
    with_it, without = (
        simulate(tree | {"diagnostics": {"within_every": every}}, problem(norm)).backbone
        for every in (1, 0)
    )
    for name, tensor in without.items():
        assert torch.equal(with_it[name], tensor)
