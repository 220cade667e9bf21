"""A few kills, power cuts, full disks, rivals and lost screens: every run goes on to the same bits."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from benchmarks.attack.parts import SCENARIOS, try_scenario

CASES = {"kills": 12, "power cuts": 8, "full disks": 10, "pairs of trainers": 4, "screens": 10}
"""Killed tunings are left to `make attack`: each takes half a minute."""
SEED = 14
MOST_SECONDS = 120.0


@pytest.mark.parametrize("name", CASES)
def test_it_ends_as_promised(name: str, whole: Path, tmp_path: Path) -> None:
    """Catches a flush, a lock or an order of writes that is missing; see `tests.train.run.test_finish` for each by itself."""
    tally = try_scenario(name, whole, tmp_path, SEED, CASES[name], time.monotonic() + MOST_SECONDS)
    told = [f"{failure.outcome.kind}: {failure.what}: {failure.outcome.detail}" for failure in tally.failures]
    assert tally.num_failures == 0, "\n".join([*told, *(failure.command(SEED) for failure in tally.failures)])
    assert tally.tried == CASES[name], "the time was over"


def test_all_others_are_left_out_on_purpose() -> None:
    assert set(SCENARIOS) - set(CASES) == {"killed tunings"}
