"""The cases of the comparison of predictions with measurements, without running them."""

from __future__ import annotations

import pytest

from attfc_planner.calibrate.cases import CASES, Case
from benchmarks.predicted_and_measured import SIZES
from tests.planner.fakes import make_gpu

JUDGED = {Case(backbone, image_size, batch, 20_000) for sizes in SIZES.values() for backbone, image_size, batch, _ in sizes}


@pytest.mark.parametrize("case", sorted({*JUDGED, *CASES["cuda"], *CASES["cpu"]}, key=lambda case: case.label), ids=str)
def test_a_case_is_a_valid_profile(case: Case) -> None:
    """Catches a recipe that is not told the length of the run: 20,000 identities were to warm up for 1,000 of 521 steps."""
    profile = case.profile(make_gpu(), "bf16")
    assert profile.optim.warmup_steps <= 0.1 * profile.total_steps
