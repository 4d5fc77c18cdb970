"""Ensembles: what they predict by hand, their weights against SciPy, and those of runs."""

import csv

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import nn

from fedjoint.cli import load_command
from fedjoint.config.load import check
from fedjoint.data.sources import csv as csv_source
from fedjoint.errors import UserError
from fedjoint.exports.ensemble import EnsembleModel, fitted, mixed
from fedjoint.exports.export import export
from fedjoint.exports.model import load, read_card
from fedjoint.exports.predict import predict
from fedjoint.exports.together import Measured, Together, ensemble
from fedjoint.model.tasks import Task
from fedjoint.problem import build_problem
from fedjoint.simulation import simulate

WEIGHTS = torch.tensor([0.2, 0.5, 0.3])


def outputs(seed=0, rows=40, columns=4):
    return torch.randn(3, rows, columns, generator=torch.Generator().manual_seed(seed)) * 2


def test_probabilities_are_averaged_and_values_too():
    of = outputs()
    mean = torch.einsum("m,mno->no", WEIGHTS, of.softmax(2))
    torch.testing.assert_close(mixed(of, WEIGHTS, "multiclass").softmax(1), mean)
    mean = torch.einsum("m,mno->no", WEIGHTS, of.sigmoid())
    torch.testing.assert_close(mixed(of, WEIGHTS, "multilabel").sigmoid(), mean)
    mean = 0.2 * of[0] + 0.5 * of[1] + 0.3 * of[2]
    torch.testing.assert_close(mixed(of, WEIGHTS, "regression"), mean)


def test_a_member_of_weight_zero_says_nothing():
    of, alone = outputs(), torch.tensor([0.0, 1.0, 0.0])
    for kind in ("multiclass", "multilabel", "regression"):
        found = mixed(of, alone, kind)
        expected = of[1].log_softmax(1) if kind == "multiclass" else of[1]
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["multiclass", "multilabel", "regression"])
@pytest.mark.parametrize("seed", range(3))
def test_weights_are_those_of_scipy(kind, seed):
    of = outputs(seed)
    random = torch.Generator().manual_seed(seed + 10)
    truth = mixed(of, torch.tensor([0.6, 0.4, 0.0]), "regression")
    truth = truth + torch.randn(truth.shape, generator=random)
    labels = {"multiclass": truth.argmax(1), "multilabel": (truth > 0).float()}.get(kind, truth)

    def loss(w):
        whole = mixed(of.double(), torch.from_numpy(w), kind)
        if kind == "multiclass":
            return float(nn.functional.cross_entropy(whole, labels))
        if kind == "multilabel":
            return float(nn.functional.binary_cross_entropy_with_logits(whole, labels.double()))
        return float(nn.functional.mse_loss(whole, labels.double()))

    best = minimize(
        loss,
        np.full(3, 1 / 3),
        bounds=[(1e-9, 1)] * 3,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
        method="SLSQP",
        options={"ftol": 1e-12, "maxiter": 300},
    )
    found = fitted(of, labels, kind)
    assert float(found.sum()) == pytest.approx(1) and (found >= 0).all()
    assert loss(found.clamp(min=1e-9).numpy()) == pytest.approx(best.fun, abs=1e-5)
    np.testing.assert_allclose(found, best.x, atol=5e-3)


def test_without_validation_examples_all_weigh_alike():
    of = torch.zeros(4, 0, 3)
    assert fitted(of, torch.zeros(0, dtype=torch.int64), "multiclass").tolist() == [0.25] * 4


def config(tmp_path, **more):
    tree = {
        "rounds": 3,
        "engine": "inline",
        "output": {"dir": str(tmp_path / "runs")},
        "data": {"clients": 6, "valid_fraction": 0.2, "task_mix": [["digit", "ink"]]},
        "local": {"epochs": 1, "batch_size": 16, "optimiser": {"lr": 0.1}},
        "model": {"backbone": {"options": {"hidden": [16, 8]}}},
    }
    return check(tree | more)


@pytest.mark.parametrize("task", ["digit", "ink"])
def test_heads_of_the_clients_are_one_model(tmp_path, task):
    run = simulate(config(tmp_path)).path
    load_command("export").main(
        [str(run), "--task", task, "--ensemble", "--output", str(tmp_path / "e")],
        standalone_mode=False,
    )
    model = load(tmp_path / "e", read_card(tmp_path / "e"))
    assert isinstance(model, EnsembleModel) and read_card(tmp_path / "e").members == 6
    # By hand, of the models that export writes for each client.
    singles = [export(run, task, client=client).model for client in range(6)]
    data = build_problem(config(tmp_path)).data
    x = data.client(0).test.x
    raw = x * singles[0].scale + singles[0].mean if singles[0].scale is not None else x
    with torch.no_grad():
        each = torch.stack([single(raw) for single in singles])
        kind = "regression" if task == "ink" else "multiclass"
        torch.testing.assert_close(
            model(raw), mixed(each, model.weights, kind), rtol=1e-4, atol=1e-5
        )
    found = ensemble([run], task)
    (own,) = (t for t in build_problem(config(tmp_path)).tasks if t.name == task)
    with torch.no_grad():
        ys = torch.cat([data.client(c).test.y[task] for c in range(6)])
        out = torch.cat([singles[2].of_scaled(data.client(c).test.x) for c in range(6)])
    value = own.metric_fn.value(own.metric_fn.statistics(out, ys).double().sum(0))
    assert found.members[2].test == pytest.approx(value)


def test_an_ensemble_predicts_a_file(tmp_path, capsys):
    run = simulate(config(tmp_path)).path
    ensemble([run], "digit").exported.write(tmp_path / "e", ["safetensors"])
    rows = np.random.default_rng(0).integers(0, 17, (4, 64))
    np.save(tmp_path / "x.npy", rows.astype(np.float32))
    load_command("predict").main(
        [str(tmp_path / "e"), str(tmp_path / "x.npy"), "--output", str(tmp_path / "p.csv")],
        standalone_mode=False,
    )
    model = load(tmp_path / "e", read_card(tmp_path / "e"))
    with torch.no_grad():
        sure, said = model(torch.from_numpy(rows).float()).softmax(1).max(1)
    with (tmp_path / "p.csv").open() as file:
        read = list(csv.DictReader(file))
    assert [int(row["digit"]) for row in read] == said.tolist()
    np.testing.assert_allclose([float(r["probability"]) for r in read], sure, rtol=1e-5)


def test_more_members_read_a_file_no_more_often(tmp_path, monkeypatch):
    rows = np.random.default_rng(0).integers(0, 3, (120, 3))
    text = "\n".join(f"{a},{b},kind{k}" for a, b, k in rows.tolist())
    (tmp_path / "t.csv").write_text(f"a,b,kind\n{text}\n")
    options = {"path": str(tmp_path / "t.csv"), "targets": {"kind": "multiclass"}}
    reads = []
    own = csv_source.read_table
    monkeypatch.setattr(csv_source, "read_table", lambda *a: reads.append(1) or own(*a))
    out, counts = {"output": {"dir": str(tmp_path)}}, []
    for clients in (2, 4):
        data = {"source": {"name": "csv", "options": options}, "clients": clients}
        run = simulate(check({"data": data, "rounds": 1, "engine": {"name": "inline"}, **out}))
        reads.clear()
        found = ensemble([run.path], "kind")
        assert len(found.members) == clients
        counts.append(len(reads))
    assert counts[0] == counts[1]


def test_backbones_of_several_strategies_are_one_model(tmp_path):
    runs = [
        simulate(config(tmp_path, strategy={"name": name})).path for name in ("fedavg", "fedavgm")
    ]
    load_command("export").main(
        [str(runs[0]), "--task", "digit", "--with", str(runs[1])], standalone_mode=False
    )
    folder = runs[0] / "export" / "digit-ensemble"
    model = load(folder, read_card(folder))
    singles = [export(run, "digit").model for run in runs]
    x = torch.rand(5, 64) * 16
    with torch.no_grad():
        each = torch.stack([single(x) for single in singles])
        torch.testing.assert_close(model(x), mixed(each, model.weights, "multiclass"))
    same = runs[1].parent / "." / runs[1].name / ".." / runs[1].name  # by another path
    with pytest.raises(UserError, match="is the same run as"):
        ensemble([runs[0], runs[1], same], "digit")
    other = simulate(config(tmp_path, seed=1)).path
    with pytest.raises(UserError, match="another seed than"):
        ensemble([runs[0], other], "digit")
    wider = simulate(config(tmp_path, model={"backbone": {"options": {"hidden": [8, 8]}}})).path
    with pytest.raises(UserError, match=r"another model.backbone than"):
        ensemble([runs[0], wider], "digit")
    with pytest.raises(UserError, match="unknown task 'nobody'"):
        ensemble([runs[0]], "nobody")


@pytest.fixture(scope="module")
def clinics(tmp_path_factory):
    """Two runs whose clients' features have means of their own; the raw test examples of each."""
    folder = tmp_path_factory.mktemp("clinics")
    rng = np.random.default_rng(3)
    rows = []
    for i in range(360):
        k, (a, b) = i % 6, rng.normal(size=2)
        rows.append(["abcdef"[k], a * (1 + k) + 20 * k, b + 5 * k, int(a + b / 2 > 0), a + 10 * k])
    with (folder / "t.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["clinic", "a", "b", "diag", "stay"], *rows])
    options = {
        "path": str(folder / "t.csv"),
        "targets": {"diag": "multiclass", "stay": "regression"},
        "client_column": "clinic",
    }
    tree = {
        "rounds": 3,
        "engine": "inline",
        "output": {"dir": str(folder / "runs")},
        "data": {"partition": "natural", "source": {"name": "csv", "options": options}},
        "local": {"epochs": 2, "batch_size": 16, "optimiser": {"lr": 0.1}},
    }
    runs = [simulate(check(tree | {"strategy": {"name": name}})) for name in ("fedavg", "fedavgm")]
    options["standardise"] = False
    raw = build_problem(check(tree)).data
    return [run.path for run in runs], [raw.client(client).test for client in range(6)]


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("task", ["diag", "stay"])
def test_what_is_told_of_an_ensemble_is_what_its_file_predicts(clinics, task, several, tmp_path):
    runs, tests = clinics
    found = ensemble(runs if several else runs[:1], task)
    found.exported.write(tmp_path / "e")
    x, y = (np.concatenate(part) for part in zip(*((t.x, t.y[task]) for t in tests), strict=True))
    with (tmp_path / "new.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["a", "b"], *x.tolist()])

    def worth(said):
        if task == "diag":
            return float(np.mean(said == y))
        return 1 - float(np.sum((said - y[:, 0]) ** 2) / np.sum((y - y.mean()) ** 2))

    _, rows = predict(tmp_path / "e", tmp_path / "new.csv")
    said = np.array([float(row[0]) for row in rows])
    assert found.whole.test == pytest.approx(worth(said), rel=1e-4, abs=1e-5)
    members = found.exported.model.members
    for client, (told, member) in enumerate(zip(found.members, members, strict=True)):
        one = export(runs[client if several else 0], task, client=None if several else client).model
        with torch.no_grad():
            outputs = one(torch.from_numpy(x))
            torch.testing.assert_close(member(torch.from_numpy(x)), outputs)
        own = outputs.argmax(1) if task == "diag" else outputs[:, 0]
        assert told.test == pytest.approx(worth(own.numpy()), rel=1e-4, abs=1e-5)


def test_scaling_that_is_not_the_clients_own_is_told(clinics, caplog):
    (run, _), _ = clinics
    export(run, "diag", client=2)
    assert not caplog.records
    export(run, "diag")
    (line,) = [record.getMessage() for record in caplog.records]
    assert "--client ID writes that of a client" in line and "\n" not in line


def test_scalings_that_differ_by_chance_are_not_told(tmp_path, caplog):
    rng = np.random.default_rng(0)
    rows = [[*rng.normal(size=8).tolist(), i % 2] for i in range(400)]
    names = [*(f"x{i}" for i in range(8)), "kind"]
    with (tmp_path / "t.csv").open("w", newline="") as file:
        csv.writer(file).writerows([names, *rows])
    options = {"path": str(tmp_path / "t.csv"), "targets": {"kind": "multiclass"}}
    data = {"source": {"name": "csv", "options": options}, "clients": 20, "partition": "iid"}
    out = {"output": {"dir": str(tmp_path)}, "engine": "inline"}
    run = simulate(check({"data": data, "rounds": 1, **out}))
    caplog.clear()
    export(run.path, "kind")
    assert not caplog.records


def test_the_best_member_is_that_of_the_best_validation():
    nan = float("nan")
    rows = [Measured("a", 0.5, 0.8, 0.1), Measured("b", 0.5, 0.9, 0.0), Measured("c", 0, nan, 1.0)]
    whole = Measured("ensemble", None, 0.9, 0.5)
    up, down = Task("t", "multiclass", 2), Task("t", "regression", 1, metric="rmse")
    assert Together(None, rows, whole, up).best.name == "b"
    assert Together(None, rows, whole, down).best.name == "a"
