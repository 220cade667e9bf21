"""The simulated allocator beside torch's own, on random sequences: roomy cards and full ones, both kinds of segments."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from attfc_planner.memory.allocator import CachingAllocator, OutOfDeviceMemory
from attfc_planner.memory.blocks import Block, order_of
from tests.standin.commands import Place

PROGRAM = str(Path(__file__).with_name("sequences.py"))


def simulated(sequence: dict[str, Any], expandable: bool) -> tuple[list[int], bool, int]:
    allocator = CachingAllocator(expandable, sequence["free"], sequence["total"], order_of(torch.__version__))
    held: dict[int, Block] = {}
    reserved = []
    for event in sequence["events"]:
        try:
            if event < 0:
                allocator.free(held.pop(~event))
            else:
                held[event] = allocator.malloc(sequence["sizes"][event])
        except OutOfDeviceMemory:
            return reserved, True, allocator.num_retries
        reserved.append(allocator.reserved)
    return reserved, False, allocator.num_retries


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("gib", [24, 1.2])
@pytest.mark.parametrize("expandable", [True, False])
def test_every_event_reserves_as_many_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expandable: bool, gib: float, seed: int
) -> None:
    monkeypatch.setenv("PYTORCH_ALLOC_CONF", f"expandable_segments:{expandable}")
    output, _ = Place(tmp_path, tmp_path).run(PROGRAM, str(seed), GIB=gib, ADDRESSES="ascending")
    sequence = json.loads(output)
    assert len(sequence["reserved"]) > 50
    assert simulated(sequence, expandable) == (sequence["reserved"], sequence["full"], sequence["retries"])
