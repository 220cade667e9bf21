"""What the host decodes as the ceiling of a prediction."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest

from attfc_planner.accuracy.prior import midpoint
from attfc_planner.gpu.profile import THIS_HOST, GpuProfile
from attfc_planner.search.words import core_rate_words, feeding_words, loading_words
from attfc_planner.speed.efficiency import Range
from attfc_planner.speed.loading import LOADER_SHARE, STATED, DecodeRate, stays_decoded
from attfc_planner.speed.model import SpeedPrediction, predict_speed
from attfc_train.errors import UsageError
from attfc_train.heads.attfc.settings import AttFCSettings
from attfc_train.profile.profile import DataSettings, ModelSettings, OptimSettings, RunSettings, TrainProfile
from attfc_train.timing.op_cost import OpCost
from tests.planner.fakes import make_gpu

FAST = OpCost("add", "elementwise", "backward", 0, 10**6, 1)
"""A step that any host would have to wait for."""
BATCH = 128


def profile(references: int = 0, image_size: int = 112, precision: str = "bf16", **data: Any) -> TrainProfile:
    return TrainProfile(
        data=DataSettings(**data),
        model=ModelSettings(image_size=image_size),
        head=AttFCSettings(num_references=references),
        optim=OptimSettings(batch_size=BATCH),
        run=RunSettings(precision=precision, steps=1),  # type: ignore[arg-type]
    ).resolve(1000)


def step_of(milliseconds: float) -> OpCost:
    """An operator that moves so many bytes that it takes about so long on the test card."""
    return OpCost("add", "elementwise", "backward", 0, round(milliseconds * 1e9), 1)


def speed_of(cores: int | None, cost: OpCost = FAST, rate: DecodeRate = STATED, **changes: Any) -> SpeedPrediction:
    gpu = make_gpu() if cores is None else make_gpu(num_cores=cores)
    return predict_speed(profile(**changes), gpu, [cost], rate)


@pytest.mark.parametrize(("cores", "workers", "helping"), [(64, 0, 16), (64, 32, 32), (4, 0, 4), (4, 32, 4), (64, 2, 2)])
def test_images_are_decoded_by_the_loaders_threads_at_most_one_a_core(cores: int, workers: int, helping: int) -> None:
    speed = speed_of(cores, num_workers=workers)
    assert speed.limited_by == f"data loading ({helping} cores)"
    assert speed.images_per_second.high == pytest.approx(helping * STATED.per_core.high, rel=1e-3)
    assert speed.images_per_second.low == pytest.approx(helping * STATED.per_core.low, rel=1e-3)


@pytest.mark.parametrize(("references", "image_size", "images"), [(2, 112, 3), (0, 224, 4), (1, 224, 8)])
def test_references_and_pixels_cost_decoding(references: int, image_size: int, images: int) -> None:
    speed = speed_of(4, references=references, image_size=image_size)
    assert speed.loading.ceiling == pytest.approx(speed_of(4).loading.ceiling / images)
    assert speed.images_per_second.low == pytest.approx(4 * STATED.per_core.low / images, rel=1e-3)


def test_an_unknown_host_limits_nothing_and_tells_its_cores() -> None:
    """Catches eight assumed cores, which would limit this card."""
    speed = speed_of(None)
    assert "data loading" not in speed.limited_by
    assert speed.loading.fed is None
    assert speed.loading.ceiling == math.inf
    loading = speed.loading.to_save()
    assert loading.needed_cores is not None
    assert loading.needed_cores > 16
    assert loading_words(loading, 0) == (f"takes about {loading.needed_cores} cores of the host; --cores says how many it has")
    assert midpoint(speed.images_per_second) > midpoint(speed_of(16).images_per_second)


@pytest.mark.parametrize("references", [0, 1, 2])
@pytest.mark.parametrize("milliseconds", [4.0, 9.7, 31.0, 200.0])
def test_the_cores_that_are_named_feed_the_step_and_one_less_does_not(references: int, milliseconds: float) -> None:
    """Catches a number of cores from other ends of the intervals than those that `limited by` goes by."""
    changes: dict[str, Any] = {"cost": step_of(milliseconds), "references": references, "num_workers": 256}
    needed = speed_of(None, **changes).loading.needed_cores
    assert needed is not None
    enough = speed_of(needed, **changes)
    assert "data loading" not in enough.limited_by
    assert not enough.loading.is_limit
    if needed > 1:
        few = speed_of(needed - 1, **changes)
        assert few.limited_by.startswith("data loading")
        assert few.loading.is_limit
        assert few.loading.needed_cores == needed


def test_a_set_that_stays_decoded_in_memory_limits_nothing() -> None:
    fits = {"num_images": 14_266, "cache_bytes": 512 * 1024**2}  # 3 x 112^2 bytes each: 14,266 fit, one more does not
    assert stays_decoded(14_266, 112, 512 * 1024**2)
    assert not stays_decoded(14_267, 112, 512 * 1024**2)
    assert not stays_decoded(None, 112, 512 * 1024**2)
    kept = speed_of(1, **fits)
    assert "data loading" not in kept.limited_by
    assert kept.loading.needed_cores is None
    assert loading_words(kept.loading.to_save(), 0) == "none after the first epoch: all decoded images stay in memory"
    assert core_rate_words(kept.loading.to_save()) == ""
    assert speed_of(1, num_images=14_267).limited_by == "data loading (1 core)"


def test_a_cpu_decodes_on_the_cores_that_train() -> None:
    cpu = make_gpu(kind="cpu", architecture="cpu", num_cores=2)
    speed = predict_speed(profile(precision="fp32"), cpu, [step_of(10)])
    assert speed.loading.needed_cores is None
    assert loading_words(speed.loading.to_save(), 0).startswith(
        "2 cores would decode about 13,500 images/s (7,000 to 20,000), "
    )
    kept = predict_speed(profile(precision="fp32", num_images=2000), cpu, [step_of(10)])
    assert kept.images_per_second.high > speed.images_per_second.high


def test_what_was_measured_takes_the_stated_rates_place_and_is_wider_for_another_host() -> None:
    rate = DecodeRate.measured(4000, 112, "on 512 images of faces, 2026-01-02")
    assert rate.per_core == Range(4000 * LOADER_SHARE.low, 4000 * LOADER_SHARE.high)
    here = make_gpu(num_cores=4)
    here = here.model_copy(update={"sources": {**here.sources, "num_cores": THIS_HOST}})
    assert rate.on(here) is rate
    other = rate.on(make_gpu(num_cores=4))
    assert (other.per_core.low, other.per_core.high) == pytest.approx(
        (4000 * LOADER_SHARE.low / 1.3, 4000 * LOADER_SHARE.high * 1.3)
    )
    assert other.on(make_gpu()) is other, "wider once"
    assert STATED.on(make_gpu()) is STATED
    speed = predict_speed(profile(), here, [FAST], rate)
    assert speed.images_per_second.high == pytest.approx(4 * 4000 * LOADER_SHARE.high, rel=1e-3)
    assert "measured: 4,000 images a second of a core, on 512 images of faces" in core_rate_words(speed.loading.to_save())
    assert DecodeRate.saved(speed.loading.to_save()) == rate


@pytest.mark.parametrize(
    ("cores", "workers", "expected"),
    [
        (1, 64, r"\d+ cores would feed it"),
        (1, 0, r"\d+ cores would feed it \(with attfc-train --set data\.num_workers=\d+\)"),
        (200, 0, r"\d+ cores would feed it: attfc-train --set data\.num_workers=\d+"),
    ],
)
def test_the_remedy_names_cores_and_threads(cores: int, workers: int, expected: str) -> None:
    """Catches advice to buy cores that are there, and cores without the threads that would use them."""
    speed = speed_of(cores, step_of(0.5), num_workers=workers)
    loading = speed.loading.to_save()
    assert loading.is_limit
    assert loading.needed_cores is not None
    assert 16 < loading.needed_cores < 64
    assert re.fullmatch(expected, feeding_words(loading))


def test_no_more_threads_are_advised_than_can_be_set() -> None:
    """Catches ``--set data.num_workers=300``, which is refused."""
    slow = DecodeRate(Range(100, 100), 112, "large files")
    words = feeding_words(speed_of(1, step_of(0.8), slow).loading.to_save())
    assert "num_workers" not in words
    assert "256" in words


def test_measured_steps_wait_for_the_loader() -> None:
    bare = speed_of(2)
    fed = bare.with_steps(1000.0, "steps")
    assert (fed.images_per_second.low, fed.limited_by) == (1000, "train step")
    assert fed.loading.needed_cores == 1
    waiting = bare.with_steps(50_000.0, "steps")
    assert waiting.images_per_second.low == pytest.approx(bare.loading.ceiling)
    assert waiting.limited_by == "data loading (2 cores)"
    assert waiting.loading.needed_cores == math.ceil(50_000 / 6750)


def test_a_cpu_trains_measured_steps_and_decodes_one_after_the_other() -> None:
    """Catches the slower of both, as beside a GPU, which would promise up to twice the images."""
    cpu = make_gpu(kind="cpu", architecture="cpu", num_cores=2)
    bare = predict_speed(profile(precision="fp32"), cpu, [step_of(200)])
    fed = bare.with_steps(bare.loading.ceiling, "steps")
    assert fed.images_per_second.low == pytest.approx(bare.loading.ceiling / 2)
    assert "data loading" not in bare.with_steps(100.0, "steps").limited_by
    assert bare.with_steps(10**6, "steps").limited_by == "data loading (2 cores)"


@pytest.mark.parametrize("kept", [{}, {"num_images": 2000}])
@pytest.mark.parametrize("cores", [None, 1])
def test_a_gpu_that_decodes_is_not_limited_by_the_host(cores: int | None, kept: dict[str, int]) -> None:
    """Catches cores that decode nothing, and images that would be kept in memory: with ``data.device=cuda`` none are."""
    speed = speed_of(cores, device="cuda", **kept)
    assert "data loading" not in speed.limited_by
    assert midpoint(speed.images_per_second) == midpoint(speed_of(None).images_per_second)
    loading = speed.loading.to_save()
    assert (loading.device, loading.is_limit, loading.needed_cores, loading.images_per_second) == ("cuda", False, None, None)
    words = loading_words(loading, 1)
    assert "data.device=cuda" in words
    assert "unknown" in words
    assert core_rate_words(loading) == ""


def test_another_host_is_said_and_a_cpu_has_none() -> None:
    gpu = make_gpu(num_cores=64)
    few: GpuProfile = gpu.in_host(2)
    assert (few.num_cores, few.sources["num_cores"]) == (2, "--cores, in place of a test")
    assert gpu.in_host(None) is gpu
    assert make_gpu().in_host(2).sources["num_cores"] == "--cores"
    with pytest.raises(UsageError, match="--cores must be about the host of a GPU, but got 2 for Test card"):
        make_gpu(kind="cpu", architecture="cpu", num_cores=4).in_host(2)
