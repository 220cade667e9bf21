"""Shared fixtures: where real faces and golden files are, with a counted reason when they are not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from hypothesis import settings

# A busy machine is no failure; CI tries the same examples every time, developers new ones.
settings.register_profile("attfc", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("attfc")

SHARED = Path(__file__).resolve().parents[2] / "shared"

# Where there is no CUDA device the Triton kernel runs under its interpreter; triton must know before anyone imports it.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

# Two workers share two cores; OpenMP threads that spin for each other would make every test many times slower.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def golden() -> Path:
    """Folder of golden files made with other people's code."""
    return _shared("golden")


@pytest.fixture(scope="session")
def faces() -> Path:
    """Folder with the real faces."""
    return _shared("data")


def _shared(name: str) -> Path:
    folder = SHARED / name
    if not folder.is_dir():
        pytest.skip(f"needs the folder ../shared/{name}, which is not part of the repository")
    return folder
