"""What a backbone may hold: it trains as in plain PyTorch, or is refused by name."""

import numpy as np
import pytest
import torch
from torch import nn

import fedjoint
from fedjoint import Client, Examples, Problem, Task, UserError
from fedjoint.config.load import check


class Toy:
    """Four clients with one task, of which everything is in training."""

    task_names = ("a",)
    sizes, tasks = np.full(4, 32), np.ones((4, 1), bool)

    def client(self, index):
        x = torch.randn(32, 8, generator=torch.Generator().manual_seed(index))
        examples = Examples(x, {"a": (x[:, 0] > 0).long()})
        return Client(examples, examples, examples)


def problem(backbone, example=None, **task):
    example = torch.zeros(1, 8) if example is None else example
    return Problem([Task("a", "multiclass", 2, **task)], backbone, Toy(), example)


def simulate(tmp_path, backbone, path="auto"):
    config = {
        "rounds": 3,
        "local": {"steps": 4, "batch_size": 32, "path": path},
        "engine": {"name": "inline"},
        "output": {"dir": str(tmp_path)},
    }
    return fedjoint.simulate(config, problem(backbone))


class Scale(nn.Module):
    """A parameter without dimensions."""

    def __init__(self):
        super().__init__()
        self.layer, self.scale = nn.Linear(8, 16), nn.Parameter(torch.tensor(1.0))

    def forward(self, x):
        return self.layer(x) * self.scale


class Rope(nn.Module):
    """A buffer that is a constant, in the state or not, finite or not."""

    def __init__(self, value=0.5, persistent=False):
        super().__init__()
        self.layer = nn.Linear(8, 16)
        self.register_buffer("table", torch.full((16,), value), persistent=persistent)

    def forward(self, x):
        return self.layer(x) * self.table.clamp(min=0.1)


class Tied(nn.Module):
    """One weight under two names."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)
        self.second.weight = self.first.weight

    def forward(self, x):
        return self.second(self.first(x).relu())


class Single(nn.Module):
    """As :class:`Tied`, with one name."""

    def __init__(self):
        super().__init__()
        self.first, self.bias = nn.Linear(8, 8), nn.Parameter(torch.zeros(8))
        other = nn.Linear(8, 8)
        with torch.no_grad():
            self.bias.copy_(other.bias)

    def forward(self, x):
        return nn.functional.linear(self.first(x).relu(), self.first.weight, self.bias)


GOOD = {
    "a scalar": Scale,
    "a buffer outside the state": Rope,
    "a constant in the state": lambda: Rope(persistent=True),
    "a constant that is infinite": lambda: Rope(-torch.inf, persistent=True),
    "tied parameters": Tied,
}


@pytest.mark.parametrize("path", ["batched", "sequential"])
@pytest.mark.parametrize("what", GOOD)
def test_it_trains(what, path, tmp_path):
    result = simulate(tmp_path, GOOD[what], path)
    assert [record.clients.trained for record in result.records] == [4] * 3
    assert result.metrics["train"]["a"] > 0.6
    assert all(tensor.isfinite().all() for tensor in result.backbone.values())


@pytest.mark.parametrize("path", ["batched", "sequential", "traced"])
def test_a_tied_parameter_travels_once_and_trains_as_one(path, tmp_path):
    tied, single = simulate(tmp_path, Tied, path), simulate(tmp_path, Single, path)
    assert sorted(tied.backbone) == [
        "backbone.first.bias",
        "backbone.first.weight",
        "backbone.second.bias",
    ]
    for name, other in (("first.weight", "first.weight"), ("second.bias", "bias")):
        torch.testing.assert_close(
            tied.backbone[f"backbone.{name}"], single.backbone[f"backbone.{other}"]
        )


class Twice(nn.Module):
    """A module under two names, one in a container of nothing else; and one weight in two."""

    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Linear(8, 8), nn.Tanh())
        self.second = nn.Sequential(self.first[0], nn.Tanh())
        self.third = nn.Linear(8, 8, bias=False)
        self.third.weight = self.first[0].weight

    def forward(self, x):
        return self.third(self.second(self.first(x)))


class Norms(nn.Module):
    """A BatchNorm under two names: its statistics move twice in a pass."""

    def __init__(self):
        super().__init__()
        self.layer, self.norm = nn.Linear(8, 8), nn.BatchNorm1d(8)
        self.again = self.norm

    def forward(self, x):
        return self.again(torch.tanh(self.norm(self.layer(x))))


class FrozenTwice(nn.Module):
    """A frozen module under two names, below what trains."""

    def __init__(self):
        super().__init__()
        self.frozen, self.layer = nn.Linear(8, 8).requires_grad_(False), nn.Linear(8, 8)
        self.again = self.frozen

    def forward(self, x):
        return self.layer(self.again(torch.tanh(self.frozen(x))))


class TwiceHead(nn.Module):
    def __init__(self, features):
        super().__init__()
        self.first = nn.Linear(features, features)
        self.second, self.last = self.first, nn.Linear(features, 2)

    def forward(self, x):
        return self.last(self.second(torch.tanh(self.first(x))))


def sequential():
    layer = nn.Linear(8, 8)
    return nn.Sequential(layer, nn.Tanh(), layer, nn.Tanh())


#: backbone, and what the task says of its head
TWICE = {
    "in a sequence": (sequential, {}),
    "in a container, and a weight": (Twice, {}),
    "with statistics": (Norms, {}),
    "frozen": (FrozenTwice, {}),
    "in a head": (lambda: nn.Linear(8, 8), {"head": lambda _: TwiceHead(8)}),
}


def plainly(given, rounds, steps, lr):
    """Return the backbone after rounds of FedAvg in plain PyTorch, whose clients keep heads."""
    model = given.model(check({})).train()
    shared = {n: t.clone() for n, t in model.backbone.state_dict().items()}
    heads = [model.heads["a"].state_dict()] * 4
    heads = [{n: t.clone() for n, t in head.items()} for head in heads]
    for _ in range(rounds):
        after = []
        for client in range(4):
            model.backbone.load_state_dict(shared)
            model.heads["a"].load_state_dict(heads[client])
            trained = [p for p in model.parameters() if p.requires_grad]
            optimiser = torch.optim.SGD(trained, lr)
            data = given.data.client(client).train
            for _ in range(steps):
                optimiser.zero_grad()
                made = model.heads["a"](model.backbone(data.x))
                nn.functional.cross_entropy(made, data.y["a"]).backward()
                optimiser.step()
            after.append({n: t.clone() for n, t in model.backbone.state_dict().items()})
            heads[client] = {n: t.clone() for n, t in model.heads["a"].state_dict().items()}
        shared = {n: torch.stack([own[n].float() for own in after]).mean(0) for n in shared}
    return shared, heads


@pytest.mark.parametrize("path", ["batched", "sequential", "traced"])
@pytest.mark.parametrize("what", TWICE)
def test_a_module_of_two_names_trains_as_in_a_plain_loop(what, path, tmp_path):
    backbone, own = TWICE[what]
    given = problem(backbone, **own)
    config = {
        "rounds": 3,
        "local": {"steps": 4, "batch_size": 32, "path": path, "optimiser": {"lr": 0.1}},
        "engine": {"name": "inline"},
        "output": {"dir": str(tmp_path)},
    }
    result = fedjoint.simulate(config, given)
    shared, heads = plainly(given, rounds=3, steps=4, lr=0.1)
    assert result.backbone
    for name, tensor in result.backbone.items():
        torch.testing.assert_close(tensor, shared[name.removeprefix("backbone.")])
    # Every name of the exported model has what was learnt.
    model = fedjoint.export(result.path, "a", client=2, problem=given).model
    for part, expected in ((model.backbone, shared), (model.head, heads[2])):
        for name, tensor in part.state_dict().items():
            torch.testing.assert_close(tensor, expected[name].to(tensor.dtype), msg=name)


def missing():
    raise FileNotFoundError("weights.pt is not here")


class Tuple(nn.Linear):
    def forward(self, x):
        return (super().forward(x),)


class Scalar(nn.Linear):
    def forward(self, x):
        return super().forward(x)[:, 0]


#: backbone -> words of the error
BAD = {
    "a factory that fails": (missing, "the backbone cannot be built: weights.pt is not here"),
    "no module": (lambda: torch.zeros(3), "returns Tensor: return a torch.nn.Module"),
    "low precision": (
        lambda: nn.Linear(8, 16).half(),
        r"backbone.weight is float16, and only float32 is trained: call .float\(\) on the model",
    ),
    "double": (lambda: nn.Sequential(nn.Linear(8, 4), Double()), "backbone.1.w is float64"),
    "a tuple": (lambda: Tuple(8, 4), r"makes tuple: return a tensor \[2, features\]"),
    "a number": (lambda: Scalar(8, 4), r"makes \[2\]: return a tensor"),
    "another width": (lambda: nn.Linear(9, 4), r"does not take inputs of \(8,\) float32"),
}


class Double(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.ones(4, dtype=torch.float64))

    def forward(self, x):
        return x * self.w.float()


@pytest.mark.parametrize("what", BAD)
def test_it_is_refused_by_name_before_the_first_round(what, tmp_path):
    backbone, words = BAD[what]
    with pytest.raises(UserError, match=words) as error:
        simulate(tmp_path, backbone)
    assert "\n" not in str(error.value)


def test_low_precision_by_name():
    def bfloat16():
        layer = nn.Linear(8, 16, dtype=torch.bfloat16)
        return nn.Sequential(Cast(layer))

    with pytest.raises(UserError, match="is bfloat16, and only float32 is trained"):
        problem(bfloat16).model(fedjoint.Config())


class Cast(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x.to(self.layer.weight.dtype)).float()


@pytest.mark.parametrize(
    ("example", "words"),
    [
        (torch.zeros(2, 8), r"has 2 rows: give one input, \[1, \.\.\.\]"),
        ({"ids": torch.zeros(2, 8)}, r"has 2 rows: give one input, \[1, \.\.\.\]"),
        (torch.zeros(()), "are a single number: give one row for each example"),
        ({}, "the inputs of the example are an empty dict: give a tensor"),
        ([torch.zeros(1, 8)], "are of type list: give tensors"),
    ],
)
def test_an_example_is_one_input(example, words):
    with pytest.raises(UserError, match=words):
        problem(Scale, example)


@pytest.mark.parametrize("name", ["a.b", "a/b", "", " ", "keys", "type", "a\nb", 3])
def test_names_that_no_head_can_have(name):
    with pytest.raises(UserError, match="a task is named"):
        Task(name, "multiclass", 2)


def test_a_module_that_the_factory_keeps_stays_as_it_is(tmp_path):
    mine, head = nn.Linear(8, 16), nn.Linear(16, 2)
    before = mine.weight.clone(), head.weight.clone()
    own = problem(lambda: mine, head=lambda features: head)
    config = {"rounds": 2, "engine": {"name": "inline"}, "output": {"dir": str(tmp_path)}}
    result = fedjoint.simulate(config, own)
    assert torch.equal(mine.weight, before[0]) and torch.equal(head.weight, before[1])
    assert not torch.equal(result.backbone["backbone.weight"], before[0])
