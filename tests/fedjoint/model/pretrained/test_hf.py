"""The backbone hf: what trains of it, what it costs, and what it refuses."""

import json

import pytest
import torch
from support.people import Unequal
from support.plugins import plugin
from support.pretrained import CONFIGS, TARGETS, VOCABULARY, save, save_tokenizer, transformers
from torch import nn
from torch.autograd import grad

from fedjoint import Examples, Inputs, Problem, Task, simulate
from fedjoint.errors import UserError
from fedjoint.model.backbones.hf import hf
from fedjoint.model.front import divided
from fedjoint.model.inputs import Words
from fedjoint.model.joint import build_model
from fedjoint.model.pretrained.adapters import Lora
from fedjoint.model.pretrained.tokenizer import words_of
from fedjoint.options import construct

TEXT = Inputs(shape=(9,), dtype="int64")
IMAGE = Inputs(shape=(1, 8, 8), dtype="float32", pixels=True)
INPUTS = {"bert": TEXT, "llama": TEXT, "vit": IMAGE}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    for name in INPUTS:
        save(root / name, name)
    return root


def built(folders, name, **options):
    """Build it as a configuration does."""
    return construct("backbone hf", hf, {"path": str(folders / name), **options}, INPUTS[name])


def joint(backbone, name):
    inputs = INPUTS[name]
    example = torch.zeros(1, *inputs.shape, dtype=getattr(torch, inputs.dtype))
    return build_model(lambda: backbone, [Task("t", "multiclass", 2)], example, seed=0)


@pytest.mark.parametrize("name", INPUTS)
def test_an_adapter_costs_its_own_size(folders, name):
    backbone = built(folders, name, lora={"rank": 3, "targets": TARGETS[name]})
    model = joint(backbone, name)
    # Two layers; of each, a matrix for queries and one for values, 16 -> 16 but for Llama's one
    # head of values in place of two.
    value = 8 if name == "llama" else 16
    assert model.layout().size == 2 * 3 * ((16 + 16) + (16 + value))
    assert all("lora_" in tensor for tensor in model.layout().shapes)
    assert not model.kept()


def test_an_adapter_begins_as_nothing_and_adds_a_product(folders):
    plain = built(folders, "bert", weights=True).eval()
    adapted = built(folders, "bert", lora={"rank": 2, "alpha": 6.0, "targets": ["query"]}).eval()
    x = torch.tensor([[2, 5, 6, 3, 0, 0, 0, 0, 0]])
    with torch.no_grad():
        torch.testing.assert_close(adapted(x), plain(x))
        for name, tensor in adapted.named_parameters():
            if "lora_B" in name:
                tensor.normal_(generator=torch.Generator().manual_seed(1))
        parts = dict(adapted.named_parameters())
        for name, module in plain.named_modules():
            if name.endswith(".query"):
                place = name.replace("body.", "body.base_model.model.")
                a, b = (parts[f"{place}.lora_{part}.default.weight"] for part in "AB")
                module.weight += 6.0 / 2 * b @ a
        torch.testing.assert_close(adapted(x), plain(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", INPUTS)
def test_all_of_it_trains_but_what_no_feature_depends_on(folders, name):
    model = joint(built(folders, name), name)
    model.train()
    x = torch.ones(2, *INPUTS[name].shape).to(getattr(torch, INPUTS[name].dtype))
    model(x)["t"].square().sum().backward()
    for tensor, parameter in model.named_parameters():
        assert parameter.requires_grad == (parameter.grad is not None), tensor
        assert parameter.requires_grad == (".pooler." not in tensor)


def test_patterns_say_what_trains(folders):
    model = built(folders, "bert", train=["encoder.layer.1.*", "*.LayerNorm.bias"])
    trained = {n.removeprefix("body.") for n, p in model.named_parameters() if p.requires_grad}
    assert {n for n in trained if not n.startswith("encoder.layer.1.")} == {
        "embeddings.LayerNorm.bias",
        "encoder.layer.0.attention.output.LayerNorm.bias",
        "encoder.layer.0.output.LayerNorm.bias",
    }


def test_random_weights_are_drawn_by_the_run_s_seed(folders):
    first, again, other = (
        build_model(
            lambda: built(folders, "bert", weights=False),
            [Task("t", "multiclass", 2)],
            torch.zeros(1, 9, dtype=torch.int64),
            seed=seed,
        ).state_dict()
        for seed in (1, 1, 2)
    )
    name = "backbone.body.embeddings.word_embeddings.weight"
    assert torch.equal(first[name], again[name]) and not torch.equal(first[name], other[name])


HASHED = Words(max_length=9, vocabulary=20)
TOKENS = Words(max_length=9, vocabulary=1000, tokenizer="elsewhere")
WRONG = [
    ({"lora": {"targets": ["nope"]}}, {}, r"lora.targets: 'nope' matches no layer; .* query, key"),
    ({"lora": {"targets": ["query", "quer"]}}, {}, "lora.targets: 'quer' matches no layer"),
    ({"lora": {"targets": ["LayerNorm"]}}, {}, "lora: ValueError: Target module LayerNorm"),
    ({"lora": {"targets": []}}, {}, r"option lora.targets = \[\]"),
    ({"lora": {"targets": ["query"], "rank": 0}}, {}, "option lora.rank = 0"),
    ({"lora": {"targets": ["query"], "ranks": 1}}, {}, "option lora.ranks = 1"),
    ({"lora": {"targets": ["query"]}, "train": ["*"]}, {}, "leave out train, or lora"),
    ({"train": ["encoder.layer.9.*"]}, {}, "train: 'encoder.layer.9.*' matches no parameter"),
    ({"train": ["pooler.*"]}, {}, "train: 'pooler.*' matches no parameter"),
    ({"train": []}, {}, "train is empty"),
    ({"pooling": "max"}, {}, "option pooling 'max': allowed are cls, last, mean, none"),
    ({}, {"words": HASHED}, "inputs are hashed words: set data.source.options.tokenizer"),
    ({}, {"words": TOKENS}, r"the tokenizer elsewhere has 1000 tokens, and .* knows 22"),
    ({}, {"shape": (40,)}, "inputs are 40 tokens long, and .* takes 32: lower"),
    ({}, {"dtype": "float32"}, r"reads token ids .* and inputs are \(9,\) float32"),
    ({}, {"shape": (3, 9)}, r"reads token ids .* and inputs are \(3, 9\) int64"),
]


@pytest.mark.parametrize(("options", "read", "says"), WRONG)
def test_what_does_not_fit_is_refused(folders, options, read, says):
    inputs = TEXT.model_copy(update=read)
    with pytest.raises(UserError, match=f"backbone hf: .*{says}") as error:
        construct("backbone hf", hf, {"path": str(folders / "bert"), **options}, inputs)
    assert "\n" not in str(error.value)


MASK = Inputs(shape=(9,), dtype="bool")


def test_a_dict_has_the_mask_itself_and_what_else_the_model_takes(folders):
    read = {"input_ids": TEXT, "attention_mask": MASK, "token_type_ids": TEXT}
    model = hf(read, str(folders / "bert")).eval()
    x = torch.tensor([[2, 5, 0, 6, 3, 4, 4, 4, 4]])
    seen = torch.arange(9)[None] < 5
    types = torch.tensor([[0, 0, 0, 1, 1, 0, 0, 0, 0]])
    with torch.no_grad():
        found = model({"input_ids": x, "attention_mask": seen, "token_type_ids": types})
        own = transformers.AutoModel.from_pretrained(folders / "bert")
        alone = own(input_ids=x[:, :5], token_type_ids=types[:, :5]).last_hidden_state.mean(1)
    torch.testing.assert_close(found, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("read", "says"),
    [
        ({"ids": TEXT}, "reads 'input_ids', and an input is a dict of ids"),
        ({"input_ids": TEXT, "mood": TEXT}, "takes no 'mood' beside 'input_ids'"),
    ],
)
def test_a_dict_that_the_model_does_not_take(folders, read, says):
    with pytest.raises(UserError, match=says):
        hf(read, str(folders / "bert"))


def test_images_and_sentences_are_not_mixed_up(folders):
    with pytest.raises(UserError, match=r"vit reads images, and inputs are \(9,\) int64"):
        hf(TEXT, str(folders / "vit"))
    wide = IMAGE.model_copy(update={"shape": (1, 9, 9)})
    with pytest.raises(UserError, match=r"does not take inputs of \(1, 9, 9\) float32: .*size"):
        build_model(
            lambda: hf(wide, str(folders / "vit")),
            [Task("t", "multiclass", 2)],
            torch.zeros(1, 1, 9, 9),
            seed=0,
        )


def broken(folder, change):
    """Write a small encoder and change it."""
    save(folder, "bert")
    change(folder)
    return str(folder)


def pickled(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def deeper(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))


def wider(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"intermediate_size": 32}))


def two_texts(folder):
    transformers.T5Config(vocab_size=30).save_pretrained(folder)


def of_code(folder):
    config = {"auto_map": {"AutoConfig": "evil.Config"}, "model_type": "evil"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "evil.py").write_text("raise SystemExit('it ran')")


BROKEN = [
    (lambda f: (f / "config.json").unlink(), "no config.json there"),
    (
        lambda f: (f / "model.safetensors").unlink(),
        "no model.safetensors there; .* set weights",
    ),
    (pickled, r"the weights there are pickled \(pytorch_model.bin\).*as safetensors"),
    (lambda f: (f / "model.safetensors").write_bytes(b"\x80\x02}q\x00."), "SafetensorError"),
    (lambda f: (f / "config.json").write_text("{"), "config.json"),
    (lambda f: (f / "config.json").write_text('{"model_type": "klingon"}'), "klingon"),
    (deeper, "encoder.layer.2.* is not in its weights, and 15 more: give config and weights of"),
    (wider, r"encoder.layer.0.intermediate.dense.bias is \(24,\), and \(32,\) by its config.json"),
    (two_texts, "t5 is an encoder with a decoder"),
    (of_code, "it comes with code of its own, which is not run"),
]


@pytest.mark.parametrize(("change", "says"), BROKEN)
def test_a_folder_that_is_no_model_is_refused(tmp_path, change, says, capfd):
    path = broken(tmp_path / "model", change)
    with pytest.raises(UserError, match=says) as error:
        hf(TEXT, path)
    assert "\n" not in str(error.value) and str(error.value).startswith(path)


@pytest.mark.parametrize("path", ["/no/such/folder", "./here", "a/b/c", "", " "])
def test_what_is_no_folder_is_not_looked_for_in_the_hub(path):
    with pytest.raises(UserError, match="no such folder"):
        hf(TEXT, path)


def test_a_checkpoint_with_the_head_of_another_task_is_quietly_taken(tmp_path, capfd, recwarn):
    torch.manual_seed(2)
    whole = transformers.BertForMaskedLM(CONFIGS["bert"]())
    whole.save_pretrained(tmp_path)
    capfd.readouterr()
    model = hf(TEXT, str(tmp_path), lora=Lora(targets=["query"]))
    weight = dict(model.named_parameters())[
        "body.base_model.model.encoder.layer.1.attention.self.key.weight"
    ]
    assert torch.equal(weight, whole.bert.encoder.layer[1].attention.self.key.weight)
    assert capfd.readouterr() == ("", "") and not recwarn.list


def test_half_precision_is_trained_in_float32(tmp_path):
    model = save(tmp_path, "bert")
    model.to(torch.bfloat16).save_pretrained(tmp_path)
    assert {p.dtype for p in hf(TEXT, str(tmp_path)).parameters()} == {torch.float32}


def test_a_tokenizer_that_does_not_fit_is_refused_before_a_run(tmp_path):
    save(tmp_path / "model", "bert")
    save_tokenizer(tmp_path / "other", [*VOCABULARY, "more", "words"])
    (tmp_path / "a.txt").write_text("".join(f"{i % 2} film {i % 7}{i}\n" for i in range(40)))
    source = plugin("text", path=str(tmp_path / "a.txt"), tokenizer=str(tmp_path / "other"))
    settings = {
        "data": {"source": source, "clients": 2},
        "model": {"backbone": plugin("hf", path=str(tmp_path / "model"))},
        "output": {"dir": str(tmp_path / "runs")},
        "engine": "inline",
    }
    with pytest.raises(UserError, match=r"has 24 tokens, and .* knows 22"):
        simulate(settings)
    assert not (tmp_path / "runs").exists()


def test_the_pad_is_the_tokenizer_s(tmp_path):
    save(tmp_path, "bert")
    save_tokenizer(tmp_path, pad="it")
    inputs = TEXT.model_copy(update={"words": words_of(str(tmp_path), 9)})
    assert hf(inputs, str(tmp_path)).pad == VOCABULARY.index("it")


def test_a_module_around_it_is_any_module(folders):
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = transformers.AutoModel.from_pretrained(folders / "bert")
            self.encoder.requires_grad_(False)
            self.encoder.encoder.layer[1].requires_grad_(True)

        def forward(self, x):
            return self.encoder(input_ids=x, attention_mask=(x != 0).long()).pooler_output

    model = joint(Own(), "bert")
    assert all(".encoder.layer.1." in name for name in model.layout().shapes)
    assert "backbone.encoder.pooler.dense.weight" in model.frozen()


@pytest.mark.parametrize("way", ["batched", "sequential"])
def test_frozen_weights_are_held_once(way, tmp_path):
    def build():
        backbone = hf(TEXT, path, lora=Lora(targets=["query"], rank=1))
        layer = backbone.body.base_model.model.encoder.layer[0].attention.self.key
        layer.register_forward_hook(note)
        return backbone

    def note(layer, inputs, output):
        if torch.is_grad_enabled():  # in training alone
            seen.append(layer.weight.data_ptr())

    def examples(count, rng):
        x = torch.randint(4, 20, (count, 9), generator=rng)
        return Examples(x, {"t": x[:, 0] % 2})

    seen, path = [], str(tmp_path / "model")
    save(path, "bert")
    tasks = [Task("t", "multiclass", 2)]
    example = torch.zeros(1, 9, dtype=torch.int64)
    problem = Problem(tasks, build, Unequal(tasks, examples, 1), example)
    local = {"steps": 2, "path": way, "pack": 1}  # so that the driver's own model is not tried
    settings = {"rounds": 1, "engine": "inline", "output": {"dir": str(tmp_path)}}
    simulate({**settings, "local": local}, problem)
    assert len(seen) > 2 and len(set(seen)) == 1


UPPER = {"bert": "encoder.layer.1.*", "llama": "layers.1.*", "vit": "layers.1.*"}


@pytest.mark.parametrize("name", INPUTS)
def test_layers_below_those_that_train_are_computed_once(folders, name, monkeypatch):
    model = joint(built(folders, name, train=[UPPER[name]]), name)
    inputs, draw = INPUTS[name], torch.Generator().manual_seed(2)
    x = torch.rand(4, *inputs.shape, generator=draw)
    x = x if inputs is IMAGE else (x * len(VOCABULARY)).long()
    front, above = divided(model, lambda: x)
    lowest = UPPER[name].replace("1.*", "0")
    kept = front(x)
    assert [key for key in kept if key] == [f"kept body.{lowest}"]
    shared = [p for n, p in model.named_parameters() if n in model.layout().shapes]
    wanted = grad(model.eval()(x)["t"].square().sum(), shared)
    layer = type(model.backbone.get_submodule(f"body.{lowest}"))
    called, forward = [], layer.forward
    monkeypatch.setattr(layer, "forward", lambda *a, **k: called.append(1) or forward(*a, **k))
    torch.testing.assert_close(grad(above.eval()(kept)["t"].square().sum(), shared), wanted)
    assert len(called) == 1


def test_frozen_layers_drop_nothing_and_trained_ones_do(folders):
    model = joint(built(folders, "bert", train=[UPPER["bert"]]), "bert").train()
    modes = {n: m.training for n, m in model.backbone.body.named_modules() if "dropout" in n}
    assert {n for n, mode in modes.items() if mode} == {
        "encoder.layer.1.attention.self.dropout",
        "encoder.layer.1.attention.output.dropout",
        "encoder.layer.1.output.dropout",
    }
    beside = joint(built(folders, "bert", lora={"targets": ["query"]}), "bert").train()
    assert all(module.training for module in beside.modules())
