"""A card that plays a smaller one: the cap holds, and the probe of the memory matrix frees everything between two runs."""

from __future__ import annotations

import pytest
import torch

from attfc_planner.calibrate.real_steps import run_real_steps
from attfc_train.units import GIB, MIB
from benchmarks.memory_probe import steps_on
from tests.train.profiles import small_profile

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.parametrize(("capacity", "outcome"), [(MIB, "out of memory"), (4 * GIB, "ran")])
def test_a_process_is_capped(capacity: int, outcome: str) -> None:
    real = run_real_steps(small_profile("identity-30%", "bf16"), "cuda", steps=1, capacity_bytes=capacity)
    assert real.outcome == outcome, real.reason


def test_a_run_that_died_leaves_nothing_behind() -> None:
    run = steps_on(small_profile("identity", batch_size=512), torch.device("cuda"))
    free = run(None, 1)
    assert free.outcome == "lived"
    assert free.measured is not None
    needed = free.measured["reserved_bytes"]
    capped = [run(capacity, 0) for capacity in (needed // 2, needed + 64 * MIB, 2 * MIB, None)]
    assert [each.outcome for each in capped] == ["died", "lived", "died", "lived"]
    assert [each.left_over for each in capped] == [capped[0].left_over] * 4
    assert capped[0].left_over < MIB
