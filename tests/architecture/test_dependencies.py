"""What is imported is declared, and what is declared is what is installed here."""

from __future__ import annotations

import sys
import tomllib
from importlib.metadata import version
from typing import Any

import pytest
from packaging.requirements import Requirement

from tests.architecture.modules import PACKAGES, ROOT, imports, modules

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
REQUIRED = {requirement.name: requirement for requirement in map(Requirement, PROJECT["dependencies"])}
EXTRAS = {Requirement(line).name for lines in PROJECT["optional-dependencies"].values() for line in lines}
NAMES = {"PIL": "pillow", "pynvml": "nvidia-ml-py"}
"""Module -> package, where they differ."""
OPTIONAL = {"aiohttp", "fsspec", "matplotlib", "onnx", "onnxruntime", "safetensors", "tensorboard", "triton"}
"""Packages of an extra, or that a CUDA build of torch brings: imported inside functions, or where they must be there."""


def test_what_is_imported_is_declared() -> None:
    """Catches ``import sqlalchemy`` without a line in pyproject.toml, which worked as long as optuna brought it."""
    found = {target.split(".")[0] for name in modules() for target in imports(name)}
    third_party = found - set(sys.stdlib_module_names) - set(PACKAGES)
    packages = {NAMES.get(name, name) for name in third_party}
    assert packages - set(REQUIRED) <= OPTIONAL & EXTRAS
    assert set(REQUIRED) <= packages, "declared, but nobody imports it"


@pytest.mark.parametrize("name", sorted(REQUIRED))
def test_what_is_installed_is_in_the_declared_range(name: str) -> None:
    """Catches a torch beyond the bound: its private names must be tested first (tests/*/test_torch_internals.py)."""
    assert REQUIRED[name].specifier.contains(version(name).split("+")[0], prereleases=True)


def test_torch_has_both_bounds() -> None:
    """Catches ``torch>=2.11`` alone: private names move between releases."""
    operators = {specifier.operator for specifier in REQUIRED["torch"].specifier}
    assert operators == {">=", "<"}
