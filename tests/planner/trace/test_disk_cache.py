"""Traces on disk: what is damaged is traced again, whatever the damage."""

from __future__ import annotations

import gzip
import json
import random
import stat
from pathlib import Path

import numpy as np
import pytest

from attfc_planner.trace.disk_cache import TraceCache
from attfc_planner.trace.history import HeadBytes, Trace
from attfc_train.timing.op_cost import OpCost
from tests.planner.trace.profiles import small_profile


def trace() -> Trace:
    cost = OpCost("mm", "matmul", "forward", 10, 20, 1)
    names = tuple("abcdefgh")
    events = (*range(8), *(~place for place in range(8)))
    return Trace(events, np.arange(8, dtype=np.int64) * 512, names, names, names, (4, 8), ((cost,), (cost, cost)))


def same(found: Trace | None, kept: Trace) -> bool:
    return found is not None and json.dumps(facts(found)) == json.dumps(facts(kept))


def facts(of: Trace) -> list[object]:
    costs = [[repr(cost) for cost in step] for step in of.costs]
    return [of.events, of.nbytes.tolist(), of.ops, of.phases, of.categories, of.steps, costs]


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """The file of one trace."""
    TraceCache(tmp_path / "cache").store(trace(), small_profile())
    (file,) = (tmp_path / "cache").iterdir()
    return file


def test_a_trace_is_kept_in_a_private_folder(kept: Path) -> None:
    assert same(TraceCache(kept.parent).load(Trace, small_profile()), trace())
    assert stat.S_IMODE(kept.parent.stat().st_mode) == 0o700
    assert TraceCache(kept.parent).load(HeadBytes, small_profile()) is None
    assert TraceCache(kept.parent).load(Trace, small_profile(batch_size=24)) is None


def test_damaged_bytes_count_as_missing(kept: Path) -> None:
    """Catches ``zlib.error``, which a list of exceptions lacked: 999 of 3,000 damaged files stopped the planner for ever."""
    whole = kept.read_bytes()
    draw = random.Random(1)
    cache = TraceCache(kept.parent)
    for _ in range(3000):
        damaged = bytearray(whole)
        for _ in range(draw.choice((1, 1, 5))):
            damaged[draw.randrange(len(whole))] = draw.randrange(256)
        kept.write_bytes(damaged[: draw.randrange(len(whole))] if draw.random() < 0.3 else damaged)
        found = cache.load(Trace, small_profile())
        assert found is None or same(found, trace())


@pytest.mark.parametrize("value", [None, [], {}, {"nbytes": 10**400}, {"events": ["a"], "nbytes": [1e400]}, 5, "[" * 9])
def test_json_of_something_else_counts_as_missing(kept: Path, value: object) -> None:
    for document in (value, {"sha256": "0" * 64, "value": value}):
        kept.write_bytes(gzip.compress(json.dumps(document).encode()))
        assert TraceCache(kept.parent).load(Trace, small_profile()) is None


def test_a_damaged_trace_is_made_again_and_kept(kept: Path) -> None:
    kept.write_bytes(b"\x1f\x8b\x08\x00" + b"\xff" * 40)
    cache = TraceCache(kept.parent)
    assert cache.load(Trace, small_profile()) is None
    cache.store(trace(), small_profile())
    assert same(cache.load(Trace, small_profile()), trace())
