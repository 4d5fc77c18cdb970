"""Backbones for sentences against PyTorch's own layers."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fedjoint.config.load import check
from fedjoint.errors import UserError
from fedjoint.model.backbones.kim import kim
from fedjoint.model.backbones.transformer import transformer
from fedjoint.model.inputs import Inputs, Words
from fedjoint.simulation import simulate

WORDS = Inputs(shape=(12,), dtype="int64", words=Words(max_length=12, vocabulary=50))
IMAGES = Inputs(shape=(3, 8, 8), dtype="float32")


def sentences(count=6, seed=0):
    """Sentences of 1 to ``count`` words."""
    random = torch.Generator().manual_seed(seed)
    x = torch.randint(1, 50, (count, 12), generator=random)
    return x * (torch.arange(12) <= torch.arange(count)[:, None])


def test_kim_is_the_largest_product_of_a_filter_with_the_words_it_covers():
    body = kim(WORDS, embedding=5, maps=4, windows=[2, 3]).eval()
    x = sentences()
    expected = []
    for convolve in body.filters:
        width = convolve.kernel_size[0]
        table = body.words.table.weight
        for row in x:
            # No word: zeros, and as many of them before and after as a filter is wide, but one.
            words = torch.stack([table[i] if i else torch.zeros(5) for i in row.tolist()])
            padded = torch.cat([torch.zeros(width - 1, 5), words, torch.zeros(width - 1, 5)])
            spans = padded.unfold(0, width, 1)  # [places, 5, width]
            products = torch.einsum("pew,mew->pm", spans, convolve.weight) + convolve.bias
            expected.append(products.clamp(min=0).amax(0))
    expected = torch.cat(torch.stack(expected).view(2, 6, 4).unbind(0), 1)
    torch.testing.assert_close(body(x), expected)


def test_kim_drops_features_in_training_alone():
    body, x = kim(WORDS, embedding=5, maps=200, dropout=0.5), sentences()
    kept = body(x).ne(0).float().mean() / body.eval()(x).ne(0).float().mean()
    assert 0.4 < float(kept) < 0.6


def test_transformer_is_that_of_pytorch():
    body = transformer(WORDS, width=8, layers=2, attention_heads=2, hidden=16).eval()
    x = sentences()
    h = F.embedding(x, body.words.table.weight) * (x != 0)[..., None] + body.places
    for own in body.layers:
        layer = nn.TransformerEncoderLayer(
            8, 2, 16, dropout=0, activation="gelu", batch_first=True, norm_first=True
        )
        pairs = [
            (layer.self_attn.out_proj, own.mix),
            (layer.linear1, own.widen),
            (layer.linear2, own.narrow),
            (layer.norm1, own.before),
            (layer.norm2, own.between),
        ]
        for theirs, ours in pairs:
            theirs.load_state_dict(ours.state_dict())
        layer.self_attn.in_proj_weight.data.copy_(own.project.weight)
        layer.self_attn.in_proj_bias.data.copy_(own.project.bias)
        h = layer(h, src_key_padding_mask=x == 0)
    h = F.layer_norm(h, (8,), body.norm.weight, body.norm.bias)
    expected = torch.stack([h[i, : i + 1].mean(0) for i in range(len(x))])
    torch.testing.assert_close(body(x), expected, rtol=1e-4, atol=1e-5)


def test_a_sentence_without_words_has_finite_features():
    for make in (kim, transformer):
        features = make(WORDS)(torch.zeros(2, 12, dtype=torch.int64))
        assert features.isfinite().all()


@pytest.mark.parametrize("make", [kim, transformer])
def test_what_is_no_sentence_is_refused(make):
    with pytest.raises(UserError, match=r"does not take inputs of \(3, 8, 8\) float32"):
        make(IMAGES)


def test_a_width_that_cannot_be_divided_is_refused():
    with pytest.raises(UserError, match="width = 10 is no multiple of attention_heads = 4"):
        transformer(WORDS, width=10)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("kim", {"embedding": 8, "maps": 4}),
        ("transformer", {"width": 8, "layers": 1, "hidden": 8}),
    ],
)
def test_clients_trained_at_once_and_one_by_one_agree(tmp_path, name, options):
    lines = [f"{i % 2} {'good' if i % 2 else 'bad'} w{i} v{i * 7 % 13}" for i in range(60)]
    (tmp_path / "a.txt").write_text("\n".join(lines))

    def trained(path):
        tree = {
            "rounds": 2,
            "data": {
                "clients": 3,
                "partition": "iid",
                "source": {"name": "text", "options": {"path": str(tmp_path / "a.txt")}},
            },
            "model": {"backbone": {"name": name, "options": options}},
            "local": {"steps": 10, "batch_size": 8, "path": path},
            "engine": "inline",
            "output": {"dir": str(tmp_path)},
        }
        result = simulate(check(tree))
        assert path == "sequential" or result.records[0].fallback is None
        return result.backbone

    torch.testing.assert_close(trained("batched"), trained("sequential"), rtol=1e-3, atol=1e-5)
