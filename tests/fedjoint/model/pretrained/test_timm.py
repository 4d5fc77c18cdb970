"""The backbone timm, against the library alone."""

import pytest
import safetensors.torch
import torch
from support.plugins import plugin

from fedjoint import Inputs, Task, export, simulate
from fedjoint.errors import UserError
from fedjoint.exports.predict import predict
from fedjoint.model.backbones.timm import timm
from fedjoint.model.joint import build_model
from fedjoint.options import construct

library = pytest.importorskip("timm", exc_type=Exception)

NAME = "vit_tiny_patch16_224"
SMALL = {"img_size": 8, "patch_size": 4, "embed_dim": 12, "depth": 2, "num_heads": 2}
IMAGE = Inputs(shape=(3, 8, 8), dtype="float32", pixels=True)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file of weights with a classifier, and the model that they are of."""
    torch.manual_seed(1)
    model = library.create_model(NAME, pretrained=False, num_classes=3, in_chans=3, **SMALL)
    path = tmp_path_factory.mktemp("timm") / "model.safetensors"
    safetensors.torch.save_file(model.state_dict(), path)
    return path, model.eval()


def built(path, inputs=IMAGE, **options):
    options = {"name": NAME, "settings": SMALL, **options}
    return construct("backbone timm", timm, {"path": str(path), **options}, inputs)


def test_features_are_the_library_s(weights):
    path, model = weights
    x = torch.rand(3, 3, 8, 8)
    with torch.no_grad():
        expected = model.forward_head(model.forward_features((x - 0.5) / 0.5), pre_logits=True)
        torch.testing.assert_close(built(path).eval()(x), expected)


def test_adapters_cost_their_own_size(weights):
    backbone = built(weights[0], lora={"rank": 2, "targets": ["qkv"]})
    model = build_model(
        lambda: backbone, [Task("t", "multiclass", 2)], torch.zeros(1, 3, 8, 8), seed=0
    )
    assert model.layout().size == 2 * 2 * (12 + 36)


WRONG = [
    ({"name": "vit_of_nobody"}, {}, "vit_of_nobody: RuntimeError: Unknown model"),
    ({"settings": {**SMALL, "num_classes": 3}}, {}, "settings.num_classes is not yours to set"),
    ({"settings": {**SMALL, "depth": 3}}, {}, r"blocks\.2\.\S+ is not in it"),
    ({"settings": {**SMALL, "depth": 1}}, {}, r"blocks\.1\.\S+ is not in the model"),
    ({"settings": {**SMALL, "embed_dim": 8}}, {}, r"is \(1, 1, 12\), and \(1, 1, 8\) in the model"),
    ({}, {"shape": (1, 8, 8)}, r"patch_embed\.\S+ is .* for images of as many channels"),
    ({}, {"shape": (64,)}, r"reads images, and inputs are \(64,\) float32"),
    ({"lora": {"targets": ["query"]}}, {}, "'query' matches no layer; .* qkv"),
]


@pytest.mark.parametrize(("options", "read", "says"), WRONG)
def test_what_does_not_fit_is_refused(weights, options, read, says):
    with pytest.raises(UserError, match=f"backbone timm: .*{says}") as error:
        built(weights[0], IMAGE.model_copy(update=read), **options)
    assert "\n" not in str(error.value)


def test_a_file_that_is_none(tmp_path):
    with pytest.raises(UserError, match=r"gone: No such file"):
        built(tmp_path / "gone")
    (tmp_path / "pickle.pt").write_bytes(b"\x80\x02}q\x00.")
    with pytest.raises(UserError, match="is no safetensors file"):
        built(tmp_path / "pickle.pt")


def test_it_trains_and_is_exported(tmp_path):
    import numpy as np

    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 255, (60, 8, 8)).astype(np.uint8)
    labels = (pixels[:, 0, 0] > 127).astype(np.uint8)
    for name, array, kind in (("x", pixels, 3), ("y", labels, 1)):
        head = bytes([0, 0, 8, kind]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
        (tmp_path / f"{name}.idx").write_bytes(head + array.tobytes())
    paths = {"path": [str(tmp_path / name) for name in ("x.idx", "y.idx")]}
    run = simulate(
        {
            "rounds": 2,
            "data": {"source": plugin("idx", **paths), "clients": 2},
            "model": {"backbone": plugin("timm", name=NAME, settings=SMALL)},
            "engine": "inline",
            "output": {"dir": str(tmp_path / "runs")},
        }
    )
    (task,) = run.metrics["test"]
    model = export(run.path, task)
    model.write(tmp_path / "model", ["safetensors", "hf"])
    _, rows = predict(tmp_path / "model", tmp_path / "x.idx")
    x = torch.from_numpy(pixels).float()[:, None] / 255
    with torch.no_grad():
        assert [row[0] for row in rows] == [str(k) for k in model.model(x).argmax(1).tolist()]
        own = library.create_model(
            NAME,
            num_classes=0,
            in_chans=1,
            checkpoint_path=str(tmp_path / "model/pretrained/model.safetensors"),
            **SMALL,
        )
        torch.testing.assert_close(own.eval()(x), model.model.backbone(x))
