"""What only the stand-in device shows: whole commands on a GPU. Elsewhere these tests are skipped, with the reason counted."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

NO_STAND_IN = pytest.mark.skip(reason="needs the stand-in device: tests/standin/fakegpu python -m pytest tests/standin")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents and "FAKEGPU" not in os.environ:
            item.add_marker(NO_STAND_IN)
