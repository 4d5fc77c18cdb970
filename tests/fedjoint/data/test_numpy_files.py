"""Files of NumPy whose headers lie, or that are damaged: one line, and no memory taken."""

import io
import resource
import struct
import zipfile

import numpy as np
import pytest

from fedjoint.data.numpy_files import read_npy, read_npz
from fedjoint.errors import UserError

ROWS = np.arange(12, dtype=np.float32).reshape(4, 3)


def headed(shape, kind="<f4", body=bytes(64), version=b"\x01\x00"):
    """Return an array's bytes whose header says what it likes."""
    header = str({"descr": kind, "fortran_order": False, "shape": shape}).encode()
    return b"\x93NUMPY" + version + struct.pack("<H", len(header) + 1) + header + b"\n" + body


def whole(array=ROWS):
    found = io.BytesIO()
    np.save(found, array)
    return found.getvalue()


FORGED = {
    "a giant": (headed((10**12, 4)), "about 3.2e+04 GB"),
    "a giant's text": (headed((60,), "|S1000000000000"), "not a"),
    "fewer rows than it says": (headed((1000, 4)), "not a"),
    "negative": (headed((-4, 4)), "not a"),
    "objects": (headed((4, 4), "|O"), "not a"),
    "nothing of each": (headed((60,), "|V0"), "not a"),
    "deep": (b"\x93NUMPY\x02\x00" + struct.pack("<I", 9000) + b"(" * 8999 + b"\n", "not a"),
    "a long header": (b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**31) + b"(" * 99, "not a"),
    "an archive": (b"PK\x03\x04" + bytes(50), "not a"),
    "another version": (headed((4, 4), version=b"\x09\x00"), "not a"),
    "empty": (b"", "not a"),
}


def packed(path, **members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return path


@pytest.mark.parametrize("what", FORGED)
@pytest.mark.parametrize("kind", ["npy", "npz"])
def test_what_is_forged_is_refused_before_memory_is_taken(what, kind, tmp_path):
    content, words = FORGED[what]
    path = tmp_path / f"x.{kind}"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError) as caught:
        if kind == "npz":
            read_npz(packed(path, x=content), ["x"])
        else:
            path.write_bytes(content)
            read_npy(path)
    assert f"x.{kind}: " in str(caught.value).replace(f"x.{kind},", f"x.{kind}: ")
    assert words in str(caught.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB


def test_an_archive_damaged_anywhere_gives_its_arrays_or_one_line(tmp_path):
    data = packed(tmp_path / "x.npz", x=whole(), y=whole(np.arange(4))).read_bytes()
    for place in range(len(data)):
        (tmp_path / "x.npz").write_bytes(
            data[:place] + bytes([data[place] ^ 255]) + data[place + 1 :]
        )
        try:
            found = read_npz(tmp_path / "x.npz", ["x", "y"])
        except UserError:
            continue
        assert np.array_equal(found["x"], ROWS) and found["y"].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_are_those_that_numpy_wrote(order, tmp_path):
    array = np.asarray(ROWS, order=order)
    np.save(tmp_path / "x.npy", array)
    np.savez_compressed(tmp_path / "x.npz", x=array, who=np.array(["a", "b"]))
    assert np.array_equal(read_npy(tmp_path / "x.npy"), ROWS)
    found = read_npz(tmp_path / "x.npz", ["x", "who"], texts=["who"])
    assert np.array_equal(found["x"], ROWS) and found["who"].tolist() == ["a", "b"]
    found["x"][0] = 1  # its own, and writable
