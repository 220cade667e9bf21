"""The knobs of a training profile, each turned alone: the question behind "what would free memory?"."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

from attfc_planner.gpu.profile import GpuProfile
from attfc_planner.knobs.space import BATCH_SIZE, CHECKPOINTING_PHRASES
from attfc_train.document import Precision
from attfc_train.profile.profile import TrainProfile


@dataclass(frozen=True)
class Variation:
    """A profile with one knob turned."""

    name: str
    """Knob, value now and value then, such as ``batch size 512 -> 384``."""
    profile: TrainProfile
    in_prior: bool = True
    """Whether the accuracy prior looks at this knob."""


def variations(profile: TrainProfile, gpu: GpuProfile) -> tuple[Variation, ...]:
    """Return a variation for every knob that can be turned: none that the schema or the device refuses.

    Args:
        profile: resolved.
    """
    return (*_network(profile), *_batch(profile), *_head(profile), *_precision(profile, gpu))


def _network(profile: TrainProfile) -> Iterator[Variation]:
    """Yield the other ways of checkpointing, the one that takes most memory first."""
    for other, phrase in CHECKPOINTING_PHRASES.items():
        if other != profile.model.gradient_checkpointing:
            name = phrase or "no gradient checkpointing"
            yield Variation(name, _with(profile, "model", gradient_checkpointing=other))


def _batch(profile: TrainProfile) -> Iterator[Variation]:
    """Yield the next smaller batch size of the search, and the same batch in twice as many parts."""
    size = profile.optim.batch_size
    parts = profile.optim.accumulation
    passes = profile.num_passes * profile.run.gpus
    sizes = cast("tuple[int, ...]", BATCH_SIZE.values)
    smaller = [other for other in sizes if other < size and other % passes == 0 and other >= 2 * passes]
    if smaller:
        # As many images are seen, in more steps: else the prior would be asked about a shorter training.
        steps = max(1, round(profile.total_steps * size / smaller[-1]))
        longer = _with(profile, "run", steps=steps)
        yield Variation(f"batch size {size} -> {smaller[-1]}", _with(longer, "optim", batch_size=smaller[-1]))
    if size % (2 * passes) == 0 and size >= 4 * passes:
        yield Variation(f"accumulation {parts} -> {2 * parts}", _with(profile, "optim", accumulation=2 * parts))


def _head(profile: TrainProfile) -> Iterator[Variation]:
    for name, head in profile.head.variations():
        yield Variation(name, profile.model_copy(update={"head": head}))


def _precision(profile: TrainProfile, gpu: GpuProfile) -> Iterator[Variation]:
    """Yield the best 16-bit format of the device for 32 bits, and 32 bits for 16."""
    now = profile.run.precision
    wanted: tuple[Precision, ...] = ("bf16", "fp16") if now == "fp32" else ("fp32",)
    supported = [precision for precision in wanted if gpu.supports(precision)]
    if supported:
        name = f"precision {now} -> {supported[0]}"
        yield Variation(name, _with(profile, "run", precision=supported[0]), in_prior=False)


def _with(profile: TrainProfile, section: str, **values: Any) -> TrainProfile:
    """Return a copy with other values in one section."""
    return profile.model_copy(update={section: getattr(profile, section).model_copy(update=values)})
