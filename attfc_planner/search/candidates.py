"""A setting with what is predicted for it: memory, speed and accuracy."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import NamedTuple, Protocol, TypeAlias

from attfc_planner.accuracy.prior import accuracy_prior, midpoint
from attfc_planner.gpu.profile import GpuProfile
from attfc_planner.knobs.space import Setting, knobs_of, with_head
from attfc_planner.speed.loading import STATED, DecodeRate
from attfc_planner.speed.model import SpeedPrediction, hours_per_epoch, predict_speed
from attfc_train.document import Value
from attfc_train.heads.settings import HeadSettings
from attfc_train.profile.prediction import Interval, MemoryPrediction
from attfc_train.profile.profile import TrainProfile
from attfc_train.timing.op_cost import OpCost
from attfc_train.units import Bytes


class MemoryEstimator(Protocol):
    """The part of `attfc_planner.memory.model.MemoryModel` that the search needs."""

    def prepare(self, profiles: Iterable[TrainProfile]) -> None:
        """Trace the structures of many profiles at once, which is faster than one by one."""
        ...

    def estimate(self, profile: TrainProfile) -> MemoryPrediction:
        """Return the peak memory to about 1 %, in milliseconds."""
        ...

    def exact(self, profile: TrainProfile) -> MemoryPrediction:
        """Return the peak memory of two real steps of exactly this profile."""
        ...

    def op_costs(self, profile: TrainProfile) -> tuple[OpCost, ...]:
        """Return FLOPs and bytes of the operators of one train step."""
        ...

    def head_bytes(self, profiles: Sequence[TrainProfile]) -> list[Bytes]:
        """Return what the head of each keeps on the device between steps."""
        ...


HOURS_OF_IMAGES = 10**6
"""Images that `Candidate.hours` is about where the number of images is not known."""


@dataclass(frozen=True)
class Candidate:
    """A setting and its predictions; memory and speed, which cost far more than the rest, are looked up when asked for."""

    setting: Setting
    profile: TrainProfile
    accuracy: Interval
    predict_speed: Callable[[], SpeedPrediction]
    predict_memory: Callable[[], MemoryPrediction]
    is_measured: bool = False
    """Whether the accuracy comes from trainings on the user's data."""

    @cached_property
    def memory(self) -> MemoryPrediction:
        """The predicted peak by term."""
        return self.predict_memory()

    @cached_property
    def speed(self) -> SpeedPrediction:
        """The predicted rate and what limits it."""
        return self.predict_speed()

    @property
    def memory_bytes(self) -> Bytes:
        """Predicted peak, headroom included."""
        return self.memory.total_bytes

    @property
    def images_per_second(self) -> float:
        """Middle of the predicted interval."""
        return midpoint(self.speed.images_per_second)

    @property
    def hours(self) -> float:
        """Time to train all epochs; for `HOURS_OF_IMAGES` where the number of images is not known."""
        num_images = self.profile.data.num_images
        trained_images = HOURS_OF_IMAGES if num_images is None else self.profile.run.epochs * num_images
        return trained_images / self.images_per_second / 3600

    @property
    def hours_interval(self) -> Interval | None:
        """Ends of `hours`; None where the number of images is not known."""
        if self.profile.data.num_images is None:
            return None
        trained_images = round(self.profile.run.epochs * self.profile.data.num_images)
        return hours_per_epoch(self.speed.images_per_second, trained_images)

    @property
    def accuracy_points(self) -> float:
        """Middle of the predicted interval, in points relative to a full FC layer."""
        return midpoint(self.accuracy)

    @property
    def credited_points(self) -> float:
        """Points against a full FC layer; by the prior, being ahead counts only where the whole band is."""
        return self.accuracy_points if self.is_measured else min(self.accuracy_points, max(0.0, self.accuracy.low))


Evaluate: TypeAlias = Callable[[Setting], Candidate]
PredictAccuracy: TypeAlias = Callable[[TrainProfile], Interval]
"""Predicts points against a full FC layer for a profile whose data.num_ids is known."""


class Known(NamedTuple):
    """What a request makes of a setting, whatever the device."""

    profile: TrainProfile
    accuracy: Interval
    cost_key: Setting
    """See `alike_in_cost`."""


class Evaluator:
    """The judge of settings; it asks for memory and speed once for all that differ in accuracy alone.

    Args:
        base: the resolved profile that settings are applied to.
        accuracy: the prior, or a regression over trainings. In it no knob may change what a longer queue is worth, and neither
            checkpointing nor accumulation may count (`attfc_planner.search.screening`).
        is_measured: whether it is that regression.
        known: what is known already, of the same request on other devices, and is added to.
        decoding: what a core of the host decodes.
    """

    def __init__(
        self,
        base: TrainProfile,
        gpu: GpuProfile,
        model: MemoryEstimator,
        accuracy: PredictAccuracy = accuracy_prior,
        is_measured: bool = False,
        known: dict[Setting, Known] | None = None,
        decoding: DecodeRate = STATED,
    ) -> None:
        self._base = base
        self._gpu = gpu
        self._model = model
        self._accuracy = accuracy
        self._is_measured = is_measured
        self._decoding = decoding
        self._known = {} if known is None else known
        self._speed: dict[Setting, SpeedPrediction] = {}
        self._memory: dict[Setting, MemoryPrediction] = {}

    def __call__(self, setting: Setting) -> Candidate:
        """Return the candidate for `setting`, whose accumulation must divide its batch."""
        if setting not in self._known:
            profile = setting.applied_to(self._base)
            self._known[setting] = Known(profile, self._accuracy(profile), alike_in_cost(self._base, setting))
        known = self._known[setting]
        return Candidate(
            setting,
            known.profile,
            known.accuracy,
            predict_speed=lambda: self._predicted_speed(known.cost_key),
            predict_memory=lambda: self._estimated(known.cost_key),
            is_measured=self._is_measured,
        )

    def _predicted_speed(self, key: Setting) -> SpeedPrediction:
        if key not in self._speed:
            profile = self._profile(key)
            self._speed[key] = predict_speed(profile, self._gpu, self._model.op_costs(profile), self._decoding)
        return self._speed[key]

    def _estimated(self, key: Setting) -> MemoryPrediction:
        if key not in self._memory:
            self._memory[key] = self._model.estimate(self._profile(key))
        return self._memory[key]

    def _profile(self, setting: Setting) -> TrainProfile:
        known = self._known.get(setting)
        return setting.applied_to(self._base) if known is None else known.profile


def alike_in_cost(base: TrainProfile, setting: Setting) -> Setting:
    """Return the setting that stands for all with the same memory and time, which differ in accuracy alone."""
    return setting.turned(**_stand_ins(type(with_head(base, setting.head).head)))


@cache
def _stand_ins(head: type[HeadSettings]) -> dict[str, Value | None]:
    return {knob.name: knob.stand_in for knob in knobs_of(head) if knob.affects == {"accuracy"}}
