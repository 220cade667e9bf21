"""What the stand-in device (`tests/standin`) can show of these tests: everything but values."""

from __future__ import annotations

import os

import pytest

STAND_IN = "FAKEGPU" in os.environ
NO_VALUES = pytest.mark.skip(reason="kernels do nothing on the stand-in device, so values cannot be compared")
NO_KERNEL = pytest.mark.filterwarnings("ignore:the triton kernel is not used:RuntimeWarning")
"""On the stand-in it never computes what the chunked pass computes, and training falls back to that."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if STAND_IN and item.get_closest_marker("needs_values"):
            item.add_marker(NO_VALUES)
        elif STAND_IN:
            item.add_marker(NO_KERNEL)
