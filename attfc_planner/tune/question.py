"""What a tuning asks: the plan that it starts from, and everything that its trials share."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

from attfc_planner.gpu.profile import GpuProfile
from attfc_planner.knobs.space import SearchSpace, Setting, space_for
from attfc_planner.plan import plan as planning
from attfc_planner.plan.plan import MakeModel, Plan, PlanRequest, base_profile, limits_of, make_plan, precisions
from attfc_planner.search.candidates import Candidate, Evaluate, Evaluator, MemoryEstimator, without_queue_length
from attfc_planner.search.constraints import Limits
from attfc_planner.speed.model import SpeedPrediction
from attfc_planner.tune.holdout import Split, split
from attfc_train.profile.prediction import Interval, MemoryPrediction
from attfc_train.profile.profile import TrainProfile
from attfc_train.units import Bytes

SIZES = ("dcc_share", "batch_size", "queue_length")
"""Knobs that only scale sizes; settings that differ in these alone allocate alike."""


FORM = 2
"""Of the trials' knobs and notes: a study that another attfc began may have another."""


@dataclass(frozen=True)
class Question:
    """The plan, its search space, how a setting is judged before it is tried, and the data."""

    request: PlanRequest
    gpu: GpuProfile
    plan: Plan
    base: TrainProfile
    space: SearchSpace
    evaluate: Evaluate
    limits: Limits
    split: Split

    @property
    def facts(self) -> dict[str, Any]:
        """What must be equal for two workers, or a worker and its successor, to work on one study."""
        request = self.request
        return {
            "form of the studies": FORM,
            "data": request.data_path,
            "identities": request.num_ids,
            "images": request.num_images,
            "val": list(request.val),
            "backbone": request.backbone,
            "image size": request.image_size,
            "precision": self.base.run.precision,
            "epochs": request.epochs,
            "max accuracy drop": request.max_accuracy_drop,
            "prefer": request.prefer,
            "gpu": self.gpu.name,
            "space": {name: list(values) for name, values in self.space.knobs.items()},
        }

    @property
    def knobs(self) -> dict[str, int]:
        """Knob -> number of values."""
        return {name: len(values) for name, values in self.space.knobs.items()}

    def steps_key(self, setting: Setting) -> Setting:
        """Equal for settings whose train steps take the same time and memory."""
        return without_queue_length(setting)

    def kind(self, setting: Setting) -> str:
        """Equal for settings that allocate alike but for sizes."""
        return _listed({name: value for name, value in asdict(setting).items() if name not in SIZES})


def ask(request: PlanRequest, gpu: GpuProfile) -> Question:
    """Plans, and keeps what the plan was made with; one backbone only.

    Raises:
        what `make_plan` and `attfc_planner.tune.holdout.split` raise.
    """
    assert request.data_path is not None, "tune needs data"
    parts = split(request.data_path, request.num_ids, request.val)
    models: list[MemoryEstimator] = []
    plan = make_plan(request, gpu, _keeping(planning.traced_model, models))
    base, limits = base_profile(request, gpu), limits_of(request, gpu)
    space = space_for(request.num_ids, request.num_images, request.epochs, precision=precisions(request.precision, gpu)[0])
    return Question(request, gpu, plan, base, space, Evaluator(base, gpu, models[0]), limits, parts)


def _keeping(make_model: MakeModel, models: list[MemoryEstimator]) -> MakeModel:
    def made(base: TrainProfile, gpu: GpuProfile, budget_bytes: Bytes, profiles: tuple[TrainProfile, ...]) -> MemoryEstimator:
        models.append(make_model(base, gpu, budget_bytes, profiles))
        return models[-1]

    return made


def with_measured(candidate: Candidate, images_per_second: Interval, memory: Callable[[], MemoryPrediction]) -> Candidate:
    """The candidate with measured speed and memory in place of the predicted ones."""
    return replace(candidate, predict_speed=partial(_faster, candidate, images_per_second), predict_memory=memory)


def _faster(candidate: Candidate, images_per_second: Interval) -> SpeedPrediction:
    return replace(candidate.speed, images_per_second=images_per_second)


def process_bytes(memory: MemoryPrediction) -> Bytes:
    """What of a prediction the process of real steps takes: neither others' memory nor headroom, and it loads no data."""
    return memory.without("foreign", "headroom", "data")


def beside_process(candidate: Candidate) -> Bytes:
    """What a training needs beyond `process_bytes` and headroom."""
    memory = candidate.memory
    return memory.total_bytes - process_bytes(memory) - headroom(memory)


def headroom(memory: MemoryPrediction) -> Bytes:
    """The prediction's own margin."""
    return memory.total_bytes - memory.without("headroom")


def words(setting: Setting, names: Collection[str] | None = None) -> str:
    """``dcc_share 0.5, batch_size 128, ...``: the knobs' names as the study has them; all, or those in `names`."""
    return _listed({name: value for name, value in asdict(setting).items() if names is None or name in names})


def varied(settings: Iterable[Setting]) -> list[str]:
    """Knobs in which the settings are not all alike."""
    documents = [asdict(setting) for setting in settings]
    return [name for name in (documents[0] if documents else ()) if len({document[name] for document in documents}) > 1]


def word(value: object) -> str:
    """One knob's value."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, int | float) else str(value)


def _listed(values: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {word(value)}" for name, value in values.items() if value is not None)
