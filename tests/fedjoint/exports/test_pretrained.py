"""A pretrained backbone leaves in files that transformers and peft load, and that predict needs."""

import json
import shutil

import pytest
import torch
from support.plugins import plugin
from support.pretrained import TARGETS, VOCABULARY, save, transformers

from fedjoint.config.load import check
from fedjoint.errors import UserError
from fedjoint.exports.export import export
from fedjoint.exports.predict import predict
from fedjoint.simulation import resume, simulate

LENGTH = 8
SENTENCES = ["the film was good", "who was it", "not very", "where did it end"]


def sentences(folder):
    """Write two tasks of sentences of the vocabulary's words."""
    rng = torch.Generator().manual_seed(1)
    for task in ("mood", "kind"):
        rows = torch.randint(4, len(VOCABULARY), (60, 5), generator=rng).tolist()
        lines = [f"{row[0] % 2} {' '.join(VOCABULARY[i] for i in row)}\n" for row in rows]
        (folder / f"{task}.txt").write_text("".join(lines))
    return [str(folder / "mood.txt"), str(folder / "kind.txt")]


def settings(folder, **options):
    model = str(folder / "model")
    return check(
        {
            "rounds": 2,
            "data": {
                "source": plugin(
                    "text", path=sentences(folder), tokenizer=model, max_length=LENGTH
                ),
                "clients": 4,
                "partition": "one_task",
            },
            "model": {"backbone": plugin("hf", path=model, **options)},
            "local": {"optimiser": {"name": "adam", "lr": 0.01}},
            "engine": "inline",
            "output": {"dir": str(folder / "runs")},
        }
    )


@pytest.fixture(scope="module", params=["bert", "llama"])
def adapted(request, tmp_path_factory):
    """A run with adapters."""
    folder = tmp_path_factory.mktemp("adapted")
    save(folder / "model", request.param)
    lora = {"rank": 2, "targets": TARGETS[request.param]}
    return simulate(settings(folder, lora=lora))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    save(folder / "model", "bert")
    return simulate(settings(folder))


def mean_features(model, tokenizer):
    """Return the mean of the last layer, by the libraries' own means alone."""
    batch = tokenizer(SENTENCES, padding=True, return_tensors="pt")
    with torch.no_grad():
        hidden = model.eval()(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]
        ).last_hidden_state
    weights = batch["attention_mask"][..., None].float()
    return (hidden * weights).sum(1) / weights.sum(1)


def test_peft_loads_the_adapters(adapted, tmp_path):
    run = adapted
    model = export(run.path, "mood")
    model.write(tmp_path, ["hf"])
    base = transformers.AutoModel.from_pretrained(run.path.parents[1] / "model")
    start = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    loaded = pytest.importorskip("peft").PeftModel.from_pretrained(base, tmp_path / "pretrained")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "pretrained")
    found = mean_features(loaded, tokenizer)
    ids = tokenizer(SENTENCES, padding="max_length", max_length=LENGTH, return_tensors="pt")
    with torch.no_grad():
        expected = model.model.backbone(ids["input_ids"])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    # The adapters have learnt something, and what is frozen is as it was.
    assert (found - mean_features(loaded.unload(), tokenizer)).abs().max() > 1e-4
    for part, tensor in start.items():
        place = f"backbone.body.base_model.model.{part}"
        leaf, _, end = place.rpartition(".")
        kept = run.backbone.get(place, run.backbone.get(f"{leaf}.base_layer.{end}"))
        assert kept is not None and torch.equal(kept, tensor)


def test_transformers_loads_a_whole_model(whole, tmp_path):
    model = export(whole.path, "kind")
    model.write(tmp_path, ["hf"])
    loaded, report = transformers.AutoModel.from_pretrained(
        tmp_path / "pretrained", output_loading_info=True
    )
    assert not any(report.values())
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "pretrained")
    ids = tokenizer(SENTENCES, padding="max_length", max_length=LENGTH, return_tensors="pt")
    with torch.no_grad():
        expected = model.model.backbone(ids["input_ids"])
    torch.testing.assert_close(mean_features(loaded, tokenizer), expected, rtol=1e-4, atol=1e-5)


def test_predict_needs_nothing_but_the_export(adapted, tmp_path):
    run = adapted
    model = export(run.path, "mood", client=0)
    model.write(tmp_path / "there")
    shutil.move(tmp_path / "there", tmp_path / "here")
    (tmp_path / "new.txt").write_text("\n".join(SENTENCES) + "\n")
    hidden = run.path.parents[1] / "model"
    hidden.rename(hidden.with_name("gone"))
    try:
        columns, rows = predict(tmp_path / "here", tmp_path / "new.txt")
    finally:
        hidden.with_name("gone").rename(hidden)
    tokenizer = transformers.AutoTokenizer.from_pretrained(hidden)
    ids = tokenizer(SENTENCES, padding="max_length", max_length=LENGTH, return_tensors="pt")
    with torch.no_grad():
        best, chosen = model.model(ids["input_ids"]).softmax(1).max(1)
    assert columns == ["mood", "probability"]
    assert [row[0] for row in rows] == [str(k) for k in chosen.tolist()]
    assert [float(row[1]) for row in rows] == pytest.approx(best.tolist(), rel=1e-4)


def test_what_the_export_was_built_of_is_sealed(whole, tmp_path):
    export(whole.path, "mood").write(tmp_path / "model")
    file = tmp_path / "model/pretrained/config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "hidden_act": "relu"}))
    (tmp_path / "new.txt").write_text("it was\n")
    with pytest.raises(UserError, match=r"config\.json: not the model that model\.json describes"):
        predict(tmp_path / "model", tmp_path / "new.txt")
    file.unlink()
    with pytest.raises(UserError, match=r"config\.json: No such file.*; export again"):
        predict(tmp_path / "model", tmp_path / "new.txt")


def test_a_run_begins_with_peft_s_adapters(adapted, tmp_path):
    run = adapted
    export(run.path, "mood").write(tmp_path, ["hf"])
    tree = run.config.model_dump()
    tree["model"]["initial"] = str(tmp_path / "pretrained")
    tree["evaluate"]["initial"] = True
    begun = []
    simulate(
        check({**tree, "rounds": 1}),
        callbacks=[lambda _, snapshot: begun.append(snapshot.backbone()) or None],
    )
    for part, tensor in begun[0].items():
        assert torch.equal(tensor, run.backbone[part]), part


def test_a_checkpoint_of_another_model_is_no_beginning(adapted, tmp_path):
    run = adapted
    save(tmp_path / "other", "bert")
    tree = run.config.model_dump()
    tree["model"]["initial"] = str(tmp_path / "other")
    tree["output"]["dir"] = str(tmp_path / "runs")
    with pytest.raises(UserError, match=r"model\.initial: .*has no .*give weights of this"):
        simulate(check(tree))
    assert not (tmp_path / "runs").exists()


def test_a_run_goes_on_from_another_folder(adapted, tmp_path, monkeypatch):
    """Paths of model and tokenizer that are given from here are kept as whole paths."""
    run = adapted
    monkeypatch.chdir(run.path.parents[1])
    tree = run.config.model_dump()
    tree["data"]["source"]["options"]["tokenizer"] = "model"
    tree["model"]["backbone"]["options"]["path"] = "model"
    tree["output"]["dir"] = str(tmp_path)
    half = simulate(check({**tree, "rounds": 1}))
    monkeypatch.chdir(tmp_path)
    rest = resume(half.path, rounds=2)
    assert all(torch.equal(rest.backbone[n], tensor) for n, tensor in run.backbone.items())


def test_other_backbones_have_no_library(tmp_path):
    run = simulate(
        check(
            {
                "rounds": 1,
                "data": {"clients": 4},
                "engine": "inline",
                "output": {"dir": str(tmp_path)},
            }
        )
    )
    with pytest.raises(UserError, match="--format hf is for"):
        export(run.path, "digit").write(tmp_path / "model", ["hf"])
    assert not (tmp_path / "model").exists()
