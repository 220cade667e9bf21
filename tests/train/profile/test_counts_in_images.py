"""Warm-up and ramps: in steps as before, or in images, which fit every batch size and every length of run."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attfc_train.heads.attfc.settings import AttFCSettings
from attfc_train.heads.pace import REPLACED, Pace
from attfc_train.optim import schedule
from attfc_train.profile.file import load_preset, preset_names, with_overrides
from attfc_train.profile.profile import TrainProfile

IN_STEPS: dict[str, Any] = {
    "schema_version": 1,
    "head": {
        "kind": "attfc",
        "encoder_momentum": 0.99,
        "encoder_momentum_ramp_steps": 400,
        "margin": {"kind": "cosface", "margin": 0.2, "scale": 30.0, "ramp_steps": 200},
    },
    "optim": {"batch_size": 128, "warmup_steps": 20},
    "run": {"epochs": 2.0},
}
"""As the first release wrote profiles."""


def counts(profile: TrainProfile) -> tuple[int | None, int | None, int | None, float]:
    head = profile.head
    assert isinstance(head, AttFCSettings)
    return profile.optim.warmup_steps, head.margin.ramp_steps, head.encoder_momentum_ramp_steps, head.encoder_momentum


@pytest.mark.parametrize("num_images", [4_000, 12_800, 10**6])
def test_a_profile_in_steps_means_what_it_meant(num_images: int) -> None:
    """Catches bounds on steps that a profile gives itself: a run of 62 steps ramps for 200 of them, as it always did."""
    resolved = TrainProfile.model_validate(IN_STEPS).resolve(100, num_images)
    assert counts(resolved) == (20, 200, 400, 0.99)
    assert counts(resolved.resolve(100, num_images)) == counts(resolved)


def test_a_profile_that_says_nothing_has_no_ramps() -> None:
    """Catches another default than the former 0."""
    assert counts(TrainProfile().resolve(100, 10_000)) == (0, 0, 0, 0.999)


def test_a_profile_in_images_trains_as_one_in_the_same_steps() -> None:
    """Catches an image count that some schedule does not see: rate, margin and momentum agree in every step, bit for bit."""
    document = json.loads(json.dumps(IN_STEPS))
    document["optim"] = {"batch_size": 128, "warmup_images": 20 * 128}
    document["head"] |= {"encoder_momentum_ramp_images": 400 * 128, "encoder_momentum_ramp_steps": None}
    document["head"]["margin"] |= {"ramp_images": 200 * 128, "ramp_steps": None}
    left, right = (TrainProfile.model_validate(each).resolve(100, 64_000) for each in (IN_STEPS, document))
    assert left == right
    for step in range(left.total_steps):
        rates = {schedule.learning_rate(each.optim, step, each.total_steps) for each in (left, right)}
        margins = {schedule.margin(each.head.margin, step) for each in (left, right)}
        assert len(rates) == len(margins) == 1


def test_presets_begin_as_they_did_at_their_own_batch_size() -> None:
    """Catches an image count that is not the former steps times the preset's batch."""
    found = {name: counts(load_preset(name).resolve(10_000, 10**7))[:3] for name in ("attfc", "attfc-paper", "tiny")}
    assert found == {"attfc": (1000, 0, 2000), "attfc-paper": (0, 0, 0), "tiny": (20, 200, 400)}
    assert [load_preset(name).resolve(10_000, 10**7).optim.warmup_steps for name in ("full-fc", "partial-fc")] == [1000, 1000]


@given(
    st.sampled_from(preset_names()), st.integers(2, 2048).map(lambda half: 2 * half), st.integers(2, 10**6), st.floats(0.01, 50)
)
def test_every_preset_fits_every_size(name: str, batch_size: int, num_images: int, epochs: float) -> None:
    """Catches a warm-up that is longer than the run, which is refused, and a ramp that outlasts it."""
    base = with_overrides(load_preset(name), [f"optim.batch_size={batch_size}", f"run.epochs={epochs}"])
    profile = base.resolve(100, num_images)
    steps = profile.total_steps
    assert profile.optim.warmup <= 0.1 * steps
    assert profile.head.margin.ramp <= 0.5 * steps
    encoder = profile.head.class_encoder
    assert encoder is None or encoder.ramp_steps <= steps


def test_a_run_of_unknown_length_keeps_its_images() -> None:
    """Catches a bound by a length that is not known, and a plan without it that loses what the trainer must bound."""
    preset = with_overrides(load_preset("attfc"), ["optim.batch_size=64"])
    unknown = preset.resolve(100)
    assert unknown.optim == preset.optim
    assert counts(unknown.resolve(100, 10**6)) == (6000, 0, 12_000, 0.999)
    assert counts(unknown.resolve(100, 2_000)) == (15, 0, 156, 0.999)


def test_the_momentum_can_be_given_by_what_it_remembers() -> None:
    """Catches 1 - m that does not follow the batch, and a momentum that stands beside its own time constant."""
    heads = []
    for batch_size in (64, 384):
        assignments = [f"optim.batch_size={batch_size}", "head.encoder_momentum_images=384000"]
        heads.append(with_overrides(load_preset("attfc"), assignments).resolve(100, 10**6).head)
    small, usual = heads
    assert isinstance(small, AttFCSettings)
    assert isinstance(usual, AttFCSettings)
    assert usual.encoder_momentum == pytest.approx(0.999, abs=1e-6)
    assert small.encoder_momentum**6 == pytest.approx(usual.encoder_momentum, rel=1e-12), "Busbridge et al. 2023"
    assert small.encoder_momentum_images is None
    assert Pace(384, 100).momentum_for(384_000) == usual.encoder_momentum


@pytest.mark.parametrize("setting", REPLACED)
def test_set_replaces_the_other_unit(setting: str) -> None:
    """Catches ``--set optim.warmup_images`` on a plan in steps, where steps would win without a word; and steps of 0."""
    section = "optim" if setting.startswith("warmup") else "head.margin" if setting.startswith("ramp") else "head"
    other, nothing = REPLACED[setting]
    value: Any = 0.5 if setting == "encoder_momentum" else 0

    def of(profile: TrainProfile, name: str) -> Any:
        node = {"optim": profile.optim, "head": profile.head, "head.margin": profile.head.margin}[section]
        return getattr(node, name)

    given = with_overrides(load_preset("tiny"), [f"{section}.{other}=7"])
    assert of(given, other) == 7
    changed = with_overrides(given, [f"{section}.{setting}={value}"])
    assert (of(changed, setting), of(changed, other)) == (value, nothing)
    names = (each for each in vars(given.head) if each not in ("margin", setting, other))
    assert all(getattr(changed.head, name) == getattr(given.head, name) for name in names)
