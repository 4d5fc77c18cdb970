"""Models of which is known what they make of a batch."""

import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, weight_norm

from fedjoint import Task
from fedjoint.config.schema import BalanceConfig
from fedjoint.errors import UserError
from fedjoint.model.joint import JointModel, build_model
from fedjoint.training.balance import make_balance
from fedjoint.training.probe import examine


class Module(nn.Module):
    """A linear layer, and then ``function(self, features)``."""

    def __init__(self, function):
        super().__init__()
        self.layer, self.function = nn.Linear(6, 4), function
        self.register_buffer("mean", torch.zeros(4))

    def forward(self, x):
        return self.function(self, self.layer(x))


def then(*layers):
    return lambda: nn.Sequential(nn.Linear(6, 4), *layers)


def after(function):
    return lambda: Module(function)


def remembers(self, x):
    if self.training:
        self.mean.mul_(0.9).add_(0.1 * x.detach().mean(0))
    return x - self.mean


def attending(batch_first=True):
    encoder = nn.TransformerEncoderLayer(8, 2, 8, batch_first=batch_first)
    return nn.Sequential(nn.Linear(6, 24), nn.Unflatten(1, (3, 8)), encoder, Last())


class Last(nn.Module):
    def forward(self, x):
        return x[:, -1, :4]


class Fused(nn.Module):
    """Attention by one kernel, which on the CPU has no batching rule."""

    def forward(self, x):
        return nn.functional.scaled_dot_product_attention(x, x, x)


def bag_of_words():
    class Words(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(30, 4)

        def forward(self, x):
            return self.table(x).mean(1)

    return Words()


APART = {
    "linear": then(nn.ReLU()),
    "dropout": then(nn.Dropout(0.5), nn.ReLU()),
    "layer norm": then(nn.LayerNorm(4)),
    "group norm": then(nn.GroupNorm(2, 4)),
    "instance norm": then(nn.Unflatten(1, (2, 2)), nn.InstanceNorm1d(2), nn.Flatten()),
    "softmax": then(nn.Softmax(1)),
    "weight norm": lambda: nn.Sequential(parametrizations.weight_norm(nn.Linear(6, 4))),
    "attention": lambda: attending(),
    "attention by one kernel": then(nn.Unflatten(1, (1, 2, 2)), Fused(), nn.Flatten()),
    "a slope that is learnt": then(nn.PReLU()),
    "undefined at zero": after(lambda self, x: x / x.norm(dim=1, keepdim=True)),
}

#: backbone -> words of the reason, fewest examples in training and in evaluation
TOGETHER = {
    "statistics": (then(nn.BatchNorm1d(4)), "running statistics", 2, 1),
    "statistics of pixels": (
        then(nn.Unflatten(1, (1, 2, 2)), nn.BatchNorm2d(1), nn.Flatten()),
        "running statistics",
        1,
        1,
    ),
    "no statistics": (
        then(nn.BatchNorm1d(4, track_running_stats=False)),
        "backbone.1 (BatchNorm1d) mixes",
        2,
        2,
    ),
    "instances' statistics": (
        then(nn.Unflatten(1, (2, 2)), nn.InstanceNorm1d(2, track_running_stats=True), nn.Flatten()),
        "backbone.2.running_mean changes",
        1,
        1,
    ),
    "mean": (after(lambda self, x: x - x.mean(0)), "training the model mixes", 1, 1),
    "maximum": (after(lambda self, x: x - x.amax(0)), "training the model mixes", 1, 1),
    "evaluation": (
        after(lambda self, x: x if self.training else x - x.mean(0)),
        "evaluation the model mixes",
        1,
        1,
    ),
    "deviation": (after(lambda self, x: x / x.std(0)), "training the model mixes", 2, 2),
    "infinite slope": (
        after(lambda self, x: x * x.var(0, unbiased=False).sqrt()),
        "training the model mixes",
        2,
        2,
    ),
    "softmax of examples": (then(nn.Softmax(0)), "training the model mixes", 1, 1),
    "attention of examples": (
        after(lambda self, x: torch.softmax(x @ x.T, 1) @ x),
        "training the model mixes",
        1,
        1,
    ),
    "the last": (after(lambda self, x: x - x[-1]), "training the model mixes", 1, 1),
    "encoder of examples": (
        lambda: attending(batch_first=False),
        "training the model mixes",
        1,
        1,
    ),
    "the number of examples": (
        after(lambda self, x: x / len(x)),
        "in training, backbone.layer.weight would be another",
        1,
        1,
    ),
    "an odd number of examples": (
        after(lambda self, x: x * (1 + len(x) % 2)),
        "in training, backbone.layer.weight would be another",
        1,
        1,
    ),
    "the number of examples in evaluation": (
        after(lambda self, x: x if self.training else x / len(x)),
        "in evaluation, the loss would be another",
        1,
        1,
    ),
    "untracked weights": (
        after(lambda self, x: x * self.layer.weight.data.mean()),
        "accessing `data` under vmap",
        1,
        1,
    ),
    "spectral norm": (
        lambda: nn.Sequential(parametrizations.spectral_norm(nn.Linear(6, 4))),
        "changes in every pass",
        1,
        1,
    ),
    "counted in evaluation": (
        after(lambda self, x: x if self.training else x + 0 * self.mean.add_(1).detach()),
        "backbone.mean changes",
        1,
        1,
    ),
    "memory": (after(remembers), "backbone.mean changes", 1, 1),
    "squeezed": (after(lambda self, x: x.squeeze(0)), "does not take a batch of one", 2, 2),
}


def examined(backbone, x=None, task=None):
    torch.manual_seed(0)
    task = task or Task("a", "multiclass", 3)
    model = JointModel(backbone(), {task.name: task.make_head(4)})
    before = {n: t.clone() for n, t in model.state_dict().items()}
    balance = make_balance(BalanceConfig(), [task], [task.name])
    x = torch.randn(20, 6) if x is None else x
    torch.manual_seed(7)
    found = examine(model, balance, x)
    drawn = torch.rand(3)
    torch.manual_seed(7)
    assert torch.equal(drawn, torch.rand(3)), "random numbers were used up"
    assert model.training
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
    return found


@pytest.mark.parametrize("name", APART)
def test_models_that_take_examples_one_by_one_are_batched(name):
    found = examined(APART[name])
    assert (found.sequential, found.train, found.evaluate) == (None, 1, 1)


def test_attention_is_batched_without_a_loop_over_clients():
    assert not examined(APART["attention by one kernel"]).slow


def test_token_ids_are_taken_from_the_data():
    assert examined(bag_of_words, torch.randint(30, (20, 5))).sequential is None


@pytest.mark.parametrize("name", TOGETHER)
def test_models_that_mix_examples_are_not(name):
    backbone, words, train, evaluate = TOGETHER[name]
    found = examined(backbone)
    assert words in found.sequential and "\n" not in found.sequential
    assert (found.train, found.evaluate) == (train, evaluate)


def zeros(features):
    head = nn.Linear(features, 3)
    nn.init.zeros_(head.weight)
    return head


def test_a_head_of_zeros_hides_nothing():
    task = Task("a", "multiclass", 3, head=zeros)
    backbone = after(lambda self, x: x if self.training else x - x.mean(0))
    assert "evaluation the model mixes" in examined(backbone, task=task).sequential


def test_heads_mix_too():
    task = Task("a", "multiclass", 3, head=lambda k: nn.Sequential(nn.Linear(k, 3), Centred()))
    assert "mixes" in examined(then(), task=task).sequential
    norm = Task("a", "regression", 3, head=lambda k: nn.Sequential(nn.Linear(k, 3), Norm()))
    found = examined(then(), task=norm)
    assert "heads.a.1 (Norm) keeps running statistics" in found.sequential and found.train == 2


class Centred(nn.Module):
    def forward(self, x):
        return x - x.mean(0)


class Norm(nn.BatchNorm1d):
    def __init__(self):
        super().__init__(3)


def test_losses_mix_too():
    def ranked(output, y):
        known = ~y.isnan().any(-1)
        error = ((output - output.mean(0) - y.nan_to_num()) ** 2).mean(-1)
        return torch.where(known, error, 0), known

    def unmasked(output, y):
        return ((output - y.nan_to_num()) ** 2).mean(-1), ~y.isnan().any(-1)

    for loss in (ranked, unmasked):  # the other forgets that padding has no labels
        task = Task("a", "regression", 2, loss=loss)
        assert "mixes" in examined(then(), task=task).sequential


def test_examples_that_are_all_the_same_tell_nothing():
    found = examined(then(), torch.ones(20, 6))
    assert "no two different examples" in found.sequential
    assert examined(then(nn.BatchNorm1d(4)), torch.ones(20, 6)).train == 2


def counts_in_place(self, x):
    if self.training:
        self.mean.add_(1)
    return x


def assigns(self, x):
    self.mean = self.mean + 1
    return x


def counts(self, x):
    self.calls = getattr(self, "calls", 0) + 1
    return x


def remembers_inputs(self, x):
    self.seen = getattr(self, "seen", 0) * 0.9 + x.detach().mean(0)
    return x


def grows(self, x):
    self.log = [*getattr(self, "log", []), len(x)]
    return x


FORGETFUL = {
    "an assigned buffer": (assigns, "backbone.mean is assigned anew in forward"),
    "a counter": (counts, "backbone.calls changes in every pass of the model"),
    "a tensor": (remembers_inputs, "backbone.seen changes in every pass"),
    "a list": (grows, "backbone.log changes in every pass"),
}


@pytest.mark.parametrize("mode", ["always", "in training", "in evaluation"])
@pytest.mark.parametrize("what", FORGETFUL)
def test_what_no_client_can_keep_is_refused_by_name(what, mode):
    function, words = FORGETFUL[what]

    def sometimes(self, x):
        there = mode == "always" or self.training == (mode == "in training")
        return function(self, x) if there else x

    with pytest.raises(UserError, match=words):
        examined(after(sometimes))


def test_tensors_that_cannot_be_copied_are_refused_with_the_cure():
    with pytest.raises(UserError, match=r"cannot be copied.*torch\.nn\.utils\.parametrizations"):
        task = Task("a", "multiclass", 3)
        model = build_model(
            lambda: nn.Sequential(weight_norm(nn.Linear(6, 4))),
            [task],
            torch.zeros(1, 6),
            norm="shared",
            seed=0,
        )
        examine(model, make_balance(BalanceConfig(), [task], ["a"]), torch.randn(20, 6))


@pytest.mark.parametrize("name", APART)
def test_models_that_draw_are_known(name):
    assert examined(APART[name]).draws == (name in ("dropout", "attention"))


def caches(self, x):
    if not hasattr(self, "mask"):
        self.mask = torch.ones(4)
    self.last = x.detach()
    return x * self.mask


def test_what_cannot_be_batched_in_evaluation_alone_is_trained_one_by_one():
    def late(self, x):
        return x if self.training or x.mean().item() < 1e9 else x * 0

    assert ".item()" in examined(after(late)).sequential


def test_what_only_depends_on_the_input_is_no_memory():
    assert examined(after(caches)).sequential is None


@pytest.mark.parametrize("draw", [random.random, lambda: float(np.random.rand())])  # noqa: NPY002
def test_models_that_draw_elsewhere_are_trained_one_by_one(draw):
    states = random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    found = examined(after(lambda self, x: x * draw()))
    assert "Python's or NumPy's own random numbers" in found.sequential
    assert states == (random.getstate(), np.random.get_state()[1].tolist())  # noqa: NPY002


def test_a_buffer_changed_in_place_is_each_client_s_own():
    assert "backbone.mean changes" in examined(after(counts_in_place)).sequential


def test_a_loss_that_fails_beside_padding_is_not_called_the_model_s_fault():
    def squares(output, y):
        return ((output - y) ** 2).mean(1), ~y.isnan().any(1)

    task = Task("a", "regression", 1, loss=squares)
    model = build_model(lambda: nn.Linear(6, 4), [task], torch.zeros(1, 6), seed=0)
    found = examine(model, make_balance(BalanceConfig(), [task], ["a"]), torch.randn(8, 6))
    assert found.sequential == "a loss has no finite gradient beside a missing label"
