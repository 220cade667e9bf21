"""A setting with what is predicted for it: memory, speed and accuracy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Protocol, TypeAlias

from attfc_planner.accuracy.prior import accuracy_prior, midpoint
from attfc_planner.gpu.profile import GpuProfile
from attfc_planner.knobs.space import Setting, knobs_of
from attfc_planner.speed.model import SpeedPrediction, predict_speed
from attfc_planner.trace.history import OpCost
from attfc_train.document import Value
from attfc_train.heads.settings import HeadSettings
from attfc_train.profile.prediction import Interval, MemoryPrediction
from attfc_train.profile.profile import TrainProfile
from attfc_train.units import Bytes


class MemoryEstimator(Protocol):
    """What the search needs of `attfc_planner.memory.model.MemoryModel`."""

    def estimate(self, profile: TrainProfile) -> MemoryPrediction:
        """Peak memory to about 1 %, in milliseconds."""
        ...

    def exact(self, profile: TrainProfile) -> MemoryPrediction:
        """Peak memory from two real steps of exactly this profile."""
        ...

    def op_costs(self, profile: TrainProfile) -> tuple[OpCost, ...]:
        """FLOPs and bytes of one train step."""
        ...


HOURS_OF_IMAGES = 10**6
"""Images that hours are stated for where nobody said how many there are."""


@dataclass(frozen=True)
class Candidate:
    """One setting, judged. Memory and speed are looked up when first asked for: they cost far more than the rest."""

    setting: Setting
    profile: TrainProfile
    accuracy: Interval
    predict_speed: Callable[[], SpeedPrediction]
    predict_memory: Callable[[], MemoryPrediction]

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
        """To train all epochs; for `HOURS_OF_IMAGES` where the number of images is not known."""
        num_images = self.profile.data.num_images
        seen = HOURS_OF_IMAGES if num_images is None else self.profile.run.epochs * num_images
        return seen / self.images_per_second / 3600

    @property
    def accuracy_points(self) -> float:
        """Middle of the interval: points relative to a full FC layer."""
        return midpoint(self.accuracy)


Evaluate: TypeAlias = Callable[[Setting], Candidate]
PredictAccuracy: TypeAlias = Callable[[TrainProfile], Interval]
"""Points against a full FC layer, of a profile whose data.num_ids is known."""


class Evaluator:
    """Judges settings; what affects accuracy alone, such as a queue length, needs memory and speed once for all of its values.

    Args:
        base: the resolved profile that settings are applied to.
        accuracy: the prior, or what trainings said. In it no knob may change what a longer queue is worth, and neither
            checkpointing nor accumulation may count (`attfc_planner.search.screening`).
    """

    def __init__(
        self, base: TrainProfile, gpu: GpuProfile, model: MemoryEstimator, accuracy: PredictAccuracy = accuracy_prior
    ) -> None:
        self._base, self._gpu, self._model, self._accuracy = base, gpu, model, accuracy
        self._speed: dict[Setting, SpeedPrediction] = {}
        self._memory: dict[Setting, MemoryPrediction] = {}

    def __call__(self, setting: Setting) -> Candidate:
        """The candidate for `setting`, whose accumulation must divide its batch."""
        profile = setting.applied_to(self._base)
        key = alike_in_cost(self._base, setting)
        return Candidate(
            setting, profile, self._accuracy(profile), lambda: self._predicted_speed(key), lambda: self._estimated(key)
        )

    def _predicted_speed(self, key: Setting) -> SpeedPrediction:
        if key not in self._speed:
            profile = key.applied_to(self._base)
            self._speed[key] = predict_speed(profile, self._gpu, self._model.op_costs(profile))
        return self._speed[key]

    def _estimated(self, key: Setting) -> MemoryPrediction:
        if key not in self._memory:
            self._memory[key] = self._model.estimate(key.applied_to(self._base))
        return self._memory[key]


def alike_in_cost(base: TrainProfile, setting: Setting) -> Setting:
    """Return the setting that stands for all that take the same memory and time: they differ in what affects accuracy alone."""
    return setting.turned(**_stand_ins(type(base.head)))


@cache
def _stand_ins(head: type[HeadSettings]) -> dict[str, Value | None]:
    return {knob.name: knob.stand_in for knob in knobs_of(head) if knob.affects == {"accuracy"}}
