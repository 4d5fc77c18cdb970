"""Arrays that travel as one are read as if each had come on its own."""

import json

import numpy as np
import pytest
from flwr.app import ConfigRecord, Message
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from support.messages import settings

from fedjoint.errors import UserError
from fedjoint.flower.compat import be_server, number
from fedjoint.protocol import wire
from fedjoint.protocol.requests import TRAIN

LARGE = np.arange(1 << 18, dtype=np.float32).reshape(512, -1)
ARRAYS = {
    "report": {"good": np.array([True, False]), "losses": np.array([[0.5], [np.nan]], np.float32)},
    "updates": {"updates": LARGE, "scale": np.array([3], np.int64)},
    "extras": {"none": np.zeros((0, 7)), "große/α": np.arange(5, dtype=np.uint8)},
    "buffers": {},
}


@pytest.fixture(autouse=True)
def server():
    be_server()


def sent(content):
    """Return a message as it arrives: Flower takes it apart and puts it together again."""
    (message,) = number([Message(content, 7, TRAIN)])
    objects = get_all_nested_objects(message)
    contents = {identity: found.deflate() for identity, found in objects.items()}
    return inflate_object_from_contents(message.object_id, contents)


def test_what_is_read_is_what_was_packed():
    message = sent(wire.bundle(wire.pack({"round": 3}, **ARRAYS)))
    assert settings(message) == {"round": 3}
    for name, expected in ARRAYS.items():
        found = wire.arrays(message, name)
        assert found.keys() == expected.keys()
        for key, values in expected.items():
            assert found[key].dtype == values.dtype and found[key].shape == values.shape
            np.testing.assert_array_equal(found[key], values)
    assert wire.arrays(message, "nothing") == {}


def test_many_small_arrays_are_few_objects():
    many = {f"layer.{i}": np.ones(i + 1, np.float32) for i in range(50)}
    content = wire.pack({}, backbone=many)
    apart, together = (
        len(get_all_nested_objects(sent(c))) for c in (content, wire.bundle(content))
    )
    assert apart > 100 and together == 3  # the message, its content, the config
    # Large arrays are not copied into the bundle.
    bundled = wire.bundle(wire.pack({}, updates={"updates": LARGE}))
    assert bundled.array_records["updates"]["updates"].numpy() is LARGE


def spoilt(change):
    content = wire.bundle(wire.pack({}, **ARRAYS))
    index = json.loads(str(content.config_records["config"]["index"]))
    config = dict(content.config_records["config"])
    content["config"] = ConfigRecord(config | {"index": json.dumps(change(index))})
    return sent(content)


@pytest.mark.parametrize(
    "change",
    [
        lambda index: [[*entry[:-1], entry[-1] + 1] for entry in index],  # of another size
        lambda index: [[*entry[:-1], 10**12] for entry in index],
        lambda index: [[*entry[:-1], -1] for entry in index],
        lambda index: [[*entry[:-1], "5"] for entry in index],
        lambda index: [entry[:4] for entry in index],
        lambda index: [[*entry[:3], "ab", entry[4]] for entry in index],
        lambda index: [[entry[0], [1], *entry[2:]] for entry in index],
        lambda index: 5,
        lambda index: None,
        lambda index: "x",
    ],
)
def test_a_forged_index_is_reported(change):
    with pytest.raises(UserError, match="damaged arrays in 'report'"):
        wire.arrays(spoilt(change), "report")


def test_a_bundle_that_is_text_is_reported():
    content = wire.bundle(wire.pack({}, **ARRAYS))
    config = dict(content.config_records["config"])
    content["config"] = ConfigRecord(config | {"bundle": "x" * len(str(config["bundle"]))})
    with pytest.raises(UserError, match="damaged arrays in 'report'"):
        wire.arrays(sent(content), "report")


def test_a_full_bundle_leaves_arrays_on_their_own():
    many = {str(i): np.full(60_000, i, np.float32) for i in range(80)}  # 19 MB
    content = wire.bundle(wire.pack({}, backbone=many))
    assert len(content.config_records["config"]["bundle"]) <= 1 << 24
    assert content.array_records["backbone"]
    found = wire.arrays(sent(content), "backbone")
    assert all((found[name] == int(name)).all() for name in many) and len(found) == 80
