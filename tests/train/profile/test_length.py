"""A run of another length than was planned: warm-up and ramps that do not fit into it follow it."""

from __future__ import annotations

from typing import Any

import pytest

from attfc_train.errors import ProfileError
from attfc_train.heads.attfc.settings import AttFCSettings
from attfc_train.profile.file import load_preset, parse_profile, resolve_profile, with_overrides
from attfc_train.profile.profile import TrainProfile
from tests.train.run.test_preflight import planned as with_prediction

PROVENANCE = {
    "attfc_version": "1",
    "torch_version": "2",
    "created": "2026-01-02",
    "gpu": "a card",
    "gpu_source": "catalogue entry a-card, not measured",
    "command": "attfc-plan --ids 4000 --images 1000000",
    "seed": 0,
    "num_trials": 40,
}


def planned(**optim: Any) -> TrainProfile:
    """Return a profile as a plan for a million images has it: in steps, and of any length."""
    document = load_preset("attfc").model_dump(mode="json")
    document["optim"] |= {"batch_size": 128, "warmup_steps": 2000, "warmup_images": 0, **optim}
    document["head"] |= {"encoder_momentum_ramp_steps": 6000, "encoder_momentum_ramp_images": 0}
    document["head"]["margin"] |= {"ramp_steps": 4000, "ramp_images": 0}
    document["run"] |= {"epochs": 5.0, "steps": None}
    document["provenance"] = PROVENANCE
    return parse_profile(document, "a plan")


def ramps(profile: TrainProfile) -> tuple[int, int | None, int | None]:
    assert isinstance(profile.head, AttFCSettings)
    return profile.optim.warmup, profile.head.margin.ramp_steps, profile.head.encoder_momentum_ramp_steps


def test_what_fits_is_taken_as_it_is() -> None:
    assert ramps(planned().resolve(4000, 10**6)) == (2000, 4000, 6000)


def test_what_does_not_fit_follows_the_run() -> None:
    """Catches a plan that cannot be trained: 5 epochs of 666 images are 26 steps, and its warm-up had 2,000."""
    short = planned().resolve(600, 666)
    assert short.total_steps == 26
    assert ramps(short) == (2, 13, 26)
    middle = planned().resolve(4000, 128 * 1000)
    assert middle.total_steps == 5000
    assert ramps(middle) == (2000, 4000, 5000)


@pytest.mark.parametrize("num_images", [2, 3, 25, 26, 51, 128, 130, 1000])
def test_a_plan_can_be_trained_on_any_number_of_images(num_images: int) -> None:
    resolved = planned().resolve(2, num_images)
    assert resolved.optim.warmup < resolved.total_steps


def test_another_length_by_set_takes_them_along() -> None:
    """Catches a refusal of ``--set run.steps=26``, which names a number that the user never gave."""
    assert ramps(with_overrides(planned(), ["run.steps=26"]).resolve(4000, 10**6)) == (2, 13, 26)
    assert ramps(with_overrides(planned().resolve(4000, 10**6), ["run.epochs=0.01"]).resolve(4000, 10**6)) == (7, 39, 78)
    assert ramps(with_overrides(planned(), ["run.steps=30000"]).resolve(4000, 10**6)) == (2000, 4000, 6000)


def test_what_somebody_wrote_is_taken_as_it_is_written() -> None:
    """Catches a rule for plans that changes other profiles; `test_counts_in_images` has ramps that outlast their run."""
    written = planned().model_copy(update={"provenance": None})
    with pytest.raises(ProfileError, match=r"warmup_steps must be less than the run's steps, but got 2000 and 26"):
        resolve_profile(written, 600, 666)
    with pytest.raises(ProfileError, match=r"but got 2000 and 26"):
        with_overrides(written, ["run.steps=26"])


def test_a_contradiction_of_ones_own_is_refused() -> None:
    """Both numbers are the user's: neither is a mistake of a plan."""
    with pytest.raises(ProfileError, match=r"warmup_steps must be less than the run's steps, but got 26 and 26"):
        with_overrides(planned(), ["run.steps=26", "optim.warmup_steps=26"])


@pytest.mark.parametrize("value", ["0", "-1", "x", "1.5", "null0", str(10**19)])
def test_a_length_that_is_none_is_refused(value: str) -> None:
    with pytest.raises(ProfileError, match=r"run\.steps"):
        with_overrides(planned(), [f"run.steps={value}"])


def test_a_shorter_run_keeps_its_prediction() -> None:
    """Catches a plan that is dropped because ramps, which must end before the run does, became shorter with it."""
    plan = with_prediction().prediction
    long = planned().model_copy(update={"prediction": plan})
    short = with_overrides(long, ["run.steps=80"])
    assert short.head != long.head
    assert short.prediction == plan
    assert with_overrides(long, ["head.margin.scale=20"]).prediction is None, "what it says of accuracy does not hold"
