"""An export gives what the run gave; a file of inputs gives what the arrays give."""

import csv
import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import safetensors.numpy
import torch
from support.folders import byte_changes, put
from support.plugins import plugin
from torch import nn

from fedjoint.config.load import check
from fedjoint.data.text import encode
from fedjoint.errors import UserError
from fedjoint.exports import predict as predicting
from fedjoint.exports.export import export
from fedjoint.exports.inputs import read_inputs
from fedjoint.model.inputs import Inputs
from fedjoint.model.tasks import Task
from fedjoint.problem import Problem, build_problem
from fedjoint.runs.directory import RunDir
from fedjoint.runs.ledger import Ledger
from fedjoint.runs.seal import parse, seal
from fedjoint.simulation import simulate

GREY = 16  # levels of the digits


def run(tmp_path, **settings):
    values = {
        "rounds": 2,
        "engine": {"name": "inline"},
        "output": {"dir": str(tmp_path / "runs")},
        "local": {"epochs": 1, "batch_size": 16, "optimiser": {"lr": 0.1}},
        "model": {"backbone": {"options": {"hidden": [16, 8]}}},
        **settings,
    }
    return simulate(check(values))


def digits(tmp_path, **settings):
    return run(tmp_path, **({"data": {"source": "digits", "clients": 12}} | settings))


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    return digits(tmp_path_factory.mktemp("digits"))


def table(path, header, rows):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def pooled(result):
    """Evaluate every client's export on its own raw test examples, as the run did."""
    data = unscaled(result.config)
    found = {}
    for column, task in enumerate(build_problem(result.config).tasks):
        total = 0
        for client in np.flatnonzero(data.tasks[:, column]).tolist():
            model = export(result.path, task.name, client=client).model
            test = data.client(client).test
            x = test.x * GREY if result.config.data.source.name == "digits" else test.x
            with torch.no_grad():
                total = total + task.metric_fn.statistics(model(x), test.y[task.name]).sum(0)
        found[task.name] = task.metric_fn.value(total)
    return found


def unscaled(config):
    tree = config.model_dump()
    if config.data.source.name == "csv":
        tree["data"]["source"]["options"]["standardise"] = False
    return build_problem(check(tree)).data


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"strategy": {"name": "ditto"}},
        {"strategy": {"name": "apfl"}},
        {"strategy": {"name": "fedbabu"}},
        {"strategy": {"name": "ifca"}},
        {"strategy": {"name": "cfl", "options": {"still": 1.0, "moving": 0.01}}},
        {"strategy": {"name": "fedamp"}},
        {"strategy": {"name": "fedmerge"}},
        {"strategy": {"name": "matu"}},
        {"strategy": {"name": "fedhca2"}, "model": {"heads": "shared"}},
        {"strategy": {"name": "recon", "options": {"after": 1, "share": 1.0}}},
        {"rounds": 4, "strategy": {"name": "auto", "options": {"trial": 1}}},
        {"local": {"method": "independent", "steps": 4}},
        {
            "model": {
                "backbone": {
                    "name": "cnn",
                    "options": {"hidden": [4], "batch_norm": True},
                },
                "norm": "local",
            }
        },
        {"strategy": {"name": "fedavg", "compression": {"name": "topk"}}},
    ],
    ids=lambda s: json.dumps(s) if s else "fedavg",
)
def test_a_clients_model_is_the_one_the_run_evaluated(tmp_path, settings):
    mix = [["digit"], ["loop", "ink"]]
    data = {"source": "digits", "clients": 5, "test_fraction": 0.6, "task_mix": mix}
    result = digits(tmp_path, data=data, **settings)
    assert pooled(result) == pytest.approx(result.metrics["test"], abs=2e-4)


def test_logits_by_hand(done, tmp_path):
    """What numpy makes of the tensors is what predict writes."""
    export(done.path, "digit", client=0).write(tmp_path)
    t = safetensors.numpy.load_file(tmp_path / "model.safetensors")
    rng = np.random.default_rng(0)
    x = rng.integers(0, 17, (5, 64)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    h = x / GREY
    for layer in ("backbone.1", "backbone.3"):
        h = np.maximum(h @ t[f"{layer}.weight"].T + t[f"{layer}.bias"], 0)
    logits = h @ t["head.weight"].T + t["head.bias"]
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    columns, rows = predicting.predict(tmp_path, tmp_path / "x.npy")
    assert columns == ["digit", "probability"]
    assert [int(row[0]) for row in rows] == p.argmax(1).tolist()
    np.testing.assert_allclose([float(row[1]) for row in rows], p.max(1), rtol=1e-5)


@pytest.mark.parametrize("task", ["digit", "centroid"])
def test_without_a_client_outputs_are_the_clients_mean(done, task):
    problem = build_problem(done.config)
    column = problem.data.task_names.index(task)
    clients = np.flatnonzero(problem.data.tasks[:, column])
    weights = torch.tensor([len(problem.data.client(c).train) for c in clients.tolist()])
    assert len(set(weights.tolist())) > 1
    x = torch.rand(7, 64, generator=torch.Generator().manual_seed(1)) * GREY
    with torch.no_grad():
        outputs = [export(done.path, task, client=int(c)).model(x) for c in clients]
        joint = export(done.path, task)
        expected = sum(w * o for w, o in zip(weights, outputs, strict=True)) / weights.sum()
        torch.testing.assert_close(joint.model(x), expected)
    assert joint.card.origin.clients == clients.tolist()
    assert "mean of the clients' heads" in joint.card.origin.how


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"strategy": {"name": "ditto"}}, "ditto"),
        ({"local": {"method": "independent"}}, "independent"),
        (
            {
                "model": {
                    "backbone": {
                        "name": "cnn",
                        "options": {"hidden": [4], "batch_norm": True},
                    },
                    "norm": "local",
                }
            },
            "backbone.2.",
        ),
    ],
)
def test_backbones_of_their_own_have_no_mean(tmp_path, settings, named):
    mix = [["digit"], ["loop"]]
    data = {"source": "digits", "clients": 4, "task_mix": mix}
    result = digits(tmp_path, data=data, **settings)
    with pytest.raises(UserError, match=named) as caught:
        export(result.path, "digit")
    assert "--client: 0, 2" in str(caught.value)


def text_problem(tmp_path):
    lines = [f"{i % 2} {'good' if i % 2 else 'bad'} word{i % 7} thing{i}" for i in range(80)]
    (tmp_path / "mood.txt").write_text("\n".join(lines) + "\n")
    data = {"source": plugin("text", path=str(tmp_path / "mood.txt"), vocabulary=64, max_length=5)}
    return run(
        tmp_path,
        data=data | {"partition": "iid", "clients": 2},
        model={
            "backbone": {
                "name": "text",
                "options": {"hidden": [8], "embedding": 4},
            }
        },
    )


SINGLE = {"data": {"source": "digits", "clients": 2, "task_mix": [["digit"]]}}

MODELS = {
    "mlp": SINGLE,
    "cnn": SINGLE
    | {
        "model": {
            "backbone": {
                "name": "cnn",
                "options": {"hidden": [4, 8], "batch_norm": True},
            }
        }
    },
    "synthetic": {"data": {"source": "synthetic", "clients": 4}, "local": {"steps": 2}},
    "text": None,
}


@pytest.fixture(scope="module", params=MODELS)
def of_some_kind(request, tmp_path_factory):
    """Return an exported model."""
    settings, folder = MODELS[request.param], tmp_path_factory.mktemp(request.param)
    result = text_problem(folder) if settings is None else digits(folder, **settings)
    tasks = {"text": "mood", "synthetic": "task0"}
    return export(result.path, tasks.get(request.param, "digit"))


@pytest.mark.parametrize("format", ["safetensors", "export", "onnx"])
def test_formats_agree(of_some_kind, tmp_path, format):
    if format == "onnx":
        pytest.importorskip("onnxscript")
        pytest.importorskip("onnxruntime")
    exported = of_some_kind
    exported.write(tmp_path / "out", [format])
    shape = exported.example.shape[1:]
    for n in (1, 5):
        source = torch.Generator().manual_seed(n)
        x = torch.randint(0, 17, (n, *shape), generator=source).to(exported.example.dtype)
        with torch.no_grad():
            expected = exported.model(x)
        assert expected.shape[0] == n
        if format != "export":
            found = predicting._runner(tmp_path / "out", predicting.read_card(tmp_path / "out"))(x)
        else:
            found = torch.export.load(tmp_path / "out" / "model.pt2").module()(x).detach()
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_onnx_without_its_packages(done, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(UserError, match=r"fedjoint\[onnx\]"):
        export(done.path, "digit").write(tmp_path / "out", ["onnx"])
    assert not (tmp_path / "out").exists()


def test_a_folder_holds_one_model(done, tmp_path):
    export(done.path, "digit").write(tmp_path, ["safetensors", "export"])
    export(done.path, "loop").write(tmp_path, ["safetensors"])
    assert {f.name for f in tmp_path.iterdir()} == {"model.json", "model.safetensors"}
    assert predicting.read_card(tmp_path).target.name == "loop"


# Tables: scaled by their clients, with classes that have names


@pytest.fixture
def flowers(tmp_path):
    rng = np.random.default_rng(3)
    x = rng.normal(50, [1, 20, 5], (90, 3))
    kinds = np.array(["rose", "iris", "tulip"])[np.searchsorted([40, 60], x[:, 1])]
    rows = [[*(f"{v:.3f}" for v in values), kind] for values, kind in zip(x, kinds, strict=True)]
    path = table(tmp_path / "flowers.csv", ["a", "b", "c", "kind"], rows)
    data = {
        "source": plugin("csv", path=str(path), targets={"kind": "multiclass"}),
        "clients": 3,
    }
    return run(tmp_path, data=data | {"partition": "iid"}, local={"steps": 300}), rows


def test_raw_rows_are_scaled_as_in_the_run(flowers):
    result, _ = flowers
    assert pooled(result) == pytest.approx(result.metrics["test"], abs=2e-4)


def test_a_table_in_another_order(flowers, tmp_path):
    """Columns are found by name, others are ignored, and classes come by name."""
    result, rows = flowers
    export(result.path, "kind", client=1).write(tmp_path / "out")
    mixed = [[c, "junk", a, b] for a, b, c, _ in rows]
    path = table(tmp_path / "new.csv", ["c", "note", "a", "b"], mixed)
    _, found = predicting.predict(tmp_path / "out", path)
    x = torch.tensor([[float(cell) for cell in row[:3]] for row in rows])
    with torch.no_grad():
        best = export(result.path, "kind", client=1).model(x).argmax(1)
    assert [row[0] for row in found] == [["iris", "rose", "tulip"][k] for k in best]
    right = np.mean([said == row[-1] for (said, _), row in zip(found, rows, strict=True)])
    assert right > 0.8  # each is about a third


def test_the_mean_is_scaled_by_the_pooled_training_examples(flowers):
    result, _ = flowers
    raw = unscaled(result.config)
    x = np.concatenate([raw.client(c).train.x.numpy() for c in range(3)]).astype(float)
    model = export(result.path, "kind").model
    np.testing.assert_allclose(model.mean, x.mean(0), rtol=1e-5)
    np.testing.assert_allclose(model.scale, x.std(0), rtol=1e-5)


def test_a_node_with_data_of_its_own(flowers, tmp_path):
    """Clients 7, 5 and 9 live on a node: its data and ids, its state file, no state in the run."""
    from fedjoint.node.store import StateStore

    result, _ = flowers
    run, states = RunDir.open(result.path), result.heads()
    node = tmp_path / "node.sqlite"
    ids = [7, 5, 9]
    StateStore(node, run.id).write(2, {id: states[place] for place, id in enumerate(ids)})
    expected = export(result.path, "kind", client=1).model.head.weight
    ledger = Ledger(np.array(sorted(ids)), np.full(3, 2))
    for keep in (run.checkpoint, lambda last: run.finish(last, run.records())):
        keep(replace(run.latest(), ledger=ledger))
    run.state.unlink()
    run.mark("done", deployed=True)
    with pytest.raises(UserError, match="live on its nodes"):
        export(result.path, "kind")
    with pytest.raises(UserError, match="--clients"):
        export(result.path, "kind", state=node)
    moved = (tmp_path / "flowers.csv").rename(tmp_path / "moved.csv")
    found = export(
        result.path,
        "kind",
        client=5,
        state=node,
        clients=ids,
        data={"source": {"options": {"path": str(moved)}}},
    )
    torch.testing.assert_close(found.model.head.weight, expected)
    assert found.card.origin.clients == [5]


# Other kinds of input


def test_sentences(tmp_path):
    result = text_problem(tmp_path)
    exported = export(result.path, "mood", client=0)
    exported.write(tmp_path / "out")
    lines = ["good word1 thing3", "bad", "Bad  word2\r", "a b c d e f g"]
    (tmp_path / "new.txt").write_bytes("\n".join(lines).encode())
    _, rows = predicting.predict(tmp_path / "out", tmp_path / "new.txt")
    with torch.no_grad():
        logits = exported.model(encode(lines, 5, 64))
    assert [int(row[0]) for row in rows] == logits.argmax(1).tolist()
    (tmp_path / "new.txt").write_text("good\n\nbad\n")
    with pytest.raises(UserError, match=r"new.txt:2: no words"):
        predicting.predict(tmp_path / "out", tmp_path / "new.txt")


def test_images(tmp_path):
    """Whole numbers of an IDX file and of an array are scaled as in training; floats are not."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (60, 6, 5), np.uint8)
    head = bytes([0, 0, 8])
    sizes = b"".join(n.to_bytes(4, "big") for n in pixels.shape)
    (tmp_path / "images-idx3-ubyte").write_bytes(head + b"\3" + sizes + pixels.tobytes())
    labels = (pixels.mean((1, 2)) > 127).astype(np.uint8)
    (tmp_path / "labels-idx1-ubyte").write_bytes(
        head + b"\1" + (60).to_bytes(4, "big") + labels.tobytes()
    )
    paths = [str(tmp_path / name) for name in ("images-idx3-ubyte", "labels-idx1-ubyte")]
    result = run(
        tmp_path,
        data={"source": plugin("idx", path=paths), "clients": 2, "partition": "iid"},
        model={"backbone": plugin("cnn", hidden=[4])},
    )
    export(result.path, "label").write(tmp_path / "out")
    np.save(tmp_path / "bytes.npy", pixels)
    np.save(tmp_path / "wide.npy", pixels.astype(np.int64))
    np.save(tmp_path / "floats.npy", pixels[:, None].astype(np.float32) / np.float32(255))
    found = [
        predicting.predict(tmp_path / "out", tmp_path / name)
        for name in ("images-idx3-ubyte", "bytes.npy", "wide.npy", "floats.npy")
    ]
    assert found[0] == found[1] == found[2] == found[3]
    with torch.no_grad():
        logits = export(result.path, "label").model(torch.from_numpy(pixels / 255).float()[:, None])
    assert [int(row[0]) for row in found[0][1]] == logits.argmax(1).tolist()
    with pytest.raises(UserError, match="reads no table"):
        predicting.predict(tmp_path / "out", table(tmp_path / "x.csv", ["a"], [[1]]))
    np.save(tmp_path / "large.npy", pixels.astype(np.float32))
    with pytest.raises(UserError, match=r"large.npy: row 0 .* the model reads pixels"):
        predicting.predict(tmp_path / "out", tmp_path / "large.npy")


def test_rows_of_every_kind():
    from fedjoint.exports.model import Target

    output = torch.tensor([[2.0, -1.0]])
    many = Target(name="t", kind="multilabel", outputs=2)
    assert predicting.columns(many) == ["t.0", "t.1", "probability.0", "probability.1"]
    (row,) = predicting.rows(many, output)
    assert row[:2] == ["1", "0"]
    np.testing.assert_allclose([float(c) for c in row[2:]], 1 / (1 + np.exp([-2, 1])), rtol=1e-6)
    value = Target(name="t", kind="regression", outputs=2)
    assert predicting.columns(value) == ["t.0", "t.1"]
    assert predicting.rows(value, output) == [["2.0", "-1.0"]]
    # One class has a name, the other was declared but never seen.
    named = Target(name="t", kind="multiclass", outputs=2, classes=["rose"])
    assert [row[0] for row in predicting.rows(named, torch.eye(2))] == ["rose", "1"]


# Code of one's own


class Curved(nn.Module):
    def __init__(self, features):
        super().__init__()
        self.layer = nn.Linear(features, 2)

    def forward(self, features):
        return self.layer(features).tanh()


def test_a_problem_of_ones_own(tmp_path):
    described = build_problem(check({"data": {"source": "digits", "clients": 3}}))
    problem = Problem(
        [
            Task(t.name, t.kind, t.outputs, Curved if t.outputs == 2 else None)
            for t in described.tasks
        ],
        lambda: nn.Sequential(nn.Linear(64, 6), nn.ReLU()),
        described.data,
        described.example,
    )
    config = check(
        {"rounds": 1, "engine": {"name": "inline"}, "output": {"dir": str(tmp_path / "runs")}}
    )
    result = simulate(config, problem)
    with pytest.raises(UserError, match="passed from Python"):
        export(result.path, "digit")
    with pytest.raises(UserError, match="not linear"):
        export(result.path, "parity", problem=problem)
    exported = export(result.path, "parity", client=1, problem=problem)
    exported.write(tmp_path / "out", ["safetensors", "export"])
    x = torch.rand(3, 64)
    with torch.no_grad():
        found = torch.export.load(tmp_path / "out" / "model.pt2").module()(x)
        torch.testing.assert_close(found, exported.model(x))
    np.save(tmp_path / "x.npy", x.numpy())
    with pytest.raises(UserError, match="code of your own"):
        predicting.predict(tmp_path / "out", tmp_path / "x.npy")


def test_a_card_runs_no_code(done, tmp_path):
    export(done.path, "digit").write(tmp_path)
    card = parse((tmp_path / "model.json").read_bytes())
    card["backbone"]["backbone"] = "os:abort"
    (tmp_path / "model.json").write_text(json.dumps(seal(card)))
    np.save(tmp_path / "x.npy", np.zeros((1, 64), np.float32))
    with pytest.raises(UserError, match="code of your own"):
        predicting.predict(tmp_path, tmp_path / "x.npy")


# Bad input


@pytest.fixture
def model(done, tmp_path):
    export(done.path, "digit").write(tmp_path / "model")
    return tmp_path / "model"


NAMES = [f"pixel_{r}_{c}" for r in range(8) for c in range(8)]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("x.csv", [NAMES, ["1"] * 64, ["1"] * 63], r"x.csv:3: 63 cells"),
        ("x.csv", [NAMES, ["1"] * 63 + ["nan"]], r"x.csv:2: 'pixel_7_7' is 'nan'"),
        ("x.csv", [NAMES, ["1"] * 63 + ["five"]], r"x.csv:2: 'pixel_7_7' is 'five'"),
        ("x.csv", [["pixl_0_0", *NAMES[1:]], ["1"] * 64], r"x.csv:1: .*'pixel_0_0'.*'pixl_0_0'"),
        ("x.csv", [["1"] * 64], r"x.csv:1: two columns have the same name, '1'"),
        ("x.csv", [NAMES], r"x.csv: the table has no rows"),
        ("x.npy", np.zeros((2, 63)), r"\(2, 63\); the model reads \[n, \*\(64,\)\]"),
        ("x.npy", np.full((2, 64), np.inf), r"row 0"),
        ("x.npy", np.array([{"a": 1}], dtype=object), r"not an array of numbers"),
        ("x.npy", b"junk", r"not an array of numbers"),
        ("x.txt", b"hello\n", r"reads no text"),
        ("x-idx3-ubyte", b"junk", r"not an IDX file"),
        ("x.pdf", b"junk", r"unknown kind of file"),
        ("x.csv", None, r"no such file"),
    ],
)
def test_malformed_files(model, tmp_path, name, content, words):
    path = tmp_path / name
    if isinstance(content, list):
        table(path, content[0], content[1:])
    elif isinstance(content, np.ndarray):
        np.save(path, content, allow_pickle=True)
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=words) as caught:
        predicting.predict(model, path)
    assert "\n" not in str(caught.value)


def resealed(old, new):
    """Return what changes a card and its checksum with it."""
    return lambda data: json.dumps(
        seal(json.loads(json.dumps(parse(data)).encode().replace(old, new)))
    ).encode()


@pytest.mark.parametrize(
    ("file", "change", "words"),
    [
        ("model.json", lambda data: b"{", r"model.json: not a card"),
        ("model.json", lambda data: data.replace(b"linear", b"curved"), r"not a card: .*checksum"),
        ("model.json", resealed(b"linear", b"curved"), r"model.json: head"),
        ("model.json", resealed(b"16,", b"17,"), r"do not fit"),
        ("model.safetensors", lambda data: data[:-4], r"model.safetensors: not the model that"),
        ("model.safetensors", lambda data: data[:-1] + b"\x01", r"not the model that model.json"),
    ],
)
def test_damaged_models(model, tmp_path, file, change, words):
    np.save(tmp_path / "x.npy", np.zeros((1, 64)))
    (model / file).write_bytes(change((model / file).read_bytes()))
    with pytest.raises(UserError, match=words):
        predicting.predict(model, tmp_path / "x.npy")


def test_after_any_change_of_a_model_the_same_answer_or_one_line(done, model, tmp_path):
    np.save(tmp_path / "x.npy", np.arange(64.0)[None])
    right = predicting.predict(model, tmp_path / "x.npy")
    export(done.path, "loop").write(tmp_path / "other")
    refused = 0
    for path in sorted(model.iterdir()):
        data = path.read_bytes()
        others = ("another model's", (tmp_path / "other" / path.name).read_bytes())
        for what, new in [others, *byte_changes(data, flips=40)]:
            put(path, new)
            try:
                assert predicting.predict(model, tmp_path / "x.npy") == right, what
            except UserError as error:
                assert ("\n" not in str(error) and path.name in str(error)) or "model." in str(
                    error
                )
                refused += 1
            path.write_bytes(data)
    assert refused > 80


def test_the_commands(done, tmp_path, command):
    rows = np.random.default_rng(5).integers(0, 17, (3, 64)).tolist()
    path = table(tmp_path / "x.csv", NAMES, rows)
    assert command("export", done.path, "--task", "ink", "--output", "out")[0] == 0
    status, printed, _ = command("predict", "out", path)
    assert status == 0
    header, *cells = printed.splitlines()
    assert header == "ink"
    with torch.no_grad():
        expected = export(done.path, "ink").model(torch.tensor(rows).float())
    np.testing.assert_allclose([[float(c)] for c in cells], expected, rtol=1e-5)
    assert command("predict", "out", path, "--output", "said.csv")[:2] == (0, "")
    assert (tmp_path / "said.csv").read_text() == printed


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--task", "digt"], ["unknown task 'digt'", "did you mean 'digit'"]),
        (["--task", "digit", "--client", "1"], ["client 1 has not trained 'digit'", "0, 4, 6, 10"]),
        (["--task", "digit", "--state", "none"], ["none: no such file"]),
        (["--task", "digit", "--format", "onx"], ["unknown format", "did you mean 'onnx'"]),
        (["--task", "digit", "--clients", "a"], ["--clients a"]),
        (["--task", "digit", "--data", "."], ["--data needs --clients"]),
    ],
)
def test_one_clear_line(done, tmp_path, command, arguments, words):
    status, _, errors = command("export", done.path, *arguments, "--output", "out")
    assert status == 2
    (line,) = errors.strip().splitlines()
    assert line.startswith("error: ") and all(word in line for word in words), line
    assert not list(tmp_path.iterdir())


# Targets in units of their own


@pytest.fixture
def marks(tmp_path):
    """Clients whose marks have means and deviations of their own, in the thousands."""
    rng = np.random.default_rng(5)
    rows = [
        [f"s{c}", *x.tolist(), 1000 * (c + 1) + 300 * x[0] - 200 * x[1]]
        for c in range(3)
        for x in rng.normal(size=(30 + 10 * c, 2))
    ]
    file = table(tmp_path / "marks.csv", ["school", "a", "b", "mark"], rows)
    source = plugin("csv", path=str(file), targets={"mark": "regression"}, client_column="school")
    return run(tmp_path, rounds=8, data={"source": source, "partition": "natural"})


def test_an_exported_model_predicts_in_the_targets_units(marks, tmp_path):
    assert marks.metrics["test"]["mark"] > 0.9
    assert pooled(marks) == pytest.approx(marks.metrics["test"], abs=1e-4)
    data = unscaled(marks.config)
    x = torch.cat([data.client(c).test.x for c in range(3)])
    weights = torch.tensor([len(data.client(c).train) for c in range(3)])
    with torch.no_grad():
        outputs = [export(marks.path, "mark", client=c).model(x) for c in range(3)]
        joint = export(marks.path, "mark")
        assert all(o.mean().round(decimals=-3) == 1000 * (c + 1) for c, o in enumerate(outputs))
        # Features are scaled by each client's own moments there, and here by the pooled ones.
        scaled = [export(marks.path, "mark", client=c) for c in range(3)]
        for own in scaled:
            own.model.mean, own.model.scale = joint.model.mean, joint.model.scale
        expected = sum(w * own.model(x) for w, own in zip(weights, scaled, strict=True))
        torch.testing.assert_close(joint.model(x), expected / weights.sum())
    joint.write(tmp_path / "out")
    file = table(tmp_path / "x.csv", ["a", "b"], x.tolist())
    columns, rows = predicting.predict(tmp_path / "out", file)
    assert columns == ["mark"]
    found = torch.tensor([[float(cell) for cell in row] for row in rows])
    torch.testing.assert_close(found, joint.model(x).detach())


@pytest.mark.parametrize(
    ("name", "text"), [("x.csv", "b,a\n2,1\n"), ("X.CSV", "b,a\n2,1\n"), ("x.tsv", "b\ta\n2\t1\n")]
)
def test_a_table_is_read_by_its_ending(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    inputs = Inputs(shape=(2,), dtype="float32", columns=["a", "b"])
    assert read_inputs(tmp_path / name, inputs).tolist() == [[1, 2]]
