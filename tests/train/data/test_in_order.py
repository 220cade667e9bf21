from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from attfc_train.data import in_order
from attfc_train.data.in_order import BLOCK, results_in_order
from attfc_train.errors import DataError


def test_results_come_in_order_whoever_is_faster():
    """Catches results in the order in which threads are done: the first blocks take the longest."""

    def slower_first(block):
        time.sleep(0.02 if block[0] < 100 else 0)
        return [3 * each for each in block]

    positions = np.arange(5, 5 + 3 * BLOCK + 1, dtype=np.int32)
    found = list(results_in_order(positions, slower_first))
    assert [place for place, _ in found] == [slice(0, 16), slice(16, 32), slice(32, 48), slice(48, 49)]
    assert [each for _, block in found for each in block] == (3 * positions).tolist()
    assert list(results_in_order(positions[:0], slower_first)) == []


def test_only_so_many_blocks_are_in_flight(monkeypatch):
    """Catches a set of 42 million images that is read as fast as the disk gives it, whatever becomes of them."""
    monkeypatch.setattr(in_order, "_AHEAD", 4)
    begun: list[int] = []
    results = results_in_order(np.arange(100 * BLOCK), lambda block: begun.append(block[0]))
    next(results)
    time.sleep(0.1)
    assert len(begun) <= 4
    results.close()


def test_an_error_ends_it_and_its_threads():
    def fail(block):
        raise DataError("a", f"{block[0]}", "c")

    before = threading.active_count()
    with pytest.raises(DataError, match="but got 7"):
        list(results_in_order(np.array([7, 8]), fail))
    assert threading.active_count() == before
