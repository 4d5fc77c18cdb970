"""Minibatches are changed at random, each client's by its own numbers, in training alone."""

import random
from typing import ClassVar

import numpy as np
import pytest
import torch
from support.small import config
from torch import nn

import fedjoint
from fedjoint import Client, Examples, Problem, Task
from fedjoint.config.load import check
from fedjoint.errors import UserError
from fedjoint.randomness import seeded
from fedjoint.registry import load_object
from fedjoint.training.augment import make_augmentations

CPU = torch.device("cpu")
SIZES = np.array([7, 12, 5])


class Pictures:
    task_names = ("left",)
    sizes = SIZES
    tasks = np.ones((3, 1), bool)

    def __init__(self, change=lambda x: x):
        self.change = change

    def client(self, index):
        g = torch.Generator().manual_seed(index)
        x = torch.rand(int(SIZES[index]) + 8, 1, 4, 4, generator=g)
        y = {"left": (x[..., :2].mean((1, 2, 3)) > 0.5).long()}
        train, valid, test = (
            Examples(x, y).take(p) for p in torch.arange(len(x)).split([int(SIZES[index]), 4, 4])
        )
        train = Examples(self.change(train.x), train.y)
        return Client(train, valid, test)


def dropping():
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 6), nn.Dropout(0.3), nn.Tanh())


def simulate(tmp_path, augment, data=None, backbone=dropping, rounds=3, **local):
    settings = config(
        tmp_path,
        rounds=rounds,
        local={"epochs": 2, "batch_size": 4, "augment": augment, **local},
        evaluate={"train": True},
    )
    task = Task("left", "multiclass", 2)
    return fedjoint.simulate(
        settings, Problem([task], backbone, data or Pictures(), torch.zeros(1, 1, 4, 4))
    )


class Recorded(fedjoint.Augmentation):
    """Adds noise of PyTorch, NumPy and Python, and notes what it was given."""

    given: ClassVar = []

    def augment(self, x):
        self.given.append(x.clone())
        elsewhere = np.random.rand() + random.random()  # noqa: NPY002 - users do
        draws = torch.rand(len(x)).sum() + elsewhere
        return x + 0.1 * draws


def test_always_mirrored_is_trained_on_mirrored_images(tmp_path):
    always = [{"name": "flip", "options": {"probability": 1.0}}]
    augmented = simulate(tmp_path, always)
    by_hand = simulate(tmp_path, [], Pictures(lambda x: x.flip(-1)))
    assert all(torch.equal(augmented.backbone[n], t) for n, t in by_hand.backbone.items())
    assert augmented.metrics["test"] == by_hand.metrics["test"]
    plain = simulate(tmp_path, [])
    assert any(not torch.equal(augmented.backbone[n], t) for n, t in plain.backbone.items())


def test_evaluation_sees_examples_as_they_are(tmp_path):
    noise = [{"name": "noise", "options": {"deviation": 1000.0}}]
    slow = {"optimiser": {"lr": 1e-12}}
    noisy, plain = (simulate(tmp_path, augment, rounds=1, **slow) for augment in (noise, []))
    assert noisy.metrics == plain.metrics and noisy.records[0].loss != plain.records[0].loss


AUGMENT = [f"{__file__}:Recorded", "flip", {"name": "crop", "options": {"padding": 1}}]


def test_batched_and_one_by_one_agree(tmp_path):
    full = {"batch_size": 5, "steps": 4, "epochs": None}  # of dropout, too, all numbers are used
    batched, alone = (
        simulate(tmp_path, AUGMENT, path=path, **full) for path in ("batched", "sequential")
    )
    assert batched.records[-1].fallback is None and alone.records[-1].fallback
    for name, tensor in alone.backbone.items():
        torch.testing.assert_close(batched.backbone[name], tensor, rtol=1e-4, atol=1e-6)


def test_short_batches_agree_and_padding_is_not_shown(tmp_path):
    def backbone():
        return nn.Sequential(nn.Flatten(), nn.Linear(16, 6), nn.Tanh())

    results, shown, recorded = [], [], load_object(AUGMENT[0])
    for path in ("batched", "sequential"):
        recorded.given.clear()
        results.append(simulate(tmp_path, AUGMENT, backbone=backbone, path=path))
        shown.append(list(recorded.given))
    for name, tensor in results[1].backbone.items():
        torch.testing.assert_close(results[0].backbone[name], tensor, rtol=1e-4, atol=1e-6)
    batched, alone = (sorted(x.flatten().tolist() for x in given) for given in shown)
    assert batched == alone and {len(x) // 16 for x in alone} == {1, 3, 4}


def test_the_same_run_again_is_the_same(tmp_path):
    one, two = simulate(tmp_path, AUGMENT), simulate(tmp_path, AUGMENT)
    assert all(torch.equal(two.backbone[n], t) for n, t in one.backbone.items())
    rest = fedjoint.resume(
        one.path,
        Problem([Task("left", "multiclass", 2)], dropping, Pictures(), torch.zeros(1, 1, 4, 4)),
        rounds=5,
    )
    whole = simulate(tmp_path, AUGMENT, rounds=5)
    assert all(torch.equal(rest.backbone[n], t) for n, t in whole.backbone.items())


def changed(name, x, **options):
    ((_, augmentation),) = make_augmentations(
        check({"local": {"augment": [{"name": name, "options": options}]}}).local.augment
    ).named
    with seeded(CPU, 7):
        return augmentation.augment(x)


def test_flip_mirrors_about_half_of_them():
    x = torch.arange(2000 * 3.0).reshape(2000, 1, 1, 3)
    found = changed("flip", x)
    mirrored = (found == x.flip(-1)).flatten(1).all(1)
    assert ((found == x).flatten(1).all(1) ^ mirrored).all()
    assert abs(mirrored.float().mean() - 0.5) < 5 * 0.5 / 2000**0.5


def test_a_margin_wider_than_the_image_is_refused():
    with pytest.raises(UserError, match="padding = 1000000 is wider than images of 6 x 9; give"):
        changed("crop", torch.zeros(2, 3, 6, 9), padding=1_000_000)


def test_crop_shifts_every_image_by_a_place_of_its_own():
    x = torch.arange(1, 400 * 2 * 3 * 5 + 1.0).reshape(400, 2, 3, 5)
    found, places = changed("crop", x, padding=2), set()
    wide = torch.nn.functional.pad(x, [2] * 4)
    for image, own in zip(found, wide, strict=True):
        at = [
            (top, left)
            for top in range(5)
            for left in range(5)
            if torch.equal(own[:, top : top + 3, left : left + 5], image)
        ]
        assert at, "it is a part of the image with its margin"
        places.update(at)
    assert len(places) == 25
    grey = changed("crop", x[:, 0], padding=2)
    assert grey.shape == (400, 3, 5)


def test_noise_has_the_deviation():
    x = torch.full((100, 100), 3.0)
    found = changed("noise", x, deviation=0.5) - x
    assert abs(found.mean()) < 5 * 0.5 / 100 and abs(found.std() - 0.5) < 5 * 0.5 / 20000**0.5


def test_words_are_left_out():
    x = torch.arange(1, 10001).reshape(100, 100)
    found = changed("worddropout", x, probability=0.2, by=0)
    gone = found == 0
    assert (found[~gone] == x[~gone]).all() and abs(gone.float().mean() - 0.2) < 5 * 0.4 / 100


def test_one_of_several_inputs_is_changed(tmp_path):
    x = {"image": torch.rand(50, 1, 4, 4), "size": torch.rand(50, 1)}
    found = changed("noise", x, key="image")
    assert found["size"] is x["size"] and not torch.equal(found["image"], x["image"])
    assert list(found) == list(x)


WRONG = {
    "no such name": (["flp"], "unknown augmentation 'flp'.*did you mean 'flip'"),
    "option": ([{"name": "flip", "options": {"probability": 2}}], "probability = 2"),
    "none": (["fedjoint.training.memory:_Counter"], "is no fedjoint.Augmentation"),
    "words": (["worddropout"], "augmentation|worddropout takes ids, and these inputs are numb"),
    "key": ([{"name": "flip", "options": {"key": "image"}}], "inputs are one tensor, leave it out"),
    "raises": ([f"{__file__}:Raises"], "Raises: ZeroDivisionError: division by zero"),
    "shape": ([f"{__file__}:Narrow"], r"makes 4 inputs \(1, 4, 3\) float32 of 4 \(1, 4, 4\) float"),
    "type": ([f"{__file__}:Double"], "keep their types and shapes"),
    "nothing": ([f"{__file__}:Nothing"], "what it returns are of type NoneType: give tensors"),
}


class Raises(fedjoint.Augmentation):
    def augment(self, x):
        return x / (1 / 0)


class Narrow(fedjoint.Augmentation):
    def augment(self, x):
        return x[..., 1:]


class Double(fedjoint.Augmentation):
    def augment(self, x):
        return x.double()


class Nothing(fedjoint.Augmentation):
    def augment(self, x):
        x.add_(1)


@pytest.mark.parametrize("case", WRONG)
def test_what_is_no_augmentation_is_refused_before_the_first_round(case, tmp_path):
    augment, words = WRONG[case]
    with pytest.raises(UserError, match=words) as caught:
        simulate(tmp_path, augment)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.xdist_group("ray")
def test_workers_change_nothing(tmp_path, two_workers):
    tree = {
        "rounds": 2,
        "data": {"clients": 6},
        "local": {"augment": ["noise"], "epochs": 1, "batch_size": 8},
        "output": {"dir": str(tmp_path)},
    }
    here, there = (
        fedjoint.simulate({**tree, "engine": engine})
        for engine in ({"name": "inline"}, {"name": "ray", "workers": 2})
    )
    assert all(torch.equal(there.backbone[n], t) for n, t in here.backbone.items())
