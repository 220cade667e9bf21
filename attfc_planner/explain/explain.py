"""The explanation of a profile's memory: its terms, its peak, its step over time, and the change that each knob would make.

Nothing here is interpolated: the profile and every variation of it are traced as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from attfc_planner.accuracy.prior import Part, accuracy_parts, accuracy_prior, midpoint, source_of
from attfc_planner.accuracy.regression import MeasuredAccuracy
from attfc_planner.explain.variations import Variation, variations
from attfc_planner.gpu.profile import GpuProfile
from attfc_planner.memory.model import peak_of
from attfc_planner.memory.timeline import LiveStorage, Timeline, largest_alive, timeline_of
from attfc_planner.speed.loading import STATED, DecodeRate
from attfc_planner.speed.model import SpeedPrediction, predict_speed
from attfc_planner.trace.history import Trace
from attfc_train.errors import ProfileError
from attfc_train.profile.file import resolve_profile
from attfc_train.profile.prediction import NCCL_BUFFERS, MemoryPrediction, MemoryTerm
from attfc_train.profile.profile import BACKBONE_NAMES, TrainProfile
from attfc_train.units import Bytes, format_bytes

NUM_STORAGES = 8
"""Storages that are listed at the peak."""

GROUPS = {
    "kept between steps": ("weights", "class encoder", "teacher", "momentum", "container"),
    "comes and goes within a step": (
        "activations",
        "gradients",
        "input",
        "loss",
        "convolution workspace",
        "embeddings",
        "setup",
    ),
    "beside the tensors": ("context", "workspace", NCCL_BUFFERS, "foreign", "data"),
    "reserve": ("fragmentation", "headroom"),
}
"""Heading -> names of terms."""


class ExactMemory(Protocol):
    """The part of `attfc_planner.memory.model.MemoryModel` that an explanation needs."""

    def prepare_exact(self, profiles: Iterable[TrainProfile]) -> None:
        """Trace many profiles at once."""
        ...

    def exact(self, profile: TrainProfile) -> MemoryPrediction:
        """Return the peak memory of two real steps of exactly this profile."""
        ...

    def history(self, profile: TrainProfile) -> Trace:
        """Return the trace of these steps."""
        ...

    def head_bytes(self, profiles: Sequence[TrainProfile]) -> list[Bytes]:
        """Return what the head of each keeps on the device between steps."""
        ...


@dataclass(frozen=True)
class KnobChange:
    """The change that a knob makes, turned alone."""

    name: str
    bytes_changed: Bytes
    """Change of the predicted total; negative frees memory."""
    time_changed: float
    """Change of the predicted time per image, as a share: 0.09 is 9 % slower."""
    points_changed: float | None
    """Change of the middle of the accuracy's interval; None where it does not look at the knob."""


@dataclass(frozen=True)
class Explanation:
    """The content of ``attfc-plan explain``."""

    profile: TrainProfile
    gpu: GpuProfile
    memory: MemoryPrediction
    speed: SpeedPrediction
    timeline: Timeline
    head_bytes: Bytes
    """Kept by the head between steps: buffers, parameters and their momentum."""
    room_bytes: Bytes
    """Room for the step's tensors: the budget less all terms that are no tensors."""
    peak_in_step: bool
    """False: the fullest instant of all is in the construction or the first step, and the timeline stays below it."""
    storages: tuple[LiveStorage, ...]
    """The largest at the peak."""
    knobs: tuple[KnobChange, ...]
    """The knobs that free most first."""
    accuracy_parts: tuple[Part, ...]
    """Parts of the prior, or of the regression over a tuning's trainings."""
    accuracy_source: str


def explained_profile(profile: TrainProfile, gpu: GpuProfile) -> TrainProfile:
    """Return the profile with everything in it a number.

    Raises:
        ProfileError: the backbone or the identities are not known, or the device lacks the precision.
    """
    num_ids = profile.data.num_ids
    if profile.model.backbone not in BACKBONE_NAMES:
        names = ", ".join(BACKBONE_NAMES)
        raise ProfileError("model.backbone must be a known name", f"'{profile.model.backbone}'", f"Choose one of: {names}.")
    if num_ids is None:
        raise ProfileError("data.num_ids must be known to explain a profile", "none", "Write it with attfc-plan --ids.")
    if not gpu.supports(profile.run.precision):
        rule = f"run.precision must be one that {gpu.name} has"
        raise ProfileError(rule, f"'{profile.run.precision}'", "Choose another --gpu, or plan for this one.")
    return resolve_profile(profile, num_ids, profile.data.num_images or 0)


def explain(
    profile: TrainProfile, gpu: GpuProfile, model: ExactMemory, measured: MeasuredAccuracy | None = None
) -> Explanation:
    """Trace a profile and all its variations, and explain them.

    Args:
        profile: resolved; its precision must be one that `gpu` supports.
        measured: the regression over trainings, in the prior's place.
    """
    changes = variations(profile, gpu)
    model.prepare_exact([profile, *(change.profile for change in changes)])
    memory = model.exact(profile)
    history = model.history(profile)
    speed = predict_speed(profile, gpu, history.costs[-1], decoding_of_profile(profile))
    peak = peak_of(history, history.nbytes)
    timeline = timeline_of(history)
    tensors = sum(peak.alive.values())
    points = partial(_points, measured=measured)

    def points_changed(change: Variation) -> float | None:
        return points(change.profile) - points(profile) if measured or change.in_prior else None

    knobs = [_change(change, memory.total_bytes, speed, points_changed(change), gpu, model) for change in changes]
    return Explanation(
        profile=profile,
        gpu=gpu,
        memory=memory,
        speed=speed,
        timeline=timeline,
        head_bytes=model.head_bytes([profile])[0],
        room_bytes=memory.budget_bytes - (memory.total_bytes - tensors),
        peak_in_step=timeline.peak_bytes == tensors,
        storages=largest_alive(history, peak.event, NUM_STORAGES),
        knobs=tuple(sorted(knobs, key=lambda knob: (knob.bytes_changed, knob.name))),
        accuracy_parts=measured.parts(profile) if measured else accuracy_parts(profile),
        accuracy_source=measured.source(profile) if measured else source_of(profile),
    )


def decoding_of_profile(profile: TrainProfile) -> DecodeRate:
    """Return what a core decodes: what the profile was planned with, else the stated rate."""
    loading = None if profile.prediction is None else profile.prediction.loading
    return STATED if loading is None else DecodeRate.saved(loading)


def hosted(gpu: GpuProfile, profile: TrainProfile, cores: int | None) -> GpuProfile:
    """Return the device that a profile was planned for in the host that it was planned for.

    Args:
        cores: those of another host; None: the profile's.

    Raises:
        UsageError: cores are given for a CPU.
    """
    loading = None if profile.prediction is None else profile.prediction.loading
    saved = None if loading is None or gpu.kind == "cpu" else loading.host_cores
    return gpu.in_host(saved if cores is None else cores)


def _points(profile: TrainProfile, measured: MeasuredAccuracy | None) -> float:
    """Return points relative to a full FC layer."""
    return midpoint(measured.interval(profile) if measured else accuracy_prior(profile))


def grouped_terms(memory: MemoryPrediction) -> dict[str, list[MemoryTerm]]:
    """Return the terms that are not zero under the headings of `GROUPS`, the largest of each first."""
    all_names = {name for names in GROUPS.values() for name in names}
    assert all(term.name in all_names for term in memory.terms), "a term that no heading has"
    terms = sorted((term for term in memory.terms if term.bytes), key=lambda term: -term.bytes)
    groups = {heading: [term for term in terms if term.name in names] for heading, names in GROUPS.items()}
    return {heading: members for heading, members in groups.items() if members}


def differences(profile: TrainProfile, now: MemoryPrediction, gpu: GpuProfile, versions: dict[str, str]) -> tuple[str, ...]:
    """Return a line for everything that is not as the profile's own prediction says; none where it still holds.

    Args:
        versions: of ``attfc`` and ``torch``, as installed.
    """
    stored = profile.prediction
    origin = profile.provenance
    if stored is None or origin is None:
        return ("The profile holds no prediction to compare with.",)
    if origin.gpu != gpu.name:
        return (f"The profile was planned for {origin.gpu}; this is about {gpu.name}.",)
    then = {term.name: term.bytes for term in stored.memory.terms}
    today = {term.name: term.bytes for term in now.terms}
    names = [name for name in {**then, **today} if then.get(name, 0) != today.get(name, 0)]
    if not names:
        return ()
    lines = [f"{name}: {format_bytes(then.get(name, 0))} then, {format_bytes(today.get(name, 0))} now" for name in names]
    planned_with = {"attfc": origin.attfc_version, "torch": origin.torch_version}
    lines += [f"{name}: {planned_with[name]} then, {here} now" for name, here in versions.items() if planned_with[name] != here]
    totals = f"{format_bytes(stored.memory.total_bytes)} then, {format_bytes(now.total_bytes)} now"
    return (f"The profile's own prediction is not what is computed now: {totals}.", *lines)


def _change(
    change: Variation, total: Bytes, speed: SpeedPrediction, points_changed: float | None, gpu: GpuProfile, model: ExactMemory
) -> KnobChange:
    speed_then = predict_speed(
        change.profile, gpu, model.history(change.profile).costs[-1], decoding_of_profile(change.profile)
    )
    return KnobChange(
        name=change.name,
        bytes_changed=model.exact(change.profile).total_bytes - total,
        # time per image = 1 / rate, so time then / time now - 1 = rate now / rate then - 1
        time_changed=midpoint(speed.images_per_second) / midpoint(speed_then.images_per_second) - 1,
        points_changed=points_changed,
    )
