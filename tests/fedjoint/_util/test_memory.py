"""What is too large is refused before memory is taken, and files have an end."""

import gzip
import os
import resource
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from fedjoint._util.memory import allowed_bytes, check_fits
from fedjoint._util.reading import read_regular
from fedjoint.config.data import DataConfig
from fedjoint.config.load import check
from fedjoint.config.sizes import check_sizes
from fedjoint.data.idx import read_idx
from fedjoint.data.sources.synthetic import Synthetic
from fedjoint.data.split import split_sizes, whole
from fedjoint.data.tabular import read_table
from fedjoint.data.text import encode
from fedjoint.errors import UserError
from fedjoint.model.joint import build_model
from fedjoint.model.tasks import Task

TERABYTES = 10**13


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def test_a_container_s_limit_counts(tmp_path):
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert allowed_bytes(tmp_path) == machine
    (tmp_path / "memory.max").write_text("max\n")
    assert allowed_bytes(tmp_path) == machine
    (tmp_path / "memory.max").write_text("1000000\n")
    assert allowed_bytes(tmp_path) == 1_000_000
    (tmp_path / "memory.max").unlink()
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory/memory.limit_in_bytes").write_text("2000000\n")
    assert allowed_bytes(tmp_path) == 2_000_000


def test_the_line_has_the_estimate():
    check_fits("a little", 1.0, "less")
    with pytest.raises(UserError, match=r"^much: about 1e\+04 GB, and this machine has .*: less$"):
        check_fits("much", TERABYTES, "less")


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"data": {"clients": 10**12}}, "data.clients = 1000000000000"),
        ({"data": {"examples_per_client": 10**15}}, "data.examples_per_client"),
        ({"engine": {"workers": 10**6}}, "engine.workers = 1000000: about 2e"),
        (
            {
                "local": {"steps": 10**6, "batch_size": 10**9},
                "data": {"examples_per_client": 10**8},
            },
            "local.steps = 1000000",
        ),
    ],
)
def test_numbers_that_no_memory_holds_are_refused(settings, named):
    with pytest.raises(UserError, match=named):
        check_sizes(check(settings))
    check_sizes(check({}))
    check_sizes(check({"engine": {"workers": 10**6, "address": "auto"}}))


@pytest.mark.parametrize(
    ("take", "named"),
    [
        (
            lambda: Synthetic(inputs=10**12).build(DataConfig(clients=2), 0),
            "inputs = 1000000000000, and tasks = 2, of 46 examples",
        ),
        (
            lambda: Synthetic(inputs=4).build(DataConfig(examples_per_client=10**12), 0),
            "inputs = 4, and tasks = 2, of 1000000000000 examples",
        ),
        (
            lambda: encode(["a b"] * 10**5, max_length=10**6, vocabulary=9),
            "100000 texts of max_length = 1000000",
        ),
    ],
)
def test_data_that_no_memory_holds_are_refused(take, named):
    before = peak()
    with pytest.raises(UserError, match=f"{named}.*this machine has"):
        take()
    assert peak() - before < 200_000  # kB


def test_how_many_examples_leave_so_many_to_train_on_is_no_list_of_them():
    before = peak()
    # Of the sizes around it, none less gives as many.
    for train in (1, 7, 10**12):
        total = whole(train, 0.1, 0.2)
        left = [split_sizes(np.array(n), 0.1, 0.2)[0] for n in range(max(1, total - 9), total + 1)]
        assert left[-1] >= train and all(size < train for size in left[:-1])
    assert peak() - before < 30_000  # kB


@pytest.mark.parametrize("where", ["backbone", "head"])
def test_a_model_beyond_the_memory_is_refused_before_it_is_taken(where):
    width, outputs = (10**12, 2) if where == "backbone" else (8, 10**12)
    before = peak()
    with pytest.raises(UserError, match=r"a model with .* parameters or more.*this machine has"):
        build_model(
            lambda: nn.Linear(10, width),
            [Task("a", "regression", outputs)],
            torch.zeros(1, 10),
            seed=0,
        )
    assert peak() - before < 200_000  # kB


@pytest.mark.parametrize("kind", ["a device", "a pipe", "a folder"])
def test_only_regular_files_are_read(kind, tmp_path):
    path = tmp_path / "it"
    if kind == "a pipe":
        os.mkfifo(path)
    elif kind == "a folder":
        path.mkdir()
    with pytest.raises(OSError, match=r"not a regular file|directory"):
        read_regular(Path("/dev/zero") if kind == "a device" else path, 10**6)


def test_a_file_has_a_bound(tmp_path):
    (tmp_path / "it").write_bytes(bytes(100))
    assert read_regular(tmp_path / "it", 100) == bytes(100)
    with pytest.raises(OSError, match="it holds more than"):
        read_regular(tmp_path / "it", 99)


def test_a_text_of_many_gigabytes_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("a,b\n1,2\n")
    os.truncate(path, TERABYTES)
    before = peak()
    with pytest.raises(UserError, match=r"a\.csv: it holds more than .* GB"):
        read_table(path, None)
    assert peak() - before < 30_000  # kB


@pytest.mark.parametrize("line", [b",", b"a"], ids=["a cell each", "one cell"])
def test_a_line_without_an_end_takes_no_more_than_a_few_times_its_length(line, tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(line * 20_000_000)
    before = peak()
    with pytest.raises(UserError, match=r"a\.csv: 20000001 columns: about|larger than field limit"):
        read_table(path, None)
    assert peak() - before < 300_000  # kB


def test_a_row_of_a_table_may_go_on_in_the_next_line(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b'a,"b\r\nb"\r\n1,"2\n\n3"\r\n"",4')
    table = read_table(path, None)
    assert table.columns == {"a": ["1", ""], "b\r\nb": ["2\n\n3", "4"]}
    assert [table.place(row) for row in (0, 1)] == [f"{path}:5", f"{path}:6"]


def test_a_small_gzip_file_that_unpacks_to_much_is_refused(tmp_path):
    path = tmp_path / "bomb.gz"
    header = b"\0\0\x08\x01\0\0\0\x03"
    path.write_bytes(gzip.compress(header + bytes(50_000_000)))
    before = peak()
    with pytest.raises(UserError, match=r"bomb\.gz: too long: 12 bytes or more, its"):
        read_idx(path)
    assert peak() - before < 30_000  # kB


def test_a_gzip_file_whose_header_claims_too_much_is_refused(tmp_path):
    path = tmp_path / "bomb.gz"
    path.write_bytes(gzip.compress(b"\0\0\x08\x02" + b"\xff" * 8 + bytes(100)))
    with pytest.raises(UserError, match=r"bomb\.gz, images of shape .* this machine has"):
        read_idx(path)
