"""Every scenario is complete; the text and the tabular one hold the data they say."""

import gzip
import io
import runpy
import struct
import sys
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
from sklearn.datasets import load_breast_cancer

from fedjoint.config.data import DataConfig
from fedjoint.config.load import check
from fedjoint.config.scenario import scenario_config
from fedjoint.data.dataset import TEST, TRAIN
from fedjoint.errors import UserError
from fedjoint.experiments.client_tasks import compared
from fedjoint.problem import build_problem
from fedjoint.simulation import simulate
from fedjoint.simulations import (
    _images,
    cifar,
    letters,
    mnist,
    overlaid,
    scenes,
    tabular,
    text,
)


def _lines(times, *lines):
    """Each line several times, made different by its last word."""
    return "".join(f"{line} w{i}\n" for i in range(times) for line in lines)


QUESTIONS = ["0 how is it ?", "1 what film ?", "2 what is it short for ?"]
QUESTIONS += ["3 who was he ?", "4 where ?", "5 how far ?"]
SENTENCES = {
    "TREC.train.all": _lines(20, *QUESTIONS),
    "TREC.test.all": "".join(f"{question} other\n" for question in QUESTIONS),
    "mpqa.all": _lines(30, "0 complaining", "1 is happy"),
    "rt-polarity.all": _lines(30, "0 silly and tedious .", "1 a great film ."),
}


@pytest.fixture
def sentences(tmp_path, monkeypatch):
    folder = tmp_path / "data" / "text"
    folder.mkdir(parents=True)
    for name, lines in SENTENCES.items():
        (folder / name).write_text(lines)
    (folder / "stsa.binary.train").write_text("1 a great film .\n")
    monkeypatch.setenv("FEDJOINT_DATA", str(tmp_path / "data"))
    return folder


@pytest.mark.parametrize("name", ["digits", "conflict", "tabular", "text", "unlike"])
def test_a_scenario_is_a_script_and_trains_every_task(
    name, sentences, tmp_path, monkeypatch, capsys
):
    settings = ["data.clients=12", "data.min_examples=1", f"output.dir={tmp_path / 'runs'}"]
    words = [word for setting in settings for word in ("--set", setting)]
    monkeypatch.setattr(sys, "argv", [name, "--rounds", "2", "--engine", "inline", *words])
    # As in a new process.
    monkeypatch.delitem(sys.modules, f"fedjoint.simulations.{name}", raising=False)
    values = runpy.run_module(f"fedjoint.simulations.{name}", run_name="__main__")
    result = values["result"]
    assert [record.round for record in result.records] == [1, 2]
    tasks = [task.name for task in build_problem(result.config).tasks]
    assert list(result.metrics["test"]) == tasks and len(tasks) > 1
    assert all(result.records[-1].loss[task] > 0 for task in tasks)
    (run,) = (tmp_path / "runs").iterdir()
    assert (run / "objective.png").stat().st_size > 1000
    shown = capsys.readouterr().out
    assert f"{name}: after 2 rounds" in shown and shown.count("round 2: objective") == 1


def test_a_mistake_in_a_script_is_one_line(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["digits", "--set", "ronds=2"])
    monkeypatch.delitem(sys.modules, "fedjoint.simulations.digits", raising=False)
    with pytest.raises(SystemExit, match="2"):
        runpy.run_module("fedjoint.simulations.digits", run_name="__main__")
    (line,) = capsys.readouterr().err.splitlines()
    assert "did you mean 'rounds'" in line


def test_text_has_a_task_per_kind_of_sentence(sentences):
    tree = text.config()
    tree["data"] |= {"clients": 6}
    problem = build_problem(check(tree))
    assert [(task.name, task.outputs) for task in problem.tasks] == [
        ("TREC", 6),
        ("mpqa", 2),
        ("rt-polarity", 2),
    ]
    assert (problem.data.tasks.sum(1) == 1).all()
    parts = [problem.data.client(i) for i in range(6)]
    held = sum(len(c.train) + len(c.valid) + len(c.test) for c in parts)
    assert held == sum(lines.count("\n") for lines in SENTENCES.values())


def test_text_learns_separable_sentences(sentences, tmp_path):
    tree = text.config()
    tree |= {"rounds": 10, "engine": {"name": "inline"}, "output": {"dir": str(tmp_path)}}
    tree["data"] |= {"clients": 6}
    metrics = simulate(tree).metrics["test"]
    # Guessing is right half of the time on polarity, a sixth on questions.
    assert all(value and value > 0.9 for value in metrics.values()), metrics


def test_text_without_data_says_how_to_set_it(sentences, tmp_path, monkeypatch):
    (sentences / "mpqa.all").unlink()
    with pytest.raises(UserError, match=r"mpqa\.all: no such file or folder; .*FEDJOINT_DATA"):
        build_problem(scenario_config("text", []))
    monkeypatch.delenv("FEDJOINT_DATA")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"shared/data/text/TREC\.train\.all: .*FEDJOINT_DATA"):
        build_problem(scenario_config("text", []))


def test_letters_are_those_of_the_lines_and_each_is_to_follow_the_one_before(sentences):
    (sentences / "TREC.train.all").write_text("0 What is Zürich ?\n3 what is zürich ?\n1 who\n")
    (sentences / "TREC.test.all").write_text("1 who\n2 In 1984 .\n")
    found = letters.Letters(12).load(DataConfig())
    own = found.examples.y["questions"] >= 0
    x, y = found.examples.x[own.any(1)], found.examples.y["questions"][own.any(1)]
    letter = dict(enumerate("_" + letters.ALPHABET + "?"))
    assert ["".join(letter[i] for i in row) for row in x.tolist()] == [
        "who_________",
        "in 0000 .___",
        "what is z?ri",  # a letter that the alphabet lacks is one more; whoever begins so is kept
    ]
    assert torch.equal(y[:, :-1][own[own.any(1)][:, :-1]], x[:, 1:][own[own.any(1)][:, :-1]])
    assert found.split[own.any(1)].tolist() == [TEST, TEST, TRAIN]


def test_letters_train_every_task(sentences, tmp_path):
    for file in SENTENCES:
        (sentences / file).write_text("".join(f"0 {'ab' * i}{file[6]}\n" for i in range(20)))
    few = ["data.clients=3", "data.examples_per_client=4", "data.min_examples=1", "rounds=3"]
    more = ["data.source.options.length=30", "engine.name=inline", f"output.dir={tmp_path}"]
    result = simulate(scenario_config("letters", [*few, *more]))
    first, *_, last = (record.loss for record in result.records)
    assert list(last) == ["questions", "phrases", "reviews"]
    assert all(last[task] < first[task] for task in last)


def test_what_is_made_of_letters_depends_on_no_later_one(sentences):
    model = letters.window(None)
    x = torch.randint(1, letters.SYMBOLS, (1, 20))
    other = x.clone()
    other[:, 11] = other[:, 11] % (letters.SYMBOLS - 1) + 1
    differs = (model(x) != model(other)).any(2)[0]
    assert differs.nonzero()[:, 0].tolist() == list(range(11, 19))  # the next eight


@pytest.fixture
def images(tmp_path, monkeypatch):
    """A few made-up images in the files of MNIST and CIFAR-10."""
    pillow = pytest.importorskip("PIL.Image")
    rng = np.random.default_rng(0)
    (tmp_path / "vision" / "mnist").mkdir(parents=True)
    (tmp_path / "vision" / "cifar10").mkdir()
    for name, count in (("train", 160), ("t10k", 80)):
        pixels, labels = rng.integers(0, 256, (count, 28, 28)), np.arange(count) % 10
        for part, array in (("images-idx3", pixels), ("labels-idx1", labels)):
            head = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
            data = gzip.compress(head + array.astype(np.uint8).tobytes())
            (tmp_path / "vision" / "mnist" / f"{name}-{part}-ubyte.gz").write_bytes(data)
    for name, count in (("train", 160), ("test", 80)):
        files = []
        for image in rng.integers(0, 256, (count, 32, 32, 3)).astype(np.uint8):
            pillow.fromarray(image).save(file := io.BytesIO(), "png")
            files.append({"bytes": file.getvalue()})
        table = pyarrow.table({"img": files, "label": [i % 10 for i in range(count)]})
        pyarrow.parquet.write_table(table, tmp_path / "vision" / "cifar10" / f"{name}.parquet")
    monkeypatch.setenv("FEDJOINT_DATA", str(tmp_path))
    _images.digits.cache_clear()
    _images.objects.cache_clear()
    yield
    _images.digits.cache_clear()
    _images.objects.cache_clear()


@pytest.mark.parametrize("name", ["mnist", "cifar", "overlaid", "scenes"])
def test_images_train_every_task(name, images, tmp_path):
    few = ["data.examples_per_client=10", "rounds=1", "engine.name=inline"]
    few += [] if name == "scenes" else ["data.source.options.train=160"]
    result = simulate(scenario_config(name, [*few, f"output.dir={tmp_path}"]))
    tasks = [task.name for task in build_problem(result.config).tasks]
    assert list(result.metrics["test"]) == tasks and len(tasks) > 1
    assert all(result.records[-1].loss[task] > 0 for task in tasks)


def test_turned_digits_are_others_than_upright_ones(images):
    found = mnist.Turned(160, 80).load(DataConfig())
    y, x = found.examples.y, found.examples.x
    turned = y["turn"] >= 0
    assert turned.sum() == 40 + 20 and (y["digit"][turned] == -1).all()
    assert torch.equal(y["parity"][~turned], y["digit"][~turned] % 2)
    assert torch.equal(y["high"][~turned].bool(), y["digit"][~turned] > 4)
    raw, _ = _images.digits(160, test=False)
    for quarter in range(4):  # the image at 120 + quarter, turned back, is the file's
        back = np.rot90(x[120 + quarter, 0].numpy(), -quarter)
        assert (back == raw[120 + quarter, 0].numpy()).all()


def test_overlaid_digits_show_both(images):
    found = overlaid.Overlaid(160, 80).load(DataConfig())
    raw, digit = _images.digits(160, test=False)
    image = found.examples.x[5, 0]
    assert torch.equal(image[:8, :28], raw[5, 0, :8])  # where the other is not
    assert torch.equal(image[28:, 8:], raw[4, 0, 20:])
    assert torch.equal(image[8:28, 8:28], torch.maximum(raw[5, 0, 8:, 8:], raw[4, 0, :20, :20]))
    y = found.examples.y
    assert (int(y["left"][5]), int(y["right"][5])) == (int(digit[5]), int(digit[4]))


def test_attributes_of_objects_are_of_their_pixels(images):
    found = cifar.Objects(160, 80).load(DataConfig())
    x, y = found.examples.x, found.examples.y
    names = ["plane", "car", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    animals = [names[k] in "bird cat deer dog frog horse" for k in y["class"].tolist()]
    assert y["animal"].bool().tolist() == animals
    assert y["colour"][7].tolist() == pytest.approx(x[7].mean((1, 2)).tolist())
    grey = x[7].mean(0)
    quarters = [grey[:16, :16], grey[:16, 16:], grey[16:, :16], grey[16:, 16:]]
    assert int(y["bright"][7]) == int(np.argmax([float(q.mean()) for q in quarters]))


def test_scenes_agree_at_every_place():
    x, shape, depth = scenes.scenes(40)
    assert x.shape == (40, 3, 24, 24) and set(shape.unique().tolist()) == {0, 1, 2, 3}
    ground = shape == 0
    rows = torch.arange(24.0).view(-1, 1).expand(24, 24)
    far = (1 - rows / 23) * 0.4 + 0.6
    assert torch.equal(depth[ground], far.expand(40, 24, 24)[ground])
    assert (depth <= far).all()  # whatever is in front of the ground hides it
    edge = scenes.edges(shape)
    for n, i, j in ((0, 5, 5), (1, 12, 8), (2, 20, 20)):
        around = shape[n, i - 1 : i + 2, j - 1 : j + 2]
        assert bool(edge[n, i, j]) == bool((around != shape[n, i, j]).any())


@pytest.mark.parametrize(("name", "clients"), [("landmine", 29), ("school", 139)])
def test_fields_and_schools_are_tasks(name, clients):
    config = scenario_config(name, [])
    if not Path(config.data.source.options["path"]).exists():
        pytest.skip("the data are not here: set FEDJOINT_DATA")
    problem = build_problem(config)
    assert len(compared(config, problem)) == len(problem.data.sizes) == clients


def test_text_reads_files_of_one_s_own_without_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDJOINT_DATA", str(tmp_path / "nowhere"))
    for name in ("one", "two"):
        (tmp_path / f"{name}.txt").write_text(_lines(20, f"0 {name} good", f"1 {name} bad"))
    own = [f"data.source.options.path={[str(tmp_path / f'{n}.txt') for n in ('one', 'two')]}"]
    problem = build_problem(scenario_config("text", [*own, "data.clients=4"]))
    assert [task.name for task in problem.tasks] == ["one", "two"]
    assert problem.data.tasks.tolist() == [[True, False], [False, True]] * 2


def test_tabular_holds_the_patients_and_hides_the_answers():
    found = load_breast_cancer()
    values = dict(zip(found.feature_names, found.data.T, strict=True))
    examples = tabular.Patients().load(DataConfig()).examples
    assert int(examples.y["malignant"].sum()) == 212  # Wolberg et al.: 357 are benign
    for task, column in (("texture", "worst texture"), ("concavity", "worst concavity")):
        np.testing.assert_allclose(examples.y[task].numpy()[:, 0], values[column], rtol=1e-6)
        (scale,) = [own.scale for own in tabular.TASKS if own.name == task]
        agreed = [values[column].mean(), values[column].std()]
        np.testing.assert_allclose(np.ravel(scale), agreed, rtol=1e-2)
        for x in examples.x.numpy().T:
            assert not np.allclose(x, values[column])


def test_tabular_gives_every_patient_to_one_clinic():
    config = scenario_config("tabular", ["seed=4"])
    problem = build_problem(config)
    assert problem.data.tasks.sum(1).tolist() == [1, 1, 2, 2] * 3
    clinics = [problem.data.client(i) for i in range(12)]
    assert sum(len(c.train) + len(c.valid) + len(c.test) for c in clinics) == 569
    for clinic in clinics:
        x = clinic.train.x.double()
        assert x.mean(0).abs().max() < 1e-4


def test_tabular_learns_the_diagnosis(tmp_path):
    settings = ["engine.name=inline", "rounds=15", f"output.dir={tmp_path}"]
    metrics = simulate(scenario_config("tabular", settings)).metrics["test"]
    # Saying benign to everyone is right for 63 % of the patients.
    for task, least in (("malignant", 0.85), ("texture", 0.3), ("concavity", 0.3)):
        value = metrics[task]
        assert value and value > least, task
