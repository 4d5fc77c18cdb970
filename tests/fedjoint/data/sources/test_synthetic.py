import numpy as np
import pytest
import torch

from fedjoint.data.sources import synthetic
from fedjoint.errors import UserError


def build(config, holds, examples=46, seed=0):
    return synthetic.SyntheticFederation(
        config, holds, examples=examples, seed=seed, valid_fraction=0.1, test_fraction=0.2
    )


@pytest.mark.parametrize("degrees", [0, 30, 90, 180])
def test_tasks_are_rotated_by_the_angle(degrees):
    w = synthetic.directions(synthetic.Synthetic(tasks=3, conflict_degrees=degrees), seed=4)
    cosine = w @ w.T
    np.testing.assert_allclose(np.diag(cosine), 1)
    np.testing.assert_allclose(cosine[0, 2], np.cos(np.deg2rad(degrees)), atol=1e-12)
    np.testing.assert_allclose(cosine[0, 1], np.cos(np.deg2rad(degrees / 2)), atol=1e-12)


@pytest.mark.parametrize("degrees", [0, 60, 120, 180])
def test_closed_form_against_least_squares(degrees):
    config = synthetic.Synthetic(inputs=5, conflict_degrees=degrees, noise=0.3)
    federation = build(config, np.eye(2, dtype=bool), examples=40_000)
    clients = [federation.client(i).train for i in (0, 1)]
    x = [c.x.double().numpy() for c in clients]
    y = [c.y[f"task{k}"].double().numpy()[:, 0] for k, c in enumerate(clients)]
    for k in (0, 1):
        alone = np.linalg.lstsq(x[k], y[k])[0]
        assert np.mean((x[k] @ alone - y[k]) ** 2) == pytest.approx(0.3**2, rel=0.05)
    joint = np.linalg.lstsq(np.concatenate(x), np.concatenate(y))[0]
    error = np.mean((np.concatenate(x) @ joint - np.concatenate(y)) ** 2)
    excess = (1 - np.cos(np.deg2rad(degrees))) / 2
    assert error - 0.3**2 == pytest.approx(excess, abs=0.03)


@pytest.mark.parametrize("degrees", [0, 60, 90, 180])
def test_gradients_of_a_linear_backbone_differ_by_the_angle(degrees):
    config = synthetic.Synthetic(inputs=4, conflict_degrees=degrees, noise=0)
    federation = build(config, np.eye(2, dtype=bool), examples=40_000)
    head = synthetic.tasks(config)[0].make_head(6)
    gradients = []
    for k in (0, 1):
        backbone = torch.zeros(4, 6, requires_grad=True)
        data = federation.client(k).train
        loss = ((head(data.x @ backbone) - data.y[f"task{k}"]) ** 2).mean()
        gradients.append(torch.autograd.grad(loss, backbone)[0].flatten())
    cosine = torch.cosine_similarity(*gradients, dim=0)
    assert cosine == pytest.approx(np.cos(np.deg2rad(degrees)), abs=0.03)


def test_fixed_heads_have_nothing_to_learn():
    fixed, learned = (
        synthetic.tasks(synthetic.Synthetic(learned_heads=flag))[0].make_head(3)
        for flag in (False, True)
    )
    assert not list(fixed.parameters()) and list(learned.parameters())
    assert fixed(torch.tensor([[1.0, 5.0, 3.0]])).tolist() == [[-3.0]]
    with pytest.raises(UserError, match="two features or more"):
        synthetic.FixedHead(1)


def test_clients_are_made_alike_whatever_the_population():
    config = synthetic.Synthetic(tasks=3)
    few = build(config, np.ones((2, 3), bool)).client(1)
    many = build(config, np.ones((1_000_000, 3), bool)).client(1)
    other = build(config, np.ones((2, 3), bool), seed=1).client(1)
    assert few.test.x.equal(many.test.x) and few.test.y["task2"].equal(many.test.y["task2"])
    assert not few.test.x.equal(other.test.x)


def test_client_shapes_and_tasks():
    federation = build(synthetic.Synthetic(tasks=3), np.array([[True, False, True]]))
    client = federation.client(0)
    assert list(client.train.y) == ["task0", "task2"]
    assert client.train.x.shape == (46, 16) and client.train.y["task2"].shape == (46, 1)
    assert (len(client.valid), len(client.test)) == (6, 12)
    assert federation.sizes.tolist() == [46]
