import codecs
import zlib

import numpy as np
import pytest
from support.building import build_data
from support.plugins import plugin

from fedjoint.config.data import DataConfig
from fedjoint.data import text
from fedjoint.data.build import make_source
from fedjoint.data.dataset import TEST, TRAIN
from fedjoint.errors import UserError


def config(path, **settings):
    places = [str(p) for p in path] if isinstance(path, list) else str(path)
    known = ("encoding", "max_length", "vocabulary", "test_path", "missing", "keep_repeats")
    options = {name: settings.pop(name) for name in known if name in settings}
    return DataConfig(source=plugin("text", path=places, **options), **settings)


def load(path, **settings):
    data = config(path, **settings)
    return make_source(data.source).load(data)


def test_words_are_hashed_alone_and_padded():
    ids = text.encode(["A cat a", "", "one two three four five"], 4, 100)
    assert ids.shape == (3, 4)
    known = {word: 1 + zlib.crc32(word.encode()) % 99 for word in ("a", "cat", "one")}
    assert ids[0].tolist() == [known["a"], known["cat"], known["a"], 0]
    assert ids[1].tolist() == [0, 0, 0, 0]
    assert ids[2, 0] == known["one"] and (ids[2] > 0).all()
    assert ids.max() < 100


def test_files_are_tasks_and_miss_each_other_s_labels(tmp_path):
    (tmp_path / "mood.all").write_text("1 fine day\n0 awful\n1 so so\n")
    (tmp_path / "topic.train.txt").write_text("0 what is it\n")
    (tmp_path / "topic.test.txt").write_text("2 who\n1 where\n")
    dataset = load(tmp_path)
    assert [(task.name, task.outputs) for task in dataset.tasks] == [("mood", 2), ("topic", 3)]
    y = dataset.examples.y
    assert y["mood"].tolist() == [1, 0, 1, -1, -1, -1]
    assert y["topic"].tolist() == [-1, -1, -1, 2, 1, 0]
    assert dataset.origin.tolist() == [0, 0, 0, 1, 1, 1]
    assert dataset.split.tolist() == [0, 0, 0, 2, 2, 0]


def test_a_sentence_is_kept_once_with_its_first_label(tmp_path):
    (tmp_path / "a.train").write_text("1 so it is\n0 no\n1 So  it is\n0 so it is\n2 no\n")
    (tmp_path / "b.all").write_text("1 no\n0 yes\n1 \n")
    dataset = load([tmp_path / n for n in ("a.train", "b.all")])
    assert dataset.origin.tolist() == [0, 0, 1, 1] and dataset.split is None
    assert dataset.examples.y["a"].tolist() == [1, 0, -1, -1]
    assert dataset.tasks[0].outputs == 3
    assert dataset.examples.x.equal(text.encode(["so it is", "no", "no", "yes"], 40, 4096))


def test_repeats_are_kept_where_that_is_wanted(tmp_path):
    (tmp_path / "a.train").write_text("1 so it is\n0 no\n1 So  it is\n0 \n")
    (tmp_path / "a.test").write_text("0 no\n")
    dataset = load([tmp_path / n for n in ("a.train", "a.test")], keep_repeats=True)
    assert dataset.examples.y["a"].tolist() == [1, 0, 1, 0]
    assert dataset.split.tolist() == [TRAIN, TRAIN, TRAIN, TEST]


def test_a_test_set_is_kept_whole_and_out_of_training(tmp_path):
    (tmp_path / "a.train").write_text("1 so it is\n0 no\n1 NO\n0 well\n")
    (tmp_path / "a.test").write_text("0 No\n1 yes\n0 no\n")
    dataset = load(tmp_path)
    test = dataset.rows(TEST)
    assert dataset.examples.y["a"][test].tolist() == [0, 1, 0]
    assert dataset.examples.x[test].equal(text.encode(["no", "yes", "no"], 40, 4096))
    assert dataset.examples.y["a"][dataset.rows(TRAIN)].tolist() == [1, 0]


@pytest.mark.parametrize("drawn", [{}, {"partition": "iid", "examples_per_client": 20}])
def test_no_sentence_is_in_two_splits_or_with_two_clients(tmp_path, drawn):
    words = [f"word{i} more" for i in range(100)]
    lines = [f"{(i + copy) % 2} {word}" for copy in range(3) for i, word in enumerate(words)]
    (tmp_path / "a.txt").write_text("\n".join(lines) + "\n")
    data = build_data(config(tmp_path, clients=4, vocabulary=1 << 20, **drawn), 0)[1]
    splits = [[], [], []]
    for client in map(data.client, range(4)):
        for seen, part in zip(splits, (client.train, client.valid, client.test), strict=True):
            seen += map(tuple, part.x.tolist())
    train, valid, test = map(set, splits)
    assert train and valid and test
    assert not (train & valid or train & test or valid & test)
    if not drawn:  # clients that draw may draw the same
        assert sum(map(len, splits)) == len(train | valid | test) == 100


def test_latin_1_is_detected_and_its_odd_line_ends_are_words(tmp_path):
    file = tmp_path / "a.txt"
    file.write_bytes("0 caf\u00e9 one\u0085two\n1 b\n".encode("latin-1"))
    dataset = load(file)
    assert len(dataset.examples) == 2
    assert dataset.examples.x[0, 0] == text.encode(["caf\u00e9"], 1, 4096)[0, 0]


def test_windows_lines_and_byte_order_mark(tmp_path):
    file = tmp_path / "a.txt"
    file.write_bytes(b"\xef\xbb\xbf0 one\r\n1 two\r\n")
    plain = tmp_path / "b.txt"
    plain.write_bytes(b"0 one\n1 two\n")
    x, y = (load(f).examples.x for f in (file, plain))
    assert x.equal(y)


@pytest.mark.parametrize("mark", [codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE])
def test_utf_16_is_detected_by_its_mark(tmp_path, mark):
    file = tmp_path / "a.txt"
    kind = "utf-16-le" if mark == codecs.BOM_UTF16_LE else "utf-16-be"
    file.write_bytes(mark + "0 caf\u00e9\n1 two\n".encode(kind))
    x = load(file).examples.x
    assert x.equal(text.encode(["caf\u00e9", "two"], 40, 4096))


@pytest.mark.parametrize(
    ("content", "settings", "message"),
    [
        (b"0 good\nbad\n", {}, r"a\.txt:2: 'bad' is not a `label sentence` line"),
        (b"0 good\n\n1 x\n", {}, r"a\.txt:2: ''"),
        (b"0 good\n1 x\nONE y\n", {}, r"a\.txt:3: label 'ONE'"),
        (b"0 x\n1 y\n2 z\n", {"outputs": {"a": 2}}, r"a\.txt:3: label '2' .*data.outputs.a = 2"),
        (b"", {}, r"a\.txt: the file is empty"),
        (b"0 x\n0\tfilm y\n", {}, r"a\.txt:2: label '0\\tfilm' holds white space; write one"),
        (b"0 x\n1 a\0b\n", {}, r"a\.txt:2: holds a NUL; save the file as UTF-8"),
        ("0 caf\u00e9\n1 y\n".encode("utf-16-le"), {}, r"a\.txt:1: holds a NUL"),
        (codecs.BOM_UTF16_LE + b"0\0 \0x\0\n\0\n", {}, r"a\.txt:2: not utf-16"),
        (b"0 x\n1 caf\xe9\n", {"encoding": "utf-8"}, r"a\.txt:2: not utf-8"),
        (b"0 x\n", {"encoding": "klingon"}, "'klingon' is unknown"),
    ],
)
def test_malformed_files(tmp_path, content, settings, message):
    file = tmp_path / "a.txt"
    file.write_bytes(content)
    with pytest.raises(UserError, match=message):
        load(file, **settings)


def test_missing_file_and_empty_folder(tmp_path):
    with pytest.raises(UserError, match=r"none\.txt: no such file or folder; fix data\.source"):
        load(tmp_path / "none.txt")
    with pytest.raises(UserError, match="the folder has no files"):
        load(tmp_path)


def test_real_tasks(shared_text):
    names = ["TREC.train.all", "TREC.test.all", "mpqa.all", "rt-polarity.all"]
    dataset = load([shared_text / name for name in names])
    # MPQA has 10,606 lines, TREC 5,452 to train on.
    assert np.bincount(dataset.origin[dataset.rows(TRAIN)]).tolist() == [5369, 8240, 10662]
    # The official test set of TREC, and of no other (Li and Roth 2002).
    assert np.bincount(dataset.origin[dataset.rows(TEST)]).tolist() == [500]
    assert [(t.name, t.outputs) for t in dataset.tasks] == [
        ("TREC", 6),
        ("mpqa", 2),
        ("rt-polarity", 2),
    ]
    # MR has as many positive as negative sentences (Pang and Lee 2005).
    assert (dataset.examples.y["rt-polarity"] == 1).sum() == 5331
