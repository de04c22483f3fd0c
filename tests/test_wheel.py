"""The built wheel: it trains from an empty folder, without the sources, and leaves the torch that is there alone."""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from typing import Any

import pytest
from command import ROOT
from lowest_versions import lowest_versions

pytestmark = pytest.mark.runs
RUN = ["method=sft", "model=pocket_small", "dataset=pocket_small", "evaluation=quick", "tracking=jsonl"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """A wheel that is built from a copy of the sources, so that nothing is left behind beside them."""
    place = tmp_path_factory.mktemp("build")
    for folder in ("alignlab", "conf"):
        shutil.copytree(ROOT / folder, place / "source" / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, place / "source")
    pip(sys.executable, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", place, place / "source")
    (built,) = place.glob("*.whl")
    return built


def pip(python: str | Path, *arguments: str | Path) -> str:
    """Run pip for an environment, offline, and return what it prints."""
    command = [sys.executable, "-m", "pip", "--python", python, *arguments, "--no-index", "--quiet"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    environment["PIP_CONFIG_FILE"] = os.devnull  # a machine may have constraints of its own
    done = subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def python(tmp_path) -> Path:
    """The Python of an empty environment."""
    venv.create(tmp_path / "environment")
    return tmp_path / "environment" / "bin" / "python"


def packages(python: Path) -> Path:
    """Return the folder in which an environment keeps its packages."""
    (folder,) = python.parent.parent.glob("lib/python*/site-packages")
    return folder


def add_dependencies(python: Path) -> None:
    """Let an environment see the packages of this one, less alignlab: editable installs are not seen this way."""
    (packages(python) / "dependencies.pth").write_text(sysconfig.get_path("purelib"))


def run(python: Path, *arguments: str, folder: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """Run a command in an empty folder, as a user without any setting, cache or source of alignlab."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("ALIGNLAB", "PYTHON"))}
    environment |= {"HOME": str(folder / "home"), **more}
    (folder / "empty").mkdir(exist_ok=True)
    command = [python, *arguments]
    return subprocess.run(command, cwd=folder / "empty", env=environment, capture_output=True, text=True)


def test_the_wheel_trains_from_an_empty_folder(wheel, python, tmp_path):
    pip(python, "install", "--no-deps", wheel)
    add_dependencies(python)
    place = run(python, "-c", "import alignlab; print(alignlab.__file__)", folder=tmp_path).stdout.strip()
    assert Path(place).is_relative_to(packages(python))
    usage = run(python, "-m", "alignlab", "--help", folder=tmp_path).stdout
    assert re.search(r"^  \* ppo +\S", usage, re.MULTILINE)
    done = run(python, "-m", "alignlab", *RUN, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "empty/outputs/latest/result.json").read_text())
    assert result["stage"] == "sft"
    assert result["measurements"]
    assert [path.name for path in (tmp_path / "empty").iterdir()] == ["outputs"]
    assert (tmp_path / "home" / ".cache" / "alignlab").is_dir()


@pytest.mark.parametrize("version", [lowest_versions()["torch"], "2.9.1", "2.99.0"])
def test_a_torch_of_the_range_stays(wheel, python, version, tmp_path):
    """Only the metadata of torch is there: that is all that pip looks at."""
    metadata = packages(python) / f"torch-{version}.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text(f"Metadata-Version: 2.1\nName: torch\nVersion: {version}\n")
    add_dependencies(python)
    report: dict[str, Any] = json.loads(
        pip(python, "install", "--dry-run", "--ignore-requires-python", "--report", "-", wheel)
    )
    assert [package["metadata"]["name"] for package in report["install"]] == ["alignlab"]
