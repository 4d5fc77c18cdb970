"""Rooms import only from rooms below them, and only fedjoint/flower uses private Flower."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
PACKAGES = ("fedjoint", "clients", "strategies", "simulations")
PUBLIC = ("flwr.app", "flwr.clientapp", "flwr.serverapp")
PRIVATE = (
    "fedjoint/flower/",
    "simulations/benchmark/contestants/flower.py",  # Flower's own simulation, as a contestant
)


def test_the_layers_hold():
    program = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run(
        [program, "--no-cache", "--no-logo"], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_room_has_a_layer():
    settings = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))
    (contract,) = settings["tool"]["importlinter"]["contracts"]
    layered = set(re.findall(r"fedjoint\.(\w+)", " ".join(contract["layers"])))
    rooms = {
        path.stem
        for path in (REPOSITORY / "fedjoint").iterdir()
        if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert rooms - {"__init__"} <= layered


def imported(path):
    """Return the modules that a file imports, and where."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        yield from ((name, node.lineno) for name in names)


def test_nothing_imports_a_built_in():
    # lint-imports knows these folders by the names that they have in the repository.
    beside = ("fedjoint.strategies", "fedjoint.clients", "fedjoint.simulations")
    wrong = [
        f"{path.relative_to(REPOSITORY)}:{line}: {module}"
        for path in (REPOSITORY / "fedjoint").rglob("*.py")
        for module, line in imported(path)
        if module.startswith(beside)
    ]
    assert not wrong


def test_only_one_room_uses_private_flower():
    files = [path for package in PACKAGES for path in (REPOSITORY / package).rglob("*.py")]
    wrong = [
        f"{name}:{line}: {module}"
        for path in files
        if not (name := path.relative_to(REPOSITORY).as_posix()).startswith(PRIVATE)
        for module, line in imported(path)
        if module.split(".")[0] == "flwr" and ".".join(module.split(".")[:2]) not in PUBLIC
    ]
    assert len(files) > 100
    assert not wrong
