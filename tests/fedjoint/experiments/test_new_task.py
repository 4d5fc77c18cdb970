"""A task that a run did not train reads what the run's backbone was trained on."""

import numpy as np
import pytest
import torch
from support import tables

from fedjoint.config.load import check
from fedjoint.errors import UserError
from fedjoint.experiments import transfer as module
from fedjoint.experiments.new_task import built_for
from fedjoint.experiments.transfer import transfer
from fedjoint.experiments.unseen import generalise
from fedjoint.model.tasks import Task
from fedjoint.problem import Problem, build_problem
from fedjoint.runs.directory import RunDir
from fedjoint.runs.seal import write_sealed
from fedjoint.simulation import simulate

TARGET = 'data.source.options.targets={q="multiclass"}'
FEW = {"sizes": [20], "repeats": 1, "steps": 1}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a table, and a run of it without the column of the new task."""
    folder = tmp_path_factory.mktemp("trained")
    return folder, simulate(tables.config(folder, tables.write(folder / "v.csv"))).path


@pytest.fixture
def examples(monkeypatch):
    """What of the data the new task is learnt from."""
    found, owner = [], module._owner
    monkeypatch.setattr(module, "_owner", lambda *given: found.append(owner(*given)) or found[-1])
    return found


def inputs(client):
    return torch.cat([client.train.x, client.valid.x, client.test.x])


@pytest.mark.parametrize(
    "columns",
    [tables.COLUMNS, ("d", "q", "b", "more", "a", "clinic", "diag")],
    ids=["own", "other"],
)
@pytest.mark.parametrize("settings", [[], ["data.source.options.features=['d','b','a']"]])
def test_columns_are_the_run_s_in_its_order(trained, tmp_path, examples, columns, settings):
    _, run = trained
    transfer(run, "q", settings=[TARGET], **FEW)
    other = f"data.source.options.path={tables.write(tmp_path / 'w.csv', columns)}"
    transfer(run, "q", settings=[TARGET, other, *settings], **FEW)
    expected, found = map(inputs, examples)
    assert expected.shape == (160, 3)
    # Of clients that standardise, splits decide the numbers: rows and their labels are the same.
    torch.testing.assert_close(found, expected)


def test_what_the_backbone_was_trained_on_is_no_new_task(tmp_path):
    path = tables.write(tmp_path / "v.csv")
    run = simulate(tables.config(tmp_path, path, drop=[])).path
    with pytest.raises(UserError, match="its backbone was trained on 'q' as an input"):
        transfer(run, "q", settings=[TARGET], **FEW)


def test_other_columns_are_refused_by_both_names(trained, tmp_path):
    _, run = trained
    less = f"data.source.options.path={tables.write(tmp_path / 'n.csv', ['clinic', 'a', 'd', 'q'])}"
    for settings, said in [
        (["data.source.options.features=['d','b']"], "trained on the columns a, b, d, and given d"),
        ([less], "trained on the columns a, b, d; unknown column 'b': allowed are a, clinic, d, q"),
        (["data.source.options.standardise=false"], "standardised features, and given unscaled"),
    ]:
        with pytest.raises(UserError, match=said):
            transfer(run, "q", settings=[TARGET, *settings], **FEW)


def test_a_problem_from_python_is_compared_too(trained):
    folder, run = trained

    def problem(features):
        path = str(folder / "v.csv")
        return build_problem(tables.config(folder, path, targets=["q"], drop=[], features=features))

    assert transfer(run, "q", problem=problem(["a", "b", "d"]), **FEW).points
    with pytest.raises(UserError, match="trained on the columns a, b, d, and given them as d, b"):
        transfer(run, "q", problem=problem(["d", "b", "a"]), **FEW)
    rows = [(torch.rand(4), i % 2) for i in range(60)]
    small = check({"data": {"clients": 2}})
    own = Problem.from_datasets(
        [Task("q", "multiclass", 2)], lambda: torch.nn.Linear(4, 8), rows, config=small
    )
    with pytest.raises(UserError, match="trained on inputs of 3, and given 4 here"):
        transfer(run, "q", problem=own, **FEW)


def test_arrays_are_read_by_the_name_that_the_run_read(tmp_path):
    rng = np.random.default_rng(2)
    x, z = rng.normal(size=(2, 120, 3)).astype(np.float32)
    labels = {"old": (z[:, 0] > 0).astype(int), "new": (z[:, 1] > 0).astype(int)}
    np.savez(tmp_path / "a.npz", x=x, z=z, **labels)
    options = {"path": str(tmp_path / "a.npz"), "targets": {"old": "multiclass"}, "input": "z"}
    config = {
        "rounds": 1,
        "data": {"clients": 2, "source": {"name": "npz", "options": options}},
        "model": {"backbone": {"name": "mlp", "options": {"hidden": [4]}}},
        "engine": "inline",
        "output": {"dir": str(tmp_path / "runs")},
    }
    run = simulate(config).path
    targets = 'data.source.options.targets={new="multiclass"}'
    with pytest.raises(UserError, match=r"trained on 'z', and given 'x' here: set .*input = 'z'"):
        transfer(run, "new", settings=[targets, "data.source.options.input=x"], **FEW)
    given = f'{{path="{options["path"]}", targets={{new="multiclass"}}}}'
    anew = f"data.source.options={given}"
    for settings in ([targets], [anew]):  # beside the run's settings, and in their place
        assert transfer(run, "new", settings=settings, **FEW).points


def test_a_task_that_is_not_there_is_said_with_how_to_name_it(trained, tmp_path):
    _, run = trained
    with pytest.raises(UserError, match=r"unknown task 'q': .* diag, .*options\.targets='{ q = "):
        transfer(run, "q", **FEW)
    for name in ("mood", "urgent"):
        lines = "".join(f"{i % 2} word{i} {name}{i % 7}\n" for i in range(80))
        (tmp_path / f"{name}.txt").write_text(lines)
    source = {"name": "text", "options": {"path": {"mood": str(tmp_path / "mood.txt")}}}
    config = {
        "rounds": 1,
        "data": {"clients": 2, "source": source},
        "model": {"backbone": {"name": "kim", "options": {"embedding": 4, "maps": 2}}},
        "engine": "inline",
        "output": {"dir": str(tmp_path / "runs")},
    }
    text = simulate(config).path
    with pytest.raises(
        UserError, match=r"unknown task 'urgent': .*path='{ urgent = \"urgent.txt\""
    ):
        transfer(text, "urgent", **FEW)
    path = f"data.source.options.path={{urgent={str(tmp_path / 'urgent.txt')!r}}}"
    assert transfer(text, "urgent", settings=[path], **FEW).points


def test_clients_without_a_label_are_left_out_and_the_others_keep_their_splits(tmp_path):
    path = tables.write(tmp_path / "v.csv")
    some = tables.write(tmp_path / "s.csv", unlabelled="y")

    def data(file):
        tree = tables.config(tmp_path, file, targets=["q"], drop=["diag"]).model_dump()
        tree["data"]["task_mix"] = [["q"]]
        return build_problem(check(tree), build=built_for("q")).data

    whole, part = data(path), data(some)
    assert len(whole.sizes) == 4 and len(part.sizes) == 3
    for own, before in enumerate([0, 1, 3]):  # in the order of their names: w, x, y, z
        for split in ("train", "valid", "test"):
            first, second = getattr(part.client(own), split), getattr(whole.client(before), split)
            assert torch.equal(first.x, second.x) and torch.equal(first.y["q"], second.y["q"])
    run = simulate(tables.config(tmp_path, path)).path
    settings = [TARGET, f"data.source.options.path={some}"]
    assert transfer(run, "q", settings=settings, **FEW).points
    nobody = tables.write(tmp_path / "n.csv", unlabelled="wxyz")
    with pytest.raises(UserError, match="'q'"):
        transfer(run, "q", settings=[TARGET, f"data.source.options.path={nobody}"], **FEW)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"local": {"method": "independent"}}, "have backbones of their own .*independent"),
        (
            {"share": ["*", "!backbone.3.*"]},
            "3.bias, 3.weight of its backbone are its clients' own",
        ),
    ],
    ids=["never", "in part"],
)
def test_a_backbone_that_was_not_trained_in_common_is_refused(tmp_path, settings, said):
    config = tables.config(tmp_path, tables.write(tmp_path / "v.csv"), **settings)
    data = config.data.model_copy(update={"unseen_clients": 1})
    run = simulate(config.model_copy(update={"data": data})).path
    with pytest.raises(UserError, match=said):
        transfer(run, "q", settings=[TARGET], **FEW)
    with pytest.raises(UserError, match=said):
        generalise(run, [1])


@pytest.mark.parametrize("merge", [False, True])
def test_prototypes_without_a_merge_leave_the_backbone_as_it_was(tmp_path, merge):
    config = tables.config(tmp_path, tables.write(tmp_path / "v.csv"))
    strategy = {"name": "fedproto", "options": {"merge": merge}}
    run = simulate(check(config.model_dump() | {"strategy": strategy})).path
    if merge:
        assert transfer(run, "q", settings=[TARGET], **FEW).points
        return
    with pytest.raises(UserError, match=r"local method fedproto.*set its option merge = true"):
        transfer(run, "q", settings=[TARGET], **FEW)


def test_an_older_run_is_taken_with_a_warning_and_its_misfit_is_its_own(trained, tmp_path, caplog):
    folder, _ = trained
    older = RunDir.open(simulate(tables.config(tmp_path, str(folder / "v.csv"))).path)
    info = {name: value for name, value in older.info.items() if name not in ("run", "inputs")}
    write_sealed(older.path / "run.json", older.id, info)
    settings = [TARGET, "data.source.options.drop=['diag']"]
    assert transfer(older.path, "q", settings=settings, **FEW).points
    assert "does not say what its backbone reads" in caplog.text
    features = "data.source.options.features=['a','b']"
    with pytest.raises(
        UserError, match=r"^the run's backbone is not that of the model here"
    ) as got:
        transfer(older.path, "q", settings=[*settings, features], **FEW)
    assert "model.initial" not in str(got.value)


def test_of_one_backbone_none_is_chosen(trained):
    _, run = trained
    with pytest.raises(UserError, match=r"^the run has one backbone: leave --backbone out$"):
        transfer(run, "q", settings=[TARGET], backbone=99, **FEW)
