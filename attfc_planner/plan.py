"""The whole plan: device, base profile, search, choice, and the training profile with its prediction and provenance."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import TypeAlias

from attfc_planner.choose import choose, refusal, runners_up
from attfc_planner.gpu.profile import GpuProfile
from attfc_planner.search.candidates import Candidate, Evaluator, MemoryEstimator, without_queue_length
from attfc_planner.search.constraints import Limits
from attfc_planner.search.space import SearchSpace, space_for
from attfc_planner.search.study import SearchResult, search
from attfc_planner.speed import hours_per_epoch
from attfc_train.errors import ProfileError, UsageError
from attfc_train.prediction import Prediction, Provenance
from attfc_train.profile import Precision, TrainProfile
from attfc_train.profile_file import load_preset
from attfc_train.units import Bytes

BEST_FIRST: tuple[Precision, ...] = ("bf16", "fp16", "fp32")

RECIPES = {"tiny": "tiny"}
DEFAULT_RECIPE = "attfc"
"""Backbone -> preset that holds its margin, ramps and optimiser settings."""

MakeModel: TypeAlias = Callable[[TrainProfile, GpuProfile, Bytes, tuple[TrainProfile, ...]], MemoryEstimator]
"""Builds a memory model and prepares it for the structures of the profiles given."""


@dataclass(frozen=True)
class PlanRequest:
    """What the user asked for, checked by the command line."""

    num_ids: int
    num_images: int | None = None
    data_path: str | None = None
    backbone: str = "r50"
    image_size: int = 112
    precision: Precision | None = None
    """None: bf16 where the device has it, else fp16, else fp32."""
    epochs: float = 5.0
    max_accuracy_drop: float = 1.0
    val: tuple[str, ...] = ()
    num_trials: int = 40
    seed: int = 0
    command: str = "attfc-plan"


@dataclass(frozen=True)
class Plan:
    """The answer."""

    profile: TrainProfile
    gpu: GpuProfile
    chosen: Candidate
    runners_up: dict[str, Candidate]
    space_size: int
    search: SearchResult


def make_plan(request: PlanRequest, gpu: GpuProfile, make_model: MakeModel | None = None) -> Plan:
    """Searches, chooses and writes down why.

    Raises:
        UsageError: the device cannot train in the precision.
        InfeasiblePlanError: nothing fits; names the term, the miss and the nearest setting.
    """
    base = base_profile(request, gpu)
    space = space_for(request.num_ids, request.num_images, request.epochs)
    limits = Limits(gpu.capacity_bytes, request.max_accuracy_drop)
    model = (make_model or traced_model)(base, gpu, limits.budget_bytes, structures(space, base))
    evaluate = Evaluator(base, gpu, model)
    result = search(space, evaluate, limits, num_trials=request.num_trials, seed=request.seed)
    winner = choose(result.feasible, model, limits)
    if winner is None:
        raise refusal(space, evaluate, limits, gpu.name)
    profile = finished_profile(winner, request, gpu, result)
    return Plan(profile, gpu, winner, runners_up(result.feasible, winner), len(space), result)


def traced_model(
    base: TrainProfile, gpu: GpuProfile, budget_bytes: Bytes, profiles: tuple[TrainProfile, ...]
) -> MemoryEstimator:
    """The memory model that traces the real train step, with all structures of the search traced at once."""
    from attfc_planner.memory import MemoryModel

    model = MemoryModel(base, gpu, budget_bytes)
    try:
        model.prepare(profiles)
    except ProfileError as error:
        if error.rule.startswith("model.backbone"):
            raise UsageError("--backbone must be a known name", error.got, error.remedy) from error
        raise
    return model


def structures(space: SearchSpace, base: TrainProfile) -> tuple[TrainProfile, ...]:
    """One profile for every way of allocating that the space holds: all knobs but those that only scale sizes."""
    kinds = {(one.dcc_share == 1, one.num_references, one.gradient_checkpointing): one for one in space}
    return tuple(without_queue_length(setting).applied_to(base) for setting in kinds.values())


def base_profile(request: PlanRequest, gpu: GpuProfile) -> TrainProfile:
    """What the search does not change: the recipe of the backbone's preset, for the data and the length asked for."""
    recipe = load_preset(RECIPES.get(request.backbone, DEFAULT_RECIPE))
    data = {"path": request.data_path, "num_ids": request.num_ids, "num_images": request.num_images}
    model = {"backbone": request.backbone, "image_size": request.image_size}
    run = {
        "epochs": request.epochs,
        "steps": None,
        "precision": choose_precision(request.precision, gpu),
        "val": request.val,
    }
    return recipe.model_copy(
        update={
            "name": f"{request.backbone}-{request.num_ids}",
            "data": recipe.data.model_copy(update=data),
            "model": recipe.model.model_copy(update=model),
            "run": recipe.run.model_copy(update=run),
        }
    )


def choose_precision(wanted: Precision | None, gpu: GpuProfile) -> Precision:
    """`wanted` if the device has it; without a wish the best 16-bit format, else fp32.

    Raises:
        UsageError: the device has no such arithmetic.
    """
    supported = [precision for precision in BEST_FIRST if gpu.supports(precision)]
    if wanted is None:
        return supported[0]
    if wanted not in supported:
        raise UsageError(
            f"--precision must be one of {', '.join(supported)} on {gpu.name}", wanted, "Leave it out to choose the best."
        )
    return wanted


def finished_profile(winner: Candidate, request: PlanRequest, gpu: GpuProfile, result: SearchResult) -> TrainProfile:
    """`best.json`: the winner's settings with prediction and provenance."""
    rate = winner.speed.images_per_second
    prediction = Prediction(
        memory=winner.memory,
        images_per_second=rate,
        hours_per_epoch=hours_per_epoch(rate, request.num_images),
        limited_by=winner.speed.limited_by,
        accuracy=winner.accuracy,
    )
    provenance = Provenance(
        attfc_version=_version("attfc"),
        torch_version=_version("torch"),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        gpu=gpu.name,
        gpu_source=gpu.source,
        command=request.command,
        seed=request.seed,
        num_trials=result.num_trials,
    )
    description = f"Planned for {gpu.name}: {request.num_ids:,} identities, {request.backbone}."
    document = {"description": description, "prediction": prediction, "provenance": provenance}
    return TrainProfile.model_validate({**winner.profile.model_dump(), **document})


def installed_versions() -> dict[str, str]:
    """Of what a prediction depends on."""
    return {name: _version(name) for name in ("attfc", "torch")}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"
