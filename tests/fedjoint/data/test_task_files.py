import pytest

from fedjoint.data.dataset import TEST, TRAIN, VALID
from fedjoint.data.task_files import task_files
from fedjoint.errors import UserError


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def make(*names):
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(f"0 {name}\n")

    return make


def read(path, test_path=None):
    found = task_files(path, test_path)
    return {task: [(str(p), split) for p, split in files] for task, files in found.items()}


def test_files_of_different_data_sets_stay_apart(folder):
    names = ["stsa.binary.train", "stsa.binary.test", "stsa.fine.train", "stsa.fine.dev"]
    folder(*names, "rt-polarity.all", "a.b-train.txt", "trec/train.txt", "trec/test.txt")
    assert read([*names, "rt-polarity.all", "a.b-train.txt", "trec"]) == {
        "stsa_binary": [("stsa.binary.train", TRAIN), ("stsa.binary.test", TEST)],
        "stsa_fine": [("stsa.fine.train", TRAIN), ("stsa.fine.dev", VALID)],
        "rt-polarity": [("rt-polarity.all", TRAIN)],
        "a_b": [("a.b-train.txt", TRAIN)],
        "trec": [("trec/test.txt", TEST), ("trec/train.txt", TRAIN)],
    }


def test_tasks_are_named_by_the_user(folder):
    folder("x/1", "x/2", "y.txt", "z.test")
    assert read({"one": "x", "two": ["y.txt"]}, {"two": "z.test"}) == {
        "one": [("x/1", TRAIN), ("x/2", TRAIN)],
        "two": [("y.txt", TRAIN), ("z.test", TEST)],
    }


def test_test_files_belong_to_the_task_of_their_name(folder):
    folder("a.txt", "b.txt", "more/b.txt", "other")
    assert read(["a.txt", "b.txt"], "more/b.txt")["b"] == [("b.txt", TRAIN), ("more/b.txt", TEST)]
    # One task and one test set need no names.
    assert read("a.txt", "other") == {"a": [("a.txt", TRAIN), ("other", TEST)]}


@pytest.mark.parametrize(
    ("path", "test_path", "message"),
    [
        (["x/a.txt", "y/a.txt"], None, "would both be the task 'a'; name the tasks"),
        (["x/a.train", "y/a.test"], None, "would both be the task 'a'"),
        (["a.all", "a.txt"], None, "would both be the task 'a'"),
        (["a.all", "x/b.txt"], "y/c.txt", "a test set of 'c', and the tasks are a, b"),
        ({"one": "a.all"}, "a.txt", "path names the tasks, so test_path has to"),
        ({"one": "a.all"}, {"two": "a.txt"}, "a test set of 'two', and the tasks are one"),
        ({"one": ["x/a.train", "y/a.test"]}, {"one": "a.txt"}, "a.test is a test set by its name"),
        ({"one": "none"}, None, "none: no such file or folder; fix data.source.options.path"),
        ("a.all", "none", "none: no such file or folder; fix data.source.options.test_path"),
        ({}, None, "names no task"),
    ],
)
def test_what_belongs_together_is_not_guessed(folder, path, test_path, message):
    folder("x/a.txt", "y/a.txt", "x/a.train", "y/a.test", "a.all", "a.txt", "x/b.txt", "y/c.txt")
    with pytest.raises(UserError, match=message):
        read(path, test_path)
