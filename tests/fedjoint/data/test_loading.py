"""What a federation of one's own gives is looked at where it enters."""

import sys

import numpy as np
import pytest
import torch
from torch import nn

import fedjoint
from fedjoint.data.loading import load_client
from fedjoint.errors import UserError


class Toy:
    """Three clients, of which one gives something else in place of its data."""

    task_names = ("sign",)
    tasks = np.ones((3, 1), bool)

    def __init__(self, change=lambda client: client, sizes=(30, 30, 30), which=1):
        self.change, self.sizes, self.which = change, np.array(sizes), which

    def client(self, index):
        x = torch.randn(50, 3, generator=torch.Generator().manual_seed(index))
        examples = fedjoint.Examples(x, {"sign": (x[:, 0] > 0).long()})
        client = fedjoint.Client(*map(examples.take, torch.arange(50).split([30, 10, 10])))
        return self.change(client) if index == self.which else client


def train(change):
    """Return a change of a client's training examples."""

    def changed(client):
        return fedjoint.Client(change(client.train), client.valid, client.test)

    return changed


def labels(change):
    return train(lambda part: fedjoint.Examples(part.x, {"sign": change(part.y["sign"])}))


def inputs(change):
    return train(lambda part: fedjoint.Examples(change(part.x), part.y))


BAD = [
    (lambda client: None, "its data are of type NoneType: return a fedjoint.Client"),
    (lambda client: (client.train, client.valid, client.test), "its data are of type tuple"),
    (lambda client: {"train": client.train}, "its data are of type dict"),
    (lambda client: sys.exit(3), r"the code of its data calls sys.exit\(3\)"),
    (train(lambda part: None), "train: of type NoneType: give fedjoint.Examples"),
    (train(lambda part: (part.x, part.y)), "train: of type tuple: give fedjoint.Examples"),
    (
        train(lambda part: fedjoint.Examples(part.x, None)),
        "of type .*Examples: give .* a dict y",
    ),
    (
        train(lambda part: fedjoint.Examples(part.x, part.y["sign"])),
        "Examples of x and a dict y",
    ),
    (inputs(torch.Tensor.numpy), "train: its inputs are of type numpy.ndarray: give tensors"),
    (inputs(torch.Tensor.tolist), "train: its inputs are of type list: give tensors"),
    (labels(torch.Tensor.numpy), "its labels of task 'sign' are of type numpy.ndarray"),
    (labels(torch.Tensor.tolist), "its labels of task 'sign' are of type list"),
    (labels(lambda y: y[:-1]), r"its labels of task 'sign' are \(29,\), and its inputs \(30, 3\)"),
    (labels(lambda y: y[0]), r"its labels of task 'sign' are \(\), and its inputs"),
    (
        train(lambda part: part.take(torch.arange(9))),
        "9 training examples, and data.sizes says",
    ),
]


@pytest.mark.parametrize(("change", "says"), BAD)
def test_what_is_no_clients_data_is_said_by_name(change, says):
    data = Toy(change)
    load_client(data, 0)
    with pytest.raises(UserError, match=f"client 1.*{says}") as error:
        load_client(data, 1)
    assert "\n" not in str(error.value)


def run(tmp_path, data, **more):
    task = fedjoint.Task("sign", "multiclass", 2)
    problem = fedjoint.Problem([task], lambda: nn.Linear(3, 4), data, torch.zeros(1, 3), **more)
    tree = {"rounds": 2, "engine": {"name": "inline"}, "output": {"dir": str(tmp_path)}}
    return fedjoint.simulate(tree, problem)


@pytest.mark.parametrize(("change", "says"), BAD)
def test_one_bad_client_fails_and_the_others_train(tmp_path, change, says):
    result = run(tmp_path, Toy(change))
    for record in result.records:
        (failure,) = record.clients.failed
        assert (failure.client, record.clients.trained) == (1, 2)
    assert result.metrics["test"]["sign"] is not None


def test_bad_data_of_everyone_ends_the_run_before_its_first_round(tmp_path):
    data = Toy()
    data.client = lambda index: None
    with pytest.raises(UserError, match="client 0: its data are of type NoneType"):
        run(tmp_path, data)


def test_inputs_that_want_gradients_are_inputs(tmp_path):
    plain = run(tmp_path, Toy())
    wants = run(tmp_path, Toy(inputs(lambda x: x.clone().requires_grad_())))
    for name, tensor in plain.backbone.items():
        assert torch.equal(wants.backbone[name], tensor)


WRONG_MODELS = [
    ({"backbone": nn.Linear(3, 4)}, "the backbone is a Linear: give a function that builds one"),
    ({"backbone": None}, "the backbone is a NoneType"),
    ({"backbone": lambda: None}, "the backbone's factory returns NoneType"),
    ({"head": lambda features: None}, "the head of task 'sign' is NoneType"),
    (
        {"head": lambda features: 1 / 0},
        "task 'sign' cannot be built: ZeroDivisionError",
    ),
    ({"head": lambda: nn.Linear(4, 2)}, "the head of task 'sign' cannot be built: TypeError"),
    ({"head": nn.Linear(4, 5)}, "the head of task 'sign' cannot be built"),
]


@pytest.mark.parametrize(("parts", "says"), WRONG_MODELS)
def test_what_builds_no_model_is_refused(parts, says):
    def build():
        task = fedjoint.Task("sign", "multiclass", 2, head=parts.get("head"))
        backbone = parts.get("backbone", lambda: nn.Linear(3, 4))
        problem = fedjoint.Problem([task], backbone, Toy(), torch.zeros(1, 3))
        problem.model(fedjoint.Config())

    with pytest.raises(UserError, match=says):
        build()
