"""Predictions beside what torch's allocator does in real runs; `benchmarks.real_allocator` has many more settings."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from attfc_train.cuda_environment import NATIVE_ALLOCATOR, PLANNED_ALLOCATOR
from attfc_train.units import MIB
from benchmarks.allocator_cases import AllocatorCase
from benchmarks.real_allocator import Bench
from benchmarks.standin import CONTEXT

CARD = 24 * 2**30
CASES = (  # the last two take longer
    AllocatorCase("tiny", 256, "attfc 30 %", "bf16", True, 1),
    AllocatorCase("mbf", 64, "attfc stored queue int8", "fp16", True, 2),
    AllocatorCase("mbf", 64, "attfc R=0", "bf16", "wide", 1),
    AllocatorCase("r18", 64, "partial_fc 10 %", "fp32", False, 1),
    AllocatorCase("r50", 32, "attfc R=0", "bf16", True, 1),
)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ATTFC_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield Bench()


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, marks=[pytest.mark.slow] * (place >= 3), id=case.name) for place, case in enumerate(CASES)],
)
@pytest.mark.parametrize(("allocator", "largest"), [(PLANNED_ALLOCATOR, 0.015), (NATIVE_ALLOCATOR, 0.03)])
def test_peaks_are_predicted(bench: Bench, case: AllocatorCase, allocator: str, largest: float) -> None:
    predicted = bench.predict(case.profile(), CARD, allocator)
    real = bench.run(case.profile(), CARD, allocator)
    assert real.outcome == "ran", real.reason
    assert predicted["allocated"] == pytest.approx(real.allocated_bytes, rel=0.005)
    assert predicted["reserved"] == pytest.approx(real.reserved_bytes, rel=largest)


@pytest.mark.parametrize(
    "case",
    [
        AllocatorCase("mbf", 64, "attfc 30 %", "bf16", True, 1),
        pytest.param(AllocatorCase("r18", 64, "attfc 30 %", "fp16", False, 1), marks=pytest.mark.slow),
    ],
    ids=lambda case: case.name,
)
def test_channels_last_encoders_take_no_more_than_predicted(bench: Bench, case: AllocatorCase) -> None:
    """Their scratch for sums is predicted for the largest card and batch: 105 MiB more than there was, at most."""
    profile = case.profile()
    last = profile.model_copy(update={"model": profile.model.model_copy(update={"channels_last": True})})
    real = bench.run(last, CARD, PLANNED_ALLOCATOR)
    assert real.outcome == "ran", real.reason
    predicted = bench.predict(last, CARD, PLANNED_ALLOCATOR)
    assert real.allocated_bytes <= predicted["allocated"] < real.allocated_bytes + 120 * MIB
    assert real.reserved_bytes <= predicted["reserved"] < real.reserved_bytes + 160 * MIB


@pytest.mark.slow
@pytest.mark.parametrize("case", [CASES[0], CASES[3]], ids=lambda case: case.name)
def test_compiled_encoders_take_no_more_than_written_ones(bench: Bench, case: AllocatorCase) -> None:
    """Once the first step is over: kernels are chosen in it, on buffers of their own."""
    profile = case.profile()
    compiled = profile.model_copy(update={"run": profile.run.model_copy(update={"compile": True})})
    real = bench.run(compiled, CARD, PLANNED_ALLOCATOR)
    assert real.outcome == "ran", real.reason
    predicted = bench.predict(compiled, CARD, PLANNED_ALLOCATOR)
    assert 0.5 * predicted["allocated"] < real.allocated_bytes < predicted["allocated"]
    assert real.reserved_bytes <= predicted["reserved"]


def test_a_card_of_the_predicted_size_is_enough_and_one_without_room_for_tensors_is_not(bench: Bench) -> None:
    profile = CASES[0].profile()
    need = bench.predict(profile, CARD, PLANNED_ALLOCATOR)
    assert bench.run(profile, CONTEXT + need["reserved"] + need["headroom"], PLANNED_ALLOCATOR).outcome == "ran"
    assert bench.run(profile, CONTEXT + need["allocated"] - 8 * MIB, PLANNED_ALLOCATOR).outcome == "out of memory"
