"""The check-up says what is wrong with a machine, and what to do about it."""

import socket
import subprocess
import sys
from types import SimpleNamespace

import pytest
from packaging.requirements import Requirement

from fedjoint.cli import checkup, doctor
from fedjoint.cli.checkup import Finding
from fedjoint.engines import ray


@pytest.mark.parametrize(
    ("wanted", "level", "words"),
    [
        ("pytest>=1", "ok", "pytest "),
        ("pytest<1", "warn", "is not tested, <1 is"),
        ("nothing-of-this-name>=2", "fail", "nothing-of-this-name is not installed"),
    ],
)
def test_packages_are_compared_with_what_was_tested(wanted, level, words):
    finding = checkup.package(Requirement(wanted))
    assert finding.level == level and words in finding.text
    assert finding.cure == ("" if level == "ok" else f"pip install '{wanted}'")


def test_a_newer_python_is_not_tested(monkeypatch):
    assert [f.level for f in checkup.versions()] == ["ok"] * 5
    monkeypatch.setattr(sys, "version_info", (3, 99, 0, "final", 0))
    assert next(f for f in checkup.versions() if "Python" in f.text) == Finding(
        "warn", "Python 3.99.0 is not tested", "use Python 3.13 or older"
    )


@pytest.mark.parametrize(
    ("for_ray", "for_torch", "device", "level", "words"),
    [
        (2, 2, True, "ok", "2 GPUs"),
        (0, 0, False, "ok", "CPUs"),
        (0, 0, True, "warn", "CUDA build"),
        (1, 0, True, "warn", "CUDA build"),
        (1, 2, True, "warn", "CUDA_VISIBLE_DEVICES"),
    ],
)
def test_gpus(tmp_path, for_ray, for_torch, device, level, words):
    finding = checkup.gpus(for_ray, for_torch, tmp_path if device else tmp_path / "none")
    assert finding.level == level and words in finding.text + finding.cure


def test_a_port_that_is_taken(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        monkeypatch.setattr(checkup, "_PORTS", {port: ("fedjoint server", "--address")})
        (taken,) = checkup.ports()
    (free,) = checkup.ports()
    assert taken.level == "warn" and "another --address" in taken.cure and free.level == "ok"


@pytest.mark.parametrize(("free", "level"), [(0.2e9, "fail"), (2e9, "warn"), (50e9, "ok")], ids=str)
def test_disk(tmp_path, free, level):
    (finding,) = checkup.disk(tmp_path, lambda _: SimpleNamespace(free=free))
    assert finding.level == level and f"{free / 1e9:.1f} GB" in finding.text


def test_a_folder_that_cannot_be_written(tmp_path):
    (finding,) = checkup.disk(tmp_path / "none")
    assert finding.level == "fail" and "not writable" in finding.text


def test_data_that_lack(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDJOINT_DATA", str(tmp_path))
    (finding,) = checkup.data()
    assert finding.level == "warn" and "FEDJOINT_DATA" in finding.cure


def test_ray_that_does_not_start(monkeypatch):
    def refuse(config):
        raise RuntimeError("no room\nTraceback")

    monkeypatch.setattr(ray, "Workers", refuse)
    (finding,) = checkup.ray_starts()
    assert finding.level == "fail" and finding.text == "Ray does not start: no room"


@pytest.mark.parametrize("level", ["ok", "warn", "fail"])
def test_it_exits_with_an_error_on_a_failure_alone(monkeypatch, capsys, level):
    monkeypatch.setattr(checkup, "ray_starts", lambda: [Finding(level, "Ray", "cure it")])
    for name in ("versions", "ports", "data"):
        monkeypatch.setattr(checkup, name, list)
    monkeypatch.setattr(checkup, "disk", lambda _: [])
    if level == "fail":
        with pytest.raises(SystemExit, match="1"):
            doctor.doctor_command()
    else:
        doctor.doctor_command()
    assert capsys.readouterr().out.split() == [level, "Ray;", "cure", "it"]


@pytest.mark.slow
def test_the_real_one(tmp_path):
    code = "from fedjoint.cli import main; main()"
    command = [sys.executable, "-c", code, "doctor"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Ray starts" in done.stdout and "fail" not in done.stdout
