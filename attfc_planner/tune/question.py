"""What a tuning asks: the plan that it starts from, and everything that its trials share."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from attfc_planner.gpu.profile import GpuProfile
from attfc_planner.knobs.space import Setting
from attfc_planner.knobs.spaces import Spaces
from attfc_planner.plan.plan import Plan, make_plan
from attfc_planner.plan.problem import Problem, pose
from attfc_planner.plan.request import PlanRequest
from attfc_planner.search.candidates import Candidate, alike_in_cost
from attfc_planner.search.choose import in_order
from attfc_planner.search.constraints import Limits
from attfc_planner.speed.model import SpeedPrediction
from attfc_planner.tune.holdout import Split, split
from attfc_train.profile.prediction import MemoryPrediction
from attfc_train.profile.profile import TrainProfile
from attfc_train.units import Bytes

FORM = 2
"""Version of the trials' knobs and notes: a study that another attfc began may have another."""


@dataclass(frozen=True)
class Question:
    """The problem, the plan that solves it by prediction, and the data on which it is tried."""

    problem: Problem
    plan: Plan
    split: Split

    @property
    def request(self) -> PlanRequest:
        """Return what the user asked for."""
        return self.problem.request

    @property
    def gpu(self) -> GpuProfile:
        """Return the device, which is here."""
        return self.problem.gpu

    @property
    def base(self) -> TrainProfile:
        """Return the recipe that settings are applied to."""
        return self.problem.base

    @property
    def spaces(self) -> Spaces:
        """Return the settings that may be tried."""
        return self.problem.spaces

    @property
    def limits(self) -> Limits:
        """Return what a setting must respect."""
        return self.problem.limits

    def evaluate(self, setting: Setting) -> Candidate:
        """Judge a setting by prediction."""
        return self.problem.evaluate(setting)

    @property
    def facts(self) -> dict[str, Any]:
        """Return what must be equal for two workers, or a worker and its successor, to work on one study."""
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
            "space": {name: list(values) for name, values in self.spaces.parameters.items()},
            **({} if request.head == "attfc" else {"head": request.head}),  # studies of the first release do not name it
            **({"teacher": request.teacher.digest} if request.teacher.is_on else {}),
        }

    @property
    def knobs(self) -> dict[str, int]:
        """Return a study's parameter -> number of values."""
        return {name: len(values) for name, values in self.spaces.parameters.items()}

    @property
    def other_heads(self) -> list[Setting]:
        """Return the plan's choice for every other kind of head than its own, the most promising first."""
        rest = [each.chosen for each in self.plan.heads if each.chosen and each.chosen.setting != self.plan.chosen.setting]
        return [candidate.setting for candidate in in_order(rest, self.request.prefer)]

    @property
    def heads_not_tried(self) -> dict[str, str]:
        """Return the kinds of heads of which no setting respects the limits by prediction, and what each is short of."""
        return {each.kind: each.missing for each in self.plan.heads if each.chosen is None}

    def steps_key(self, setting: Setting) -> Setting:
        """Return what is equal for settings whose train steps take the same time and memory."""
        return alike_in_cost(self.base, setting)

    def kind(self, setting: Setting) -> str:
        """Return what is equal for settings that allocate alike but for sizes."""
        return _listed({knob.name: setting[knob.name] for knob in self.spaces.of(setting).knobs if not knob.scales})


def ask(request: PlanRequest, gpu: GpuProfile) -> Question:
    """Plan, and return the plan with the problem and the data; one backbone only.

    Raises:
        what `pose`, `make_plan` and `attfc_planner.tune.holdout.split` raise.
    """
    assert request.data_path is not None, "tune needs data"
    parts = split(request.data_path, request.num_ids, request.val)
    problem = pose(request, gpu)
    return Question(problem, make_plan(problem), parts)


def with_measured(
    candidate: Candidate, speed: Callable[[], SpeedPrediction], memory: Callable[[], MemoryPrediction]
) -> Candidate:
    """Return the candidate with measured speed and memory in place of the predicted ones."""
    return replace(candidate, predict_speed=speed, predict_memory=memory)


def process_bytes(memory: MemoryPrediction) -> Bytes:
    """Return what the process of real steps takes of a prediction: no memory of others, no headroom, no data loading."""
    return memory.without("foreign", "headroom", "data")


def beside_process(candidate: Candidate) -> Bytes:
    """Return what a training needs beyond `process_bytes` and headroom."""
    memory = candidate.memory
    return memory.total_bytes - process_bytes(memory) - headroom(memory)


def headroom(memory: MemoryPrediction) -> Bytes:
    """Return the prediction's own margin."""
    return memory.total_bytes - memory.without("headroom")


def words(setting: Setting, names: Collection[str] | None = None) -> str:
    """Return ``dcc_share 0.5, batch_size 128, ...``: knobs as the study names them; all, or those in `names`."""
    return _listed({name: value for name, value in setting.document().items() if names is None or name in names})


def varied(settings: Iterable[Setting]) -> list[str]:
    """Return the knobs in which the settings are not all alike."""
    documents = [setting.document() for setting in settings]
    names = dict.fromkeys(name for document in documents for name in document)
    return [name for name in names if len({document.get(name) for document in documents}) > 1]


def word(value: object) -> str:
    """Return one knob's value as a word."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, int | float) else str(value)


def _listed(values: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {word(value)}" for name, value in values.items() if value is not None)
