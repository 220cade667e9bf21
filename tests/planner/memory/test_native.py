"""Native segments: predicted where the device has no others, and known beside the plan where it may turn out to have none."""

from __future__ import annotations

import pytest

from attfc_planner.gpu.profile import GpuProfile
from attfc_planner.memory.model import MemoryModel
from attfc_train.cuda_environment import NATIVE_ALLOCATOR, PLANNED_ALLOCATOR
from attfc_train.profile.prediction import MemoryPrediction
from attfc_train.units import GIB
from tests.planner.trace.profiles import device, small_profile

PROFILE = small_profile(batch_size=192)
REASON = "expandable ones are not supported here"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> MemoryModel:
    return MemoryModel(PROFILE, device(), 8 * GIB, tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def native(model: MemoryModel) -> MemoryModel:
    return model.on(without_expandable(model.gpu))


def without_expandable(gpu: GpuProfile) -> GpuProfile:
    return gpu.model_copy(update={"native_segments": REASON})


def fragmentation(memory: MemoryPrediction) -> tuple[int, str]:
    (term,) = [term for term in memory.terms if term.name == "fragmentation"]
    return term.bytes, term.source


def test_a_device_without_expandable_segments_is_predicted_with_native_ones(model: MemoryModel, native: MemoryModel) -> None:
    """Catches a model that keeps the segments of the device that it was made for."""
    expandable, other = model.exact(PROFILE), native.exact(PROFILE)
    assert (expandable.allocator, other.allocator) == (PLANNED_ALLOCATOR, NATIVE_ALLOCATOR)
    assert fragmentation(other)[1] == f"traced: replay through the allocator, native segments: {REASON}"
    assert fragmentation(expandable)[1] == "traced: replay through the allocator, expandable segments"
    run = native.run(PROFILE)
    replayed = run.replay(native.sizes(run.trace), False, native.gpu.capacity_bytes).peak_reserved
    assert other.measured_bytes == replayed > expandable.measured_bytes
    assert native.estimate(PROFILE).measured_bytes == replayed
    assert native.floor_bytes(PROFILE) > model.floor_bytes(PROFILE)


def test_a_plan_knows_what_native_segments_would_reserve(model: MemoryModel, native: MemoryModel) -> None:
    planned = model.exact(PROFILE)
    assert planned.native_bytes == native.exact(PROFILE).measured_bytes
    assert model.estimate(PROFILE).native_bytes is None, "a search asks for thousands of estimates"
    assert native.exact(PROFILE).native_bytes is None
    assert model.on(device("cpu")).exact(PROFILE).native_bytes is None


@pytest.mark.parametrize("setting", ["", "max_split_size_mb:128", "expandable_segments:True, expandable_segments:False"])
def test_a_plan_turns_native(model: MemoryModel, native: MemoryModel, setting: str) -> None:
    planned = model.exact(PROFILE)
    turned = planned.under(setting)
    assert turned.measured_bytes == native.exact(PROFILE).measured_bytes
    assert turned.total_bytes - planned.total_bytes == turned.measured_bytes - planned.measured_bytes
    assert turned.allocator == NATIVE_ALLOCATOR
    assert turned.under(PLANNED_ALLOCATOR) is turned
    assert planned.under("a:1,Expandable_Segments: True") is planned


def test_a_plan_that_does_not_know_stays(model: MemoryModel) -> None:
    """A profile of an earlier attfc, and one for a CPU."""
    older = model.exact(PROFILE).model_copy(update={"native_bytes": None})
    assert older.under("") is older
    on_cpu = model.on(device("cpu")).exact(PROFILE)
    assert on_cpu.under("") is on_cpu
    assert not on_cpu.assumes_other_segments("")
