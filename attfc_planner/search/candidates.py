"""A setting with what is predicted for it: memory, speed and the accuracy prior."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol, TypeAlias

from attfc_planner.accuracy import accuracy_prior, midpoint
from attfc_planner.gpu.profile import GpuProfile
from attfc_planner.search.space import Setting
from attfc_planner.speed import SpeedPrediction, predict_speed
from attfc_planner.trace import OpCost
from attfc_train.prediction import Interval, MemoryPrediction
from attfc_train.profile import TrainProfile
from attfc_train.units import Bytes


class MemoryEstimator(Protocol):
    """What the search needs of `attfc_planner.memory.MemoryModel`."""

    def estimate(self, profile: TrainProfile) -> MemoryPrediction:
        """Peak memory to about 1 %, in milliseconds."""
        ...

    def exact(self, profile: TrainProfile) -> MemoryPrediction:
        """Peak memory from two real steps of exactly this profile."""
        ...

    def op_costs(self, profile: TrainProfile) -> tuple[OpCost, ...]:
        """FLOPs and bytes of one train step."""
        ...


@dataclass(frozen=True)
class Candidate:
    """One setting, judged. Memory is looked up when it is first asked for: it costs far more than the rest."""

    setting: Setting
    profile: TrainProfile
    speed: SpeedPrediction
    accuracy: Interval
    predict_memory: Callable[[], MemoryPrediction]

    @cached_property
    def memory(self) -> MemoryPrediction:
        """The predicted peak by term."""
        return self.predict_memory()

    @property
    def memory_bytes(self) -> Bytes:
        """Predicted peak, headroom included."""
        return self.memory.total_bytes

    @property
    def images_per_second(self) -> float:
        """Middle of the predicted interval."""
        return midpoint(self.speed.images_per_second)

    @property
    def accuracy_points(self) -> float:
        """Middle of the prior: points relative to a full FC layer."""
        return midpoint(self.accuracy)


Evaluate: TypeAlias = Callable[[Setting], Candidate]


class Evaluator:
    """Judges settings; the queue length changes neither memory nor speed, so those are computed once for all of its values.

    Args:
        base: the resolved profile that settings are applied to.
    """

    def __init__(self, base: TrainProfile, gpu: GpuProfile, model: MemoryEstimator) -> None:
        self._base, self._gpu, self._model = base, gpu, model
        self._speed: dict[Setting, SpeedPrediction] = {}
        self._memory: dict[Setting, MemoryPrediction] = {}

    def __call__(self, setting: Setting) -> Candidate:
        """The candidate for `setting`."""
        profile, key = setting.applied_to(self._base), without_queue_length(setting)
        if key not in self._speed:
            self._speed[key] = predict_speed(profile, self._gpu, self._model.op_costs(key.applied_to(self._base)))
        return Candidate(setting, profile, self._speed[key], accuracy_prior(profile), lambda: self._estimated(key))

    def _estimated(self, key: Setting) -> MemoryPrediction:
        if key not in self._memory:
            self._memory[key] = self._model.estimate(key.applied_to(self._base))
        return self._memory[key]


def without_queue_length(setting: Setting) -> Setting:
    """The setting that stands for all that differ from it in queue length only."""
    return replace(setting, queue_length=2.0)
