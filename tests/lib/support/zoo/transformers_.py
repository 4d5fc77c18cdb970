"""Models of the library transformers: an encoder, a causal decoder, and one of images."""

import tempfile
from functools import cache

import torch
from support.people import Unequal
from support.pretrained import TARGETS, VOCABULARY, save

from fedjoint import Examples, Inputs, Problem, Task
from fedjoint.model.backbones.hf import hf
from fedjoint.model.pretrained.adapters import Lora

_LENGTH = 9


@cache
def _folder(name):
    folder = tempfile.mkdtemp()
    save(folder, name)
    return folder


def _sentences(count, rng):
    x = torch.randint(4, len(VOCABULARY), (count, _LENGTH), generator=rng)
    lengths = torch.randint(3, _LENGTH + 1, (count, 1), generator=rng)
    x = x.where(torch.arange(_LENGTH) < lengths, 0)
    return Examples(x, {"first": (x[:, 0] % 3).long(), "long": lengths.float()})


def _images(count, rng):
    x = torch.rand(count, 1, 8, 8, generator=rng)
    return Examples(x, {"first": (x[:, 0, 0, 0] > 0.5).long(), "long": x.mean((1, 2, 3))[:, None]})


def _problem(config, examples, inputs, **options):
    tasks = [Task("first", "multiclass", 3), Task("long", "regression", 1)]
    example = torch.zeros(1, *inputs.shape, dtype=getattr(torch, inputs.dtype))
    data = Unequal(tasks, examples, config.seed)
    return Problem(tasks, lambda: hf(inputs, **options), data, example)


def _text(config, name, **options):
    inputs = Inputs(shape=(_LENGTH,), dtype="int64")
    return _problem(config, _sentences, inputs, path=_folder(name), **options)


def encoder_with_adapters(config):
    """Adapters with dropout of their own, in a model with dropout."""
    lora = Lora(targets=TARGETS["bert"], rank=2, dropout=0.1)
    return _text(config, "bert", lora=lora)


def decoder_in_part(config):
    """The last layer of a causal decoder trains, and the last token's vector is the feature."""
    return _text(config, "llama", train=["layers.1.*", "norm.*"], pooling="last")


def images_with_adapters(config):
    """Adapters in a vision transformer, without any dropout."""
    inputs = Inputs(shape=(1, 8, 8), dtype="float32", pixels=True)
    lora = Lora(targets=TARGETS["vit"], rank=2)
    return _problem(config, _images, inputs, path=_folder("vit"), lora=lora, pooling="cls")
