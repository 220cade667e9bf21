"""The problem that a search solves: recipe, space, limits and how a setting is judged; plan and tune share one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from attfc_planner.accuracy.prior import BACKBONE, accuracy_prior
from attfc_planner.accuracy.regression import FEWEST_SETTINGS
from attfc_planner.gpu.profile import GpuProfile
from attfc_planner.knobs.space import (
    ACCUMULATION,
    GRADIENT_CHECKPOINTING,
    PRECISION,
    SearchSpace,
    Setting,
    space_for,
    with_head,
)
from attfc_planner.knobs.space import BACKBONE as BACKBONE_KNOB
from attfc_planner.knobs.spaces import Spaces
from attfc_planner.plan.request import AUTO_HEAD, PlanRequest, choose_precision, kinds_of, limits_of, precisions
from attfc_planner.search.candidates import Evaluate, Evaluator, Known, MemoryEstimator, PredictAccuracy, alike_in_cost
from attfc_planner.search.comparison import PLAIN_KINDS, plain
from attfc_planner.search.constraints import Limits
from attfc_planner.search.tuned import tried_kinds, tuned_accuracy
from attfc_planner.trace.structure import head_structure_of
from attfc_train.errors import ProfileError, UsageError
from attfc_train.profile.file import load_preset
from attfc_train.profile.profile import TrainProfile
from attfc_train.profile.teacher import TeacherSettings
from attfc_train.units import Bytes

RECIPES = {"tiny": "tiny"}
"""Backbone -> preset that holds its margin, ramps and optimiser settings."""
DEFAULT_RECIPE = "attfc"
"""Preset of every other backbone."""

MakeModel: TypeAlias = Callable[[TrainProfile, GpuProfile, Bytes, tuple[TrainProfile, ...]], MemoryEstimator]
"""Builds a memory model and prepares it for the structures of the profiles given."""


@dataclass(frozen=True)
class Problem:
    """A search's question, and what judges its answers."""

    request: PlanRequest
    gpu: GpuProfile
    base: TrainProfile
    """The recipe that settings are applied to."""
    spaces: Spaces
    limits: Limits
    model: MemoryEstimator
    evaluate: Evaluate
    left_out: tuple[str, ...]
    """Values that are not searched, and why."""
    plain_spaces: tuple[SearchSpace, ...] = ()
    """The layers that the choice is compared with."""


def pose(
    request: PlanRequest,
    gpu: GpuProfile,
    make_model: MakeModel | None = None,
    known: dict[Setting, Known] | None = None,
) -> Problem:
    """Make the problem of a request on a device, and trace what the search will need.

    Args:
        known: what the same request has made of settings on other devices (`attfc_planner.search.candidates.Evaluator`).

    Raises:
        UsageError: the device cannot train in the precision, or options contradict each other.
    """
    gpu = gpu.in_host(request.cores).beside_others(request.gpus, request.nodes, request.link)
    _check_rows(request)
    base = base_profile(request, gpu)
    limits = limits_of(request, gpu)
    accuracy = predict_accuracy(request)
    plain_spaces = _plain_spaces(request, gpu, base)
    spaces, left_out = _spaces(request, gpu, base, plain_spaces)
    traced = tuple(profile for space in spaces for profile in structures(space, base))
    model = (make_model or traced_model)(base, gpu, limits.budget_bytes, traced)
    is_measured = request.tuned is not None
    evaluate = Evaluator(base, gpu, model, accuracy, is_measured=is_measured, known=known, decoding=request.decoding)
    return Problem(request, gpu, base, spaces, limits, model, evaluate, left_out, plain_spaces)


def _check_rows(request: PlanRequest) -> None:
    if request.num_ids < request.gpus:
        got = f"{request.gpus} for {request.num_ids} identities"
        raise UsageError("--gpus need a center each to share", got, "Use fewer GPUs.")


def _spaces(
    request: PlanRequest, gpu: GpuProfile, base: TrainProfile, plain_spaces: tuple[SearchSpace, ...]
) -> tuple[Spaces, tuple[str, ...]]:
    """Return the space of every kind of head, and what is left out of them and why."""
    _, left_out = precisions(request.precision, gpu)
    kinds, heads_left_out = kinds_of(request)
    spaces = {kind: _space(request, gpu, base, kind, named=request.is_free) for kind in kinds}
    if request.head == AUTO_HEAD and not request.tries_heads:
        spaces |= {kind: space for kind, space in zip(PLAIN_KINDS, plain_spaces, strict=True) if kind in spaces}
        left_out += ("rows of full_fc and partial_fc in another type than fp32, or without momentum: --head any searches them",)
    return Spaces(tuple(spaces.values())), heads_left_out + left_out


def _plain_spaces(request: PlanRequest, gpu: GpuProfile, base: TrainProfile) -> tuple[SearchSpace, ...]:
    """Return the layers that a plan is compared with; none where it is tried anyhow."""
    kinds = () if request.tries_heads else PLAIN_KINDS
    return tuple(plain(_space(request, gpu, base, kind, named=True), kind) for kind in kinds)


def _space(request: PlanRequest, gpu: GpuProfile, base: TrainProfile, kind: str, named: bool) -> SearchSpace:
    space = space_for(
        request.num_ids,
        request.num_images,
        request.epochs,
        kind=kind,
        named=named,
        precision=precisions(request.precision, gpu)[0],
        backbone=request.compared or (None,),
        gpus=request.gpus,
    )
    return space.fixed(with_head(base, kind).head.fixed_knobs())


def predict_accuracy(request: PlanRequest) -> PredictAccuracy:
    """Return the regression over a tuning's trainings on these data, else the prior.

    Raises:
        UsageError: the tuning was about something else, or trained too little.
    """
    if request.tuned is None:
        return partial(accuracy_prior, compared_to=max(request.compared, key=BACKBONE.__getitem__, default=None))
    tuned = request.tuned
    _check_same_question(tuned, request)
    tried = tried_kinds(tuned)
    if not request.is_free and tried and request.head not in tried:
        rule = f"--tuned must hold trainings of what is planned, --head {request.head}"
        raise UsageError(rule, f"trainings of {', '.join(tried)}", "Tune with it, or leave --tuned out for the prior.")
    model = tuned_accuracy(tuned)
    if model is None:
        rule = f"--tuned must hold trainings of a full FC layer and {FEWEST_SETTINGS} settings"
        raise UsageError(rule, f"{len(tuned.search.trainings) if tuned.search else 0} in all", "Tune for more --hours.")
    return model.interval


def _check_same_question(tuned: TrainProfile, request: PlanRequest) -> None:
    """Check that accuracies of the tuning are accuracies of what is planned: the same data and network."""
    by_option = {
        "--ids": (tuned.data.num_ids, request.num_ids),
        "--images": (tuned.data.num_images, request.num_images or tuned.data.num_images),
        "--backbone": (tuned.model.backbone, ", ".join(request.compared) or request.backbone),
        "--image-size": (tuned.model.image_size, request.image_size),
        "--teacher": (_known_by(tuned.teacher), _known_by(request.teacher)),
    }
    for option, (there, here) in by_option.items():
        if there != here:
            rule = f"--tuned must be about the same {option}"
            raise UsageError(rule, f"{there} there and {here} here", "Tune for this, or leave --tuned out for the prior.")


def _known_by(teacher: TeacherSettings) -> str:
    """Return what tells a teacher from another one."""
    return teacher.digest or teacher.backbone or "none"


def traced_model(
    base: TrainProfile, gpu: GpuProfile, budget_bytes: Bytes, profiles: tuple[TrainProfile, ...]
) -> MemoryEstimator:
    """Return the memory model of the real train step, with all structures of the search traced at once.

    Raises:
        UsageError: no such backbone.
    """
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
    """Return one profile for every way of allocating in the space: all values of the knobs that do more than scale sizes."""
    base = with_head(base, next(iter(space)).head)
    kind = head_structure_of(base.head)
    head_knobs = [knob.name for knob in base.head.knobs()] if kind.knobs is None else kind.knobs
    parts = () if kind.stand_in(base.head) else (ACCUMULATION,)  # with a stand-in parts are computed, not traced
    varied = {*head_knobs, *(knob.name for knob in (*parts, GRADIENT_CHECKPOINTING, PRECISION, BACKBONE_KNOB))}
    first = {name: values[:1] for name, values in space.values.items() if name not in varied}
    return tuple(alike_in_cost(base, setting).applied_to(base) for setting in space.narrowed(**first))


def base_profile(request: PlanRequest, gpu: GpuProfile) -> TrainProfile:
    """Return the recipe that settings are applied to: the backbone's preset, for the data and the length asked for."""
    recipe = load_preset(RECIPES.get(request.backbone, DEFAULT_RECIPE))
    data = {"path": request.data_path, "num_ids": request.num_ids, "num_images": request.num_images}
    embedding_size = request.embedding_size or recipe.model.embedding_size
    model = {
        "backbone": request.backbone,
        "image_size": request.image_size,
        "embedding_size": embedding_size,
        "channels_last": request.channels_last,
    }
    run = {
        "epochs": request.epochs,
        "steps": None,
        "precision": choose_precision(request.precision, gpu),
        "val": request.val,
        "gpus": request.gpus,
        "compile": request.compile,
    }
    planned = recipe.model_copy(
        update={
            "name": f"{request.backbone}-{request.num_ids}",
            "data": recipe.data.model_copy(update=data),
            "model": recipe.model.model_copy(update=model),
            "run": recipe.run.model_copy(update=run),
            "teacher": request.teacher,
        }
    )
    return planned if request.is_free else with_head(planned, request.head)
