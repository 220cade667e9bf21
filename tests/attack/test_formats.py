"""A few damaged inputs of every format, always the same: refused as promised, or taken as they should be.

`make attack` tries 2,000 of each. What fails here is repeated by ``python -m benchmarks.attack --only FORMAT --case N``.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from benchmarks.attack.oracle import ORACLES
from benchmarks.attack.parts import FORMATS, maker
from benchmarks.attack.shards import Tally, run_format

CASES = {"sqlite study": 25, "bin": 60}
"""Those that take longer; of all others there are `USUAL`."""
USUAL = 80
SEED = 14
MOST_SECONDS = 120.0


def tried(name: str, whole: Path, folder: Path) -> Tally:
    count = CASES.get(name, USUAL)
    tally = run_format(maker(name, whole), name, SEED, count, time.monotonic() + MOST_SECONDS, folder)
    assert tally.tried == count, "the time was over"
    return tally


@pytest.mark.parametrize("name", FORMATS)
def test_a_damaged_input_ends_as_promised(name: str, whole: Path, tmp_path: Path) -> None:
    """Catches each of the promises in `ORACLES` being broken; see the mutations in `tests.attack.test_harness`."""
    tally = tried(name, whole, tmp_path)
    told = [f"{failure.outcome.kind}: {failure.what}: {failure.outcome.detail}" for failure in tally.failures]
    assert tally.num_failures == 0, "\n".join([*told, *(failure.command(SEED) for failure in tally.failures)])
    assert tally.kinds["refused"] or tally.kinds["said"] or name == "log", "damage that nobody notices is no attack"


def test_every_promise_is_tried() -> None:
    """Catches a format without a promise, and a promise that nothing tries."""
    assert set(FORMATS) == set(ORACLES)
