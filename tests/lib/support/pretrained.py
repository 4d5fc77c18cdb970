"""Tiny models of the library transformers, in folders as ``save_pretrained`` leaves them."""

import pytest

transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")
pytest.importorskip("peft")

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
_WORDS = ["the", "a", "film", "was", "is", "good", "bad", "very", "not", "who", "what", "where"]
_MORE = ["when", "did", "it", "end", "so", "goes"]
VOCABULARY = [*SPECIAL, *_WORDS, *_MORE]

_SMALL = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
}
_TEXT = {**_SMALL, "vocab_size": len(VOCABULARY), "max_position_embeddings": 32, "pad_token_id": 0}

#: An encoder, a causal decoder with rotary embeddings, and one of images.
CONFIGS = {
    "bert": lambda: transformers.BertConfig(**_TEXT, hidden_dropout_prob=0.1),
    "llama": lambda: transformers.LlamaConfig(
        **_TEXT, num_key_value_heads=1, bos_token_id=2, eos_token_id=3
    ),
    "vit": lambda: transformers.ViTConfig(
        **_SMALL, image_size=8, patch_size=4, num_channels=1, hidden_dropout_prob=0.0
    ),
}

#: name -> layers that an adapter is put beside
TARGETS = {
    "bert": ["query", "value"],
    "llama": ["q_proj", "v_proj"],
    "vit": ["q_proj", "v_proj"],
}


def save(folder, name, weights=True):
    """Write a model, its weights drawn by a fixed seed, into ``folder``; return the model."""
    import torch

    config = CONFIGS[name]()
    with torch.random.fork_rng():
        torch.manual_seed(5)
        model = transformers.AutoModel.from_config(config).eval()
    (model if weights else config).save_pretrained(folder)
    if name != "vit":
        save_tokenizer(folder)
    return model


def save_tokenizer(folder, vocabulary=VOCABULARY, pad="[PAD]"):
    """Write a tokenizer of whole words into ``folder``: [CLS] the words [SEP]."""
    ids = {word: number for number, word in enumerate(vocabulary)}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(ids, unk_token="[UNK]"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        special_tokens=[("[CLS]", ids["[CLS]"]), ("[SEP]", ids["[SEP]"])],
    )
    known = {"unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    whole = transformers.PreTrainedTokenizerFast(tokenizer_object=made, pad_token=pad, **known)
    whole.save_pretrained(folder)
