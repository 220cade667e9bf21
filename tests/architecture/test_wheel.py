"""What is installed is what works here: the wheel has everything, and runs from somewhere else."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.architecture.modules import PACKAGES, ROOT, modules

pytestmark = pytest.mark.slow


def output_of(*command: object, folder: Path, **environment: str) -> str:
    environment = {**os.environ, **environment, "COLUMNS": "120", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    arguments = [sys.executable, *map(str, command)]
    done = subprocess.run(arguments, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built without a network: hatchling is in the [dev] extra."""
    folder = tmp_path_factory.mktemp("dist")
    output_of("-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT, folder=folder)
    (path,) = folder.glob("attfc-*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Runs Python with the installed wheel, and without the repository, on its path."""
    target, elsewhere = tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("elsewhere")
    output_of("-m", "pip", "install", "--no-deps", "--no-index", "--no-compile", "--target", target, wheel, folder=elsewhere)
    return lambda *command: output_of(*command, folder=elsewhere, PYTHONPATH=str(target))


def test_contents(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (entry_points,) = (name for name in names if name.endswith("entry_points.txt"))
        scripts = archive.read(entry_points).decode()
    assert "attfc-plan = attfc_planner.cli:main" in scripts
    assert "attfc-train = attfc_train.cli:main" in scripts
    assert {f"{package}/py.typed" for package in PACKAGES} <= names
    assert {str(path.relative_to(ROOT)) for path in modules().values()} <= names
    profiles = {path.relative_to(ROOT / "profiles") for path in (ROOT / "profiles").rglob("*.json")}
    assert {f"attfc_train/_profiles/{path.as_posix()}" for path in profiles} <= names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not [name for name in names if name.startswith(("tests", "benchmarks", "profiles")) or "__pycache__" in name]


def test_the_installed_profiles_are_found(installed: Callable[..., str]) -> None:
    code = (
        "import attfc_train.profile.file as file; from attfc_planner.gpu.catalog import load_catalog; "
        "print(file.profiles_folder(), len(load_catalog()), *map(file.load_preset, file.preset_names()))"
    )
    output = installed("-c", code)
    assert output.split()[0].endswith("attfc_train/_profiles")
    assert str(ROOT) not in output
    assert output.split()[1] == str(len(list((ROOT / "profiles" / "gpus").glob("*.json"))))


def test_the_installed_command_lines_run(installed: Callable[..., str]) -> None:
    assert "--preset" in installed("-m", "attfc_train.cli", "--help")
    assert "attfc-paper" in installed("-m", "attfc_train.cli", "presets")
    assert "--gpu" in installed("-m", "attfc_planner.cli", "--help")
