"""Records: no copies within the machine, Flower's own bytes between machines."""

import pickle

import numpy as np
import pytest
import torch
from flwr.app import Array as FlowerArray
from flwr.app import ArrayRecord

from fedjoint.protocol.arrays import to_arrays, to_record

ARRAYS = {
    "a": np.arange(6, dtype=np.float32).reshape(2, 3),
    "ids": np.array([3, 1], np.int64),
    "none": np.zeros((0, 4), bool),
}


def test_memory_is_shared_not_copied():
    tensor = torch.arange(5.0)
    found = to_arrays(to_record({**ARRAYS, "t": tensor}))
    for name, array in ARRAYS.items():
        assert found[name] is array
    tensor[0] = 7
    assert found["t"][0] == 7


def test_pickling_leaves_the_numbers_out_of_band():
    buffers = []
    record = to_record({"big": np.ones(100_000, np.float32)})
    data = pickle.dumps(record, protocol=5, buffer_callback=buffers.append)
    assert len(data) < 2000
    assert sum(buffer.raw().nbytes for buffer in buffers) == 400_000
    assert to_arrays(pickle.loads(data, buffers=buffers))["big"].sum() == 100_000


@pytest.mark.parametrize("name", ARRAYS)
def test_flower_reads_our_bytes_and_we_read_flowers(name):
    ours = to_record(ARRAYS)[name]
    theirs = FlowerArray.inflate(ours.deflate(), dict(ours.slice_array()))
    for array in (theirs, FlowerArray(ARRAYS[name])):
        np.testing.assert_array_equal(to_arrays(ArrayRecord({name: array}))[name], ARRAYS[name])
        assert array.numpy().dtype == ARRAYS[name].dtype
    assert ours.data == FlowerArray(ARRAYS[name]).data
