"""The whole plan: device, base profile, search, choice, and the training profile with its prediction and provenance."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import TypeAlias

from attfc_planner.accuracy.prior import BACKBONE, accuracy_prior
from attfc_planner.accuracy.regression import FEWEST_SETTINGS
from attfc_planner.gpu.profile import TENSOR_FIELD, GpuProfile
from attfc_planner.knobs.space import SearchSpace, space_for
from attfc_planner.search.candidates import Candidate, Evaluator, MemoryEstimator, PredictAccuracy, without_queue_length
from attfc_planner.search.choose import Preference, choose, pick, runners_up
from attfc_planner.search.constraints import Limits, is_feasible
from attfc_planner.search.refusal import refusal, smallest
from attfc_planner.search.study import SearchResult, pareto_front, plain_front, search
from attfc_planner.search.summary import summarised
from attfc_planner.search.tuned import tuned_accuracy
from attfc_planner.speed.model import hours_per_epoch
from attfc_train.errors import ProfileError, UsageError
from attfc_train.profile.file import load_preset
from attfc_train.profile.prediction import Prediction, Provenance
from attfc_train.profile.profile import AttFCSettings, Precision, TrainProfile
from attfc_train.profile.search_summary import SearchSummary
from attfc_train.units import Bytes, format_bytes

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
    compared: tuple[str, ...] = ()
    """Backbones to choose from, `backbone` among them, each known to `attfc_planner.accuracy.prior.BACKBONE`; none: no
    choice."""
    image_size: int = 112
    precision: Precision | None = None
    """None: bf16 where the device has it, else fp16, else fp32."""
    epochs: float = 5.0
    max_accuracy_drop: float = 1.0
    max_hours: float | None = None
    """To train all epochs; `num_images` must be known."""
    max_memory_bytes: Bytes | None = None
    prefer: Preference = "balanced"
    tuned: TrainProfile | None = None
    """What ``attfc-plan tune`` wrote for these data: its trainings take the place of the accuracy prior."""
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
    search: SearchResult


def make_plan(request: PlanRequest, gpu: GpuProfile, make_model: MakeModel | None = None) -> Plan:
    """Searches, chooses and writes down why.

    Raises:
        UsageError: the device cannot train in the precision, or options contradict each other.
        InfeasiblePlanError: nothing respects the limits; names the one, the miss and the nearest setting.
    """
    base, limits = base_profile(request, gpu), limits_of(request, gpu)
    precision, left_out = precisions(request.precision, gpu)
    space = space_for(
        request.num_ids, request.num_images, request.epochs, precision=precision, backbone=request.compared or (None,)
    )
    model = (make_model or traced_model)(base, gpu, limits.budget_bytes, structures(space, base))
    evaluate = Evaluator(base, gpu, model, predict_accuracy(request))
    usual = base.optim.batch_size
    result = search(space, evaluate, limits, batch_size=usual, num_trials=request.num_trials, seed=request.seed)

    def picked(margin_bytes: Bytes) -> Candidate | None:
        if not margin_bytes:
            return pick(result.front, request.prefer)
        tight = replace(limits, margin_bytes=margin_bytes)
        return pick(plain_front(space, evaluate, tight, result.starts, usual), request.prefer)

    winner, margin = choose(picked, model, limits)
    tight = replace(limits, margin_bytes=margin)
    if winner is None:
        raise refusal(space, evaluate, tight, gpu.name)
    found = plain_front(space, evaluate, tight, result.starts, usual) if margin else result.front
    front = tuple(pareto_front([winner, *(one for one in found if one.setting != winner.setting)]))
    least = smallest(space, evaluate, tight, result.starts)
    others = runners_up(front, winner, least if least and is_feasible(least, tight) else None, request.prefer)
    summary = summarised(space, front, winner, limits, request.prefer, left_out)
    if request.tuned is not None and request.tuned.search is not None:
        known = request.tuned.search
        summary = summary.model_copy(update={"trainings": known.trainings, "trained_on": known.trained_on})
    return Plan(finished_profile(winner, request, gpu, result, summary), gpu, winner, others, result)


def predict_accuracy(request: PlanRequest) -> PredictAccuracy:
    """What a tuning measured on these data, else the prior.

    Raises:
        UsageError: the tuning was about something else, or trained too little.
    """
    if request.tuned is None:
        return partial(accuracy_prior, compared_to=max(request.compared, key=BACKBONE.__getitem__, default=None))
    tuned = request.tuned
    if not isinstance(tuned.head, AttFCSettings):
        remedy = "Give what attfc-plan tune wrote, or leave --tuned out for the prior."
        raise UsageError("--tuned must have the head that was tuned, attfc", tuned.head.kind, remedy)
    told = {
        "--ids": (tuned.data.num_ids, request.num_ids),
        "--images": (tuned.data.num_images, request.num_images or tuned.data.num_images),
        "--backbone": (tuned.model.backbone, ", ".join(request.compared) or request.backbone),
        "--image-size": (tuned.model.image_size, request.image_size),
    }
    for option, (then, now) in told.items():
        if then != now:
            rule, remedy = f"--tuned must be about the same {option}", "Tune for this, or leave --tuned out for the prior."
            raise UsageError(rule, f"{then} there and {now} here", remedy)
    model = tuned_accuracy(tuned)
    if model is None:
        rule = f"--tuned must hold trainings of a full FC layer and {FEWEST_SETTINGS} settings"
        raise UsageError(rule, f"{len(tuned.search.trainings) if tuned.search else 0} in all", "Tune for more --hours.")
    return model.interval


EQUAL_RATES = 0.05
"""Relative difference of ceilings below which two precisions count as equally fast."""


def limits_of(request: PlanRequest, gpu: GpuProfile) -> Limits:
    """The limits that the options set.

    Raises:
        UsageError: more memory than the device has, or hours for an unknown number of images.
    """
    wanted = request.max_memory_bytes
    if wanted is not None and wanted > gpu.capacity_bytes:
        has = format_bytes(gpu.capacity_bytes)
        raise UsageError(f"--max-memory must be at most the {has} of {gpu.name}", format_bytes(wanted), "Leave it out for all.")
    if request.max_hours is not None and request.num_images is None:
        raise UsageError("--max-hours needs the number of images", "none", "Give --images or --data.")
    budget = min(gpu.capacity_bytes, wanted + gpu.foreign_bytes) if wanted else gpu.capacity_bytes  # others are not charged
    return Limits(budget, request.max_accuracy_drop, request.max_hours)


def precisions(wanted: Precision | None, gpu: GpuProfile) -> tuple[tuple[Precision, ...], tuple[str, ...]]:
    """The precisions to search, and why the others of the device are not.

    Without a wish, all but those that another one equals in size and arithmetic: of two formats that take as many bytes or
    fewer, the one with the higher ceiling is faster in every operator, and the accuracy prior knows no difference. Measured
    ceilings are as good as equal within `EQUAL_RATES`: no probe can tell them apart.
    """
    if wanted is not None:
        return (choose_precision(wanted, gpu),), ()
    kept: list[Precision] = []
    left_out = []
    for one in (precision for precision in BEST_FIRST if gpu.supports(precision)):
        better = [other for other in kept if gpu.ceiling(TENSOR_FIELD[other]) >= (1 - EQUAL_RATES) * _fastest(one, gpu)]
        if better:
            left_out.append(f"precision {one}: {better[0]} takes no more bytes and its arithmetic is no slower on {gpu.name}")
        else:
            kept.append(one)
    return tuple(kept), tuple(left_out)


def _fastest(precision: Precision, gpu: GpuProfile) -> float:
    """FLOP/s at best; fp32 convolutions may use TF32."""
    rate = gpu.ceiling(TENSOR_FIELD[precision])
    return max(rate, gpu.ceiling("tf32_flops")) if precision == "fp32" and gpu.tf32_flops else rate


def traced_model(
    base: TrainProfile, gpu: GpuProfile, budget_bytes: Bytes, profiles: tuple[TrainProfile, ...]
) -> MemoryEstimator:
    """The memory model that traces the real train step, with all structures of the search traced at once."""
    from attfc_planner.memory.model import MemoryModel

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
    names = ("dcc_share", "num_references", "gradient_checkpointing", "precision", "backbone")
    first = {name: values[:1] for name, values in space.knobs.items()}
    kinds = SearchSpace(**{**first, **{name: space.knobs[name] for name in names}})  # type: ignore[arg-type]  # its own values
    return tuple(without_queue_length(setting).applied_to(base) for setting in kinds)


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


def finished_profile(
    winner: Candidate, request: PlanRequest, gpu: GpuProfile, result: SearchResult, summary: SearchSummary
) -> TrainProfile:
    """`best.json`: the winner's settings with prediction, provenance and the search behind them."""
    rate = winner.speed.images_per_second
    prediction = Prediction(
        memory=winner.memory,
        images_per_second=rate,
        hours_per_epoch=hours_per_epoch(rate, request.num_images),
        hours=hours_per_epoch(rate, request.num_images and round(request.epochs * request.num_images)),
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
    backbone = winner.profile.model.backbone
    document = {
        "name": f"{backbone}-{request.num_ids}",
        "description": f"Planned for {gpu.name}: {request.num_ids:,} identities, {backbone}.",
        "prediction": prediction,
        "provenance": provenance,
        "search": summary,
    }
    return TrainProfile.model_validate({**winner.profile.model_dump(), **document})


def installed_versions() -> dict[str, str]:
    """Of what a prediction depends on."""
    return {name: _version(name) for name in ("attfc", "torch")}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"
