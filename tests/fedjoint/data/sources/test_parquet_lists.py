"""Lists in Parquet: labels of sequences, maps, boxes and preferences; inputs of ids and words."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import fedjoint
from fedjoint.config.data import DataConfig
from fedjoint.data.sources.csv import Csv
from fedjoint.data.sources.parquet import Parquet
from fedjoint.errors import UserError
from fedjoint.exports.export import export
from fedjoint.exports.predict import predict_arrays


def load(folder, columns, targets, outputs=None, names=None, **options):
    table = pa.table(columns)
    if names:
        about = {n: {"feature": {"names": own}, "_type": "List"} for n, own in names.items()}
        text = json.dumps({"info": {"features": about}})
        table = table.replace_schema_metadata({"huggingface": text})
    pq.write_table(table, folder / "a.parquet")
    source = Parquet(str(folder / "a.parquet"), targets, **options)
    return source, source.load(DataConfig(outputs=outputs or {}))


IDS = [[5, 3, 4], [2, 1], [6, 6, 2, 1]]


def test_a_class_of_each_id_of_lists_of_unequal_length(tmp_path):
    columns = {"ids": IDS, "part": [[0, 1, -100], [2, None], None]}
    source, found = load(tmp_path, columns, {"part": "tokens"}, missing=["-100"], pad=9)
    assert found.examples.x.tolist() == [[5, 3, 4, 9], [2, 1, 9, 9], [6, 6, 2, 1]]
    assert found.examples.y["part"].tolist() == [[0, 1, -1, -1], [2, -1, -1, -1], [-1] * 4]
    (task,) = found.tasks
    assert (task.kind, task.outputs, task.size) == ("tokens", 3, (4,))
    read = source.describe(found.examples.x[:1])
    assert (read.name, read.dtype, read.pad, read.words) == ("ids", "int64", 9, None)


def test_words_in_lists_and_in_texts_are_the_same(tmp_path):
    parts = {"tag": [[0, 1], [1, 0]]}
    names = {"tag": ["O", "NAME", "PLACE"]}
    options = {"targets": {"tag": "tokens"}, "names": names, "max_length": 3}
    source, lists = load(tmp_path, {"w": [["In", "Rome"], ["Ann", "sat"]], **parts}, **options)
    _, texts = load(tmp_path, {"w": ["in rome", " ann  sat"], **parts}, **options)
    assert torch.equal(lists.examples.x, texts.examples.x) and lists.examples.x.shape == (2, 3)
    assert lists.examples.y["tag"].tolist() == [[0, 1, -1], [1, 0, -1]]
    assert lists.tasks[0].outputs == 3 and source.class_names(lists.tasks[0]) == names["tag"]


def test_what_is_too_long_is_cut_with_its_labels(tmp_path):
    columns = {"ids": IDS, "part": [[0, 1, 1], [1, 0], [1, 1, 0, 1]]}
    _, found = load(tmp_path, columns, {"part": "tokens"}, max_length=2)
    assert found.examples.x.tolist() == [[5, 3], [2, 1], [6, 6]]
    assert found.examples.y["part"].tolist() == [[0, 1], [1, 0], [1, 1]]


def test_the_tokens_that_follow_are_the_labels_of_a_language_task(tmp_path):
    _, found = load(tmp_path, {"ids": [[5, 3, 4], [2, 0, 1], [6, 2, 0]], "who": ["a"] * 3},
                    {"ids": "language"}, client_column="who")  # fmt: skip
    # Of the last row, the pad at the end is no token; of the one before, the 0 inside is.
    assert found.examples.y["ids"].tolist() == [[3, 4, -1], [0, 1, -1], [2, -1, -1]]
    assert found.tasks[0].outputs == 7 and found.tasks[0].size == (3,)


def test_maps_boxes_numbers_and_missing_ones(tmp_path):
    region = [[[0, 1], [1, 2]], None, [[-1, 0], [2, 2]]]
    depth = [[[[1.5, 2], [3, 4]]], [[[float("nan"), 1], [1, 1]]], None]
    box = [[[1, 0, 0, 0.5, 0.5]], [], None]
    x = [[[0.0, 1.0], [2.0, 3.0]], [[1.0, 1.0], [2.0, 3.0]], [[0.0, 1.0], [5.0, 3.0]]]
    columns = {
        "x": x,
        "region": region,
        "depth": depth,
        "box": box,
        "two": [[1.0, 2.0], [3.0, 5.0], None],
    }
    targets = {
        "region": "segmentation",
        "depth": "dense_regression",
        "box": "detection",
        "two": "regression",
    }
    _, found = load(tmp_path, columns, targets, input="x")
    y = found.examples.y
    assert y["region"].tolist() == [region[0], [[-1, -1]] * 2, region[2]]
    np.testing.assert_array_equal(y["depth"][:2], np.array(depth[:2], np.float32))
    assert y["depth"][2].isnan().all() and y["box"][2].isnan().all() and y["two"][2].isnan().all()
    assert y["box"][:2].tolist() == [[[1, 0, 0, 0.5, 0.5]], [[-1] * 5]]
    assert [t.outputs for t in found.tasks] == [3, 1, 2, 2] and found.examples.x.shape == (
        3,
        1,
        2,
        2,
    )


def test_a_preference_among_items_of_numbers_or_texts(tmp_path):
    pairs = [[[1.0, 2.0, 3.0], [0.0, 1.0, 0.0]]] * 2
    source, found = load(tmp_path, {"x": pairs, "best": [1, None]}, {"best": "preference"})
    assert found.examples.x.tolist() == pairs and found.examples.y["best"].tolist() == [1, -1]
    assert found.tasks[0].outputs == 2 and source.describe(found.examples.x[:1]).items
    columns = {"x": [["a good one", "bad"], ["so", "so it goes"]], "best": [0, 1]}
    _, found = load(tmp_path, columns, {"best": "preference"}, max_length=3)
    assert found.examples.x.shape == (2, 2, 3) and found.examples.x.dtype == torch.int64


X = {"ids": [[1, 2], [3]]}
WRONG = {
    "labels too few": (
        {**X, "y": [[0], [1]]},
        {"y": "tokens"},
        {},
        "'y' of row 0 has 1 labels, and its input 2 positions",
    ),
    "a class too many": (
        {**X, "y": [[0, 5], [1]]},
        {"y": "tokens"},
        {"outputs": {"y": 3}},
        "'y': class 5 of 3",
    ),
    "below missing": (
        {**X, "y": [[0, -100], [1]]},
        {"y": "tokens"},
        {},
        "class -100; number classes from 0",
    ),
    "real classes": (
        {**X, "y": [[0.5, 1.0], [1.0]]},
        {"y": "tokens"},
        {},
        "labels of tokens are whole numbers",
    ),
    "text labels": (
        {**X, "y": ["a b", "c"]},
        {"y": "tokens"},
        {},
        "is no array of numbers; labels of tokens are lists",
    ),
    "no labels": ({**X, "y": [None, None]}, {"y": "tokens"}, {}, "'y' has no labels; leave it out"),
    "numbers for ids": (
        {"x": [[0.5], [1.0]], "y": [[0], [1]]},
        {"y": "tokens"},
        {},
        "a list of ids: whole numbers from 0",
    ),
    "ids below 0": (
        {"x": [[-1], [1]], "y": [[0], [1]]},
        {"y": "tokens"},
        {},
        "a list of ids: whole numbers from 0",
    ),
    "flat maps": (
        {"x": [[1.0], [2.0]], "y": [[0], [1]]},
        {"y": "segmentation"},
        {},
        "labels of segmentation are [n, height, width]",
    ),
    "maps of two sizes": (
        {"x": [[1.0], [2.0]], "y": [[[0]], [[1, 1]]]},
        {"y": "segmentation"},
        {},
        "of row 1 is no array of numbers of shape (1, 1)",
    ),
    "boxes of four": (
        {"x": [[1.0], [2.0]], "y": [[[0, 0, 1, 1]], []]},
        {"y": "detection"},
        {},
        "labels of detection are [n, boxes, 5]",
    ),
    "boxes in pixels": (
        {"x": [[1.0], [2.0]], "y": [[[0, 0, 0, 20, 20]], []]},
        {"y": "detection"},
        {},
        "corners 0, 0, 20, 20: give left, top",
    ),
    "one item": (
        {"x": [[1.0], [2.0]], "y": [0, 0]},
        {"y": "preference"},
        {},
        "an input has the shape [1]: give lists of items",
    ),
    "an item too many": (
        {"x": [[[1.0], [2.0]]], "y": [2]},
        {"y": "preference"},
        {},
        "class 2 of 2",
    ),
    "a label for language": (
        {**X, "y": [[0, 1], [1]]},
        {"y": "language"},
        {"input": "ids"},
        "targets = { ids = 'language' }",
    ),
    "words for language": (
        {"x": ["a b", "c"]},
        {"x": "language"},
        {},
        "a language task needs tokens, and words are hashed",
    ),
    "no such kind": (
        X,
        {"ids": "token"},
        {},
        "did you mean 'tokens'?",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_lists_that_do_not_fit_are_one_line(what, tmp_path):
    columns, targets, options, words = WRONG[what]
    with pytest.raises(UserError) as caught:
        load(tmp_path, columns, targets, **options)
    assert words in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["tokens", "language", "segmentation", "detection", "preference"])
def test_a_cell_of_csv_says_where_such_labels_can_be(kind):
    with pytest.raises(UserError, match=r"which is .*: take the data source parquet .* or npz"):
        Csv("a.csv", {"y": kind})


def test_pairs_from_a_file_train_and_predict_with_a_built_in_backbone(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 2, 3)).round(3)
    best = (x[:, 1].sum(1) > x[:, 0].sum(1)).astype(int)
    pq.write_table(pa.table({"x": x.tolist(), "best": best}), tmp_path / "pairs.parquet")
    options = {"path": str(tmp_path / "pairs.parquet"), "targets": {"best": "preference"}}
    run = fedjoint.simulate(
        {
            "rounds": 4,
            "data": {"clients": 2, "source": {"name": "parquet", "options": options}},
            "model": {"backbone": {"name": "mlp", "options": {"hidden": [6]}}},
            "local": {"optimiser": {"lr": 0.3}},
            "engine": "inline",
            "output": {"dir": str(tmp_path / "runs")},
        }
    )
    exported = export(run.path, "best")
    exported.write(tmp_path / "out")
    found = predict_arrays(tmp_path / "out", tmp_path / "pairs.parquet")
    # Each item by itself: layers of the backbone, then the head, by hand.
    state = {n: t.double().numpy() for n, t in exported.model.state_dict().items()}
    first, last = ([state[n] for n in state if n.startswith(part)] for part in ("backbone", "head"))
    hidden = np.maximum(np.float32(x) @ first[0].T + first[1], 0)
    scores = (hidden @ last[0].T + last[1])[..., 0]
    assert np.array_equal(found["best"], scores.argmax(1))
    np.testing.assert_allclose(
        found["probability"], 1 / (1 + np.exp(-abs(scores[:, 1] - scores[:, 0]))), rtol=1e-4
    )


def test_words_that_follow_and_their_classes_from_a_file_train_and_predict(tmp_path):
    support = pytest.importorskip("support.pretrained")
    support.save(tmp_path / "model", "llama")
    rng = np.random.default_rng(0)
    ids = [rng.integers(4, 22, rng.integers(3, 7)).tolist() for _ in range(40)]
    table = pa.table({"ids": ids, "tag": [[i % 3 for i in row] for row in ids]})
    pq.write_table(table, tmp_path / "text.parquet")
    targets = {"ids": "language", "tag": "tokens"}
    options = {"path": str(tmp_path / "text.parquet"), "targets": targets}
    backbone = {"path": str(tmp_path / "model"), "pooling": "none"}
    run = fedjoint.simulate(
        {
            "rounds": 1,
            "data": {
                "clients": 2,
                "source": {"name": "parquet", "options": options},
                "outputs": {"ids": 22},
            },
            "model": {"backbone": {"name": "hf", "options": backbone}},
            "engine": "inline",
            "output": {"dir": str(tmp_path / "runs")},
        }
    )
    length = max(map(len, ids))
    x = torch.tensor([row + [0] * (length - len(row)) for row in ids])
    for task, classes in (("ids", 22), ("tag", 3)):
        exported = export(run.path, task, client=0)
        exported.write(tmp_path / task)
        found = predict_arrays(tmp_path / task, tmp_path / "text.parquet")
        body = support.transformers.AutoModel.from_pretrained(tmp_path / "model")
        state = {n.removeprefix("backbone.body."): t for n, t in run.backbone.items()}
        body.load_state_dict(state)
        own = run.heads()[0]
        with torch.no_grad():
            hidden = body.eval()(x, attention_mask=(x != 0).long()).last_hidden_state
            scores = hidden @ own[f"heads.{task}.weight"].T + own[f"heads.{task}.bias"]
        there = (x != 0).numpy()
        assert scores.shape[-1] == classes
        assert np.array_equal(found[task][there], scores.argmax(-1).numpy()[there])


@pytest.mark.parametrize(("cell", "stored"), [([0, 255], "int64"), ([0.0, 0.5], "float64")])
def test_lists_of_numbers_are_told_from_bytes(cell, stored, tmp_path):
    pq.write_table(pa.table({"x": [cell, cell], "y": ["a", "b"]}), tmp_path / "t.parquet")
    source = Parquet(str(tmp_path / "t.parquet"), {"y": "multiclass"})
    assert source.inputs(torch.zeros(1, 2)).stored == stored
    x = source.load(DataConfig()).examples.x  # undivided
    assert x[0].tolist() == [float(each) for each in cell]
