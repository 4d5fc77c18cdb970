"""An installed wheel lives beside a project with folders of the same names."""

import shutil
import subprocess
import sys
import sysconfig
import textwrap
import venv
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

FOLDERS = ("fedjoint", "clients", "strategies", "simulations")

PROJECT = {
    "clients/__init__.py": "OWN = 'the clients of the user'\n",
    "clients/quiet.py": """
        from fedjoint.clients.joint import Joint


        class Quiet(Joint):
            pass
        """,
    "simulations/__init__.py": "OWN = 'the simulations of the user'\n",
    "strategies/__init__.py": "OWN = 'the strategies of the user'\n",
    "strategies/pcgrad.py": """
        import fedjoint


        class Halved(fedjoint.JointStrategy):
            def merge(self, updates):
                return updates.matrix.mean(0) / 2
        """,
    "main.py": """
        import clients
        import simulations
        import strategies

        import fedjoint
        from fedjoint.config.scenario import scenario_config
        from fedjoint.config.schema import EngineConfig
        from fedjoint.engines.base import make_engine

        print(clients.OWN, strategies.OWN, simulations.OWN, sep=", ")
        print(fedjoint.__file__)
        few = ["rounds=1", "data.clients=4", "engine.workers=1"]
        with make_engine(EngineConfig(name="ray", workers=1)).session():
            for scenario, engine, *settings in (
                ("digits", "ray", "strategy.name=pcgrad"),
                ("digits", "inline", "strategy.name=ditto"),
                ("digits", "ray", "strategy.name=strategies.pcgrad:Halved"),
                ("digits", "ray", "local.method=clients.quiet:Quiet"),
                ("tabular", "ray"),
            ):
                config = scenario_config(scenario, [*few, *settings], engine__name=engine)
                print(scenario, *settings, len(fedjoint.simulate(config).records))
        """,
}


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """Return a Python with the wheel, and everything else from this environment."""
    folder = tmp_path_factory.mktemp("wheel")
    # Without what an earlier build has left.
    for name in FOLDERS:
        shutil.copytree(REPOSITORY / name, folder / "source" / name)
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, folder / "source")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--wheel-dir", folder, folder / "source"], check=True, cwd=folder)
    venv.create(folder / "venv", symlinks=True)
    paths = {"base": str(folder / "venv"), "platbase": str(folder / "venv")}
    packages = Path(sysconfig.get_path("purelib", "venv", paths))
    (packages / "here.pth").write_text(sysconfig.get_path("purelib") + "\n")
    (wheel,) = folder.glob("fedjoint-*.whl")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", packages]
    subprocess.run([*pip, wheel], check=True)
    return folder / "venv/bin/python"


def test_a_wheel_and_a_project_of_the_same_names(python, tmp_path):
    for name, text in PROJECT.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(textwrap.dedent(text), "utf-8")
    done = subprocess.run(
        [python, "main.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    own, place, *runs = done.stdout.splitlines()
    assert own == ", ".join(f"the {name} of the user" for name in FOLDERS[1:])
    assert Path(place).is_relative_to(python.parents[1])
    assert runs == [
        "digits strategy.name=pcgrad 1",
        "digits strategy.name=ditto 1",
        "digits strategy.name=strategies.pcgrad:Halved 1",
        "digits local.method=clients.quiet:Quiet 1",
        "tabular 1",
    ]


def test_a_wheel_has_every_file_and_no_other_folder(python):
    packages = next((python.parents[1] / "lib").glob("python*/site-packages"))
    installed = {
        path.relative_to(packages / "fedjoint").as_posix()
        for path in (packages / "fedjoint").rglob("*.py")
    }
    here = {
        path.relative_to(REPOSITORY).as_posix().removeprefix("fedjoint/")
        for name in FOLDERS
        for path in (REPOSITORY / name).rglob("*.py")
        if path.parent.name != "deployment"  # with its units: for whoever has the repository
    }
    assert installed == here
    folders = {path.name for path in packages.iterdir() if path.is_dir()}
    assert not folders & {*FOLDERS[1:], "tests"}
