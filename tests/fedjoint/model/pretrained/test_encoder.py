"""Features are those that the library transformers computes by its own means."""

import pytest
import torch
from support.pretrained import _TEXT, CONFIGS, transformers
from torch.func import functional_call, grad, vmap

from fedjoint.errors import UserError
from fedjoint.model.pretrained.encoder import ImageEncoder, TextEncoder, pool

LENGTH = 10
DECODER = {**_TEXT, "num_key_value_heads": 1, "bos_token_id": 2, "eos_token_id": 3}
#: name -> configuration, and whether clients can train it as one batched program
TEXT = {
    "bert": (CONFIGS["bert"], True),
    "roberta": (lambda: transformers.RobertaConfig(**_TEXT | {"pad_token_id": 1}), True),
    "distilbert": (
        lambda: transformers.DistilBertConfig(
            vocab_size=30, dim=16, n_layers=2, n_heads=2, hidden_dim=24, max_position_embeddings=32
        ),
        True,
    ),
    "llama": (CONFIGS["llama"], True),
    "gpt2": (
        lambda: transformers.GPT2Config(
            vocab_size=30, n_embd=16, n_layer=2, n_head=2, n_positions=32, use_cache=False
        ),
        True,
    ),
    "a window of attention": (
        lambda: transformers.MistralConfig(**DECODER, sliding_window=3, use_cache=False),
        None,
    ),
}


def encoder(name, pooling="mean"):
    torch.manual_seed(3)
    config = TEXT[name][0]()
    body = transformers.AutoModel.from_config(config, attn_implementation="eager")
    pad = -1 if config.pad_token_id is None else config.pad_token_id
    return TextEncoder(body, pad, pooling, LENGTH).eval()


def sentences(pad):
    x = torch.randint(4, 22, (3, LENGTH), generator=torch.Generator().manual_seed(1))
    if pad >= 0:
        x[1, 7:] = x[2, 1:] = pad
    return x


@pytest.mark.parametrize("name", TEXT)
def test_features_are_the_mean_of_what_is_no_padding(name):
    model = encoder(name)
    x = sentences(model.pad)
    with torch.no_grad():
        found = model(x)
        for row, own in zip(x, found, strict=True):
            words = row[row != model.pad][None]  # alone, without padding or mask
            alone = model.body(input_ids=words).last_hidden_state.mean(1)[0]
            torch.testing.assert_close(own, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", [name for name, (_, batched) in TEXT.items() if batched])
def test_it_can_be_batched(name):
    model = encoder(name)
    x = sentences(model.pad)
    trained = {n: p.detach() for n, p in model.named_parameters()}

    def loss(weights, x):
        return functional_call(model, weights, (x,)).square().sum()

    stacked = {n: torch.stack([p, p * 1.1]) for n, p in trained.items()}
    together = vmap(grad(loss))(stacked, torch.stack([x, x.flip(0)]))
    alone = grad(loss)({n: p[1] for n, p in stacked.items()}, x.flip(0))
    for n, expected in alone.items():
        torch.testing.assert_close(together[n][1], expected, rtol=1e-3, atol=1e-4)


def test_pooling_by_hand():
    hidden = torch.arange(12.0).view(2, 3, 2)
    seen = torch.tensor([[True, True, False], [False, False, False]])
    assert pool(hidden, seen, "cls").tolist() == [[0, 1], [6, 7]]
    assert pool(hidden, seen, "last").tolist() == [[2, 3], [6, 7]]
    assert pool(hidden, seen, "mean").tolist() == [[1, 2], [0, 0]]
    assert pool(hidden, seen, "none") is hidden
    left = torch.tensor([[False, True, True], [False, False, True]])
    assert pool(hidden, left, "last").tolist() == [[4, 5], [10, 11]]


def test_images_are_scaled_as_the_model_wants_them():
    torch.manual_seed(3)
    body = transformers.AutoModel.from_config(CONFIGS["vit"]()).eval()
    x = torch.rand(2, 1, 8, 8)
    model = ImageEncoder(body, "cls", (torch.tensor([0.5]), torch.tensor([0.25])))
    with torch.no_grad():
        expected = body(pixel_values=(x - 0.5) / 0.25).last_hidden_state[:, 0]
        torch.testing.assert_close(model(x), expected)


def test_a_feature_map_is_averaged():
    config = transformers.ResNetConfig(
        num_channels=1, embedding_size=8, hidden_sizes=[8, 12], depths=[1, 1], layer_type="basic"
    )
    body = transformers.AutoModel.from_config(config).eval()
    x = torch.rand(2, 1, 16, 16)
    with torch.no_grad():
        expected = body(pixel_values=x).pooler_output.flatten(1)
        torch.testing.assert_close(ImageEncoder(body, "mean", None)(x), expected)


def test_a_model_whose_output_is_not_understood():
    body = transformers.AutoModelForMaskedLM.from_config(CONFIGS["bert"]())
    with pytest.raises(UserError, match="BertForMaskedLM returns MaskedLMOutput without"):
        TextEncoder(body, 0, "mean", LENGTH)
