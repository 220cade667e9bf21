"""The whole plan: search, choice, and the training profile with its prediction and provenance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from attfc_planner.gpu.holders import who_holds
from attfc_planner.gpu.profile import GpuProfile
from attfc_planner.gpu.versions import installed_versions
from attfc_planner.knobs.space import Setting
from attfc_planner.plan.notes import notes_of
from attfc_planner.plan.problem import Problem, structures
from attfc_planner.plan.request import PlanRequest
from attfc_planner.plan.several import several_gpus
from attfc_planner.search.candidates import Candidate, MemoryEstimator
from attfc_planner.search.choose import choose, pick, runners_up
from attfc_planner.search.comparison import PlainLayers, stand_in_rule
from attfc_planner.search.constraints import Limits, is_feasible
from attfc_planner.search.heads import HeadChoice, head_choices, why_head
from attfc_planner.search.refusal import NOTHING_HELD, Held, refusal, smallest
from attfc_planner.search.study import SearchResult, common_front, pareto_front, plain_fronts, search
from attfc_planner.search.summary import figures, summarised
from attfc_planner.search.verdict import verdict
from attfc_planner.speed.model import hours_per_epoch
from attfc_train.profile.prediction import Interval, PhaseSeconds, Prediction, Provenance, SeveralGpus
from attfc_train.profile.profile import TrainProfile
from attfc_train.profile.search_summary import SearchSummary
from attfc_train.units import Bytes


@dataclass(frozen=True)
class Plan:
    """The chosen setting as a training profile, the other good choices, and the search behind them."""

    profile: TrainProfile
    gpu: GpuProfile
    chosen: Candidate
    runners_up: dict[str, Candidate]
    """By what speaks for each."""
    search: SearchResult
    heads: tuple[HeadChoice, ...] = ()
    """The choice of every kind of head, where several were searched."""
    bytes_per_identity: Mapping[Setting, float] = field(default_factory=dict)
    """Of all settings named here, what their heads keep (`attfc_train.profile.prediction.Prediction.bytes_per_identity`)."""


def make_plan(problem: Problem) -> Plan:
    """Search, choose, and make the profile of the choice.

    Raises:
        InfeasiblePlanError: nothing respects the limits; names the one, the miss and the nearest setting.
    """
    request = problem.request
    result = search(
        problem.spaces,
        problem.evaluate,
        problem.limits,
        batch_size=problem.base.optim.batch_size,
        num_trials=request.num_trials,
        seed=request.seed,
    )
    winner, margin = select(problem, result)
    if winner is None:
        limits = replace(problem.limits, margin_bytes=margin)
        raise refusal(problem.spaces, problem.evaluate, limits, problem.gpu.name, _held(problem))
    front = _front_within(problem, result, margin)
    others = [other for other in front if other.setting != winner.setting]
    return _plan_of(problem, result, winner, pareto_front([winner, *others]), margin, _replaced(front, winner, request))


def select(problem: Problem, result: SearchResult) -> tuple[Candidate | None, Bytes]:
    """Return the choice among what a search found, or None, and the margin that it took: see `choose`."""
    request = problem.request

    def within(margin_bytes: Bytes) -> Candidate | None:
        """Return the rule's choice; where the kind of head is the plan's to choose, the full FC layer that takes its place."""
        picked = pick(_front_within(problem, result, margin_bytes), request.prefer)
        if picked is None or not (request.is_free and problem.plain_spaces):
            return picked
        return _plain_layers(problem, picked, margin_bytes).stand_in(picked) or picked

    return choose(within, problem.model, problem.limits)


def _front_within(problem: Problem, result: SearchResult, margin_bytes: Bytes) -> Sequence[Candidate]:
    """Return the front of what fits with this margin; it is screened again where estimates were too low."""
    return common_front(_fronts_within(problem, result, margin_bytes)) if margin_bytes else result.front


def _replaced(front: Sequence[Candidate], winner: Candidate, request: PlanRequest) -> Candidate | None:
    """Return the rule's choice where the winner, of another kind of head, took its place (`select`)."""
    picked = pick(front, request.prefer)
    return picked if picked is not None and picked.setting.head != winner.setting.head else None


def _held(problem: Problem) -> Held:
    """Return what ending others would give the plan: nothing where --max-memory is the limit."""
    gpu = problem.gpu
    return Held(gpu.foreign_bytes, who_holds(gpu)) if problem.limits.budget_bytes >= gpu.capacity_bytes else NOTHING_HELD


def _fronts_within(problem: Problem, result: SearchResult, margin_bytes: Bytes) -> list[list[Candidate]]:
    """Return every space's front of what fits with this margin."""
    limits = replace(problem.limits, margin_bytes=margin_bytes)
    return plain_fronts(problem.spaces, problem.evaluate, limits, result.starts, problem.base.optim.batch_size)


def _plain_layers(problem: Problem, choice: Candidate, margin_bytes: Bytes) -> PlainLayers:
    """Return the layers to compare a choice with, traced where they were not."""
    own = {"backbone": (choice.setting.backbone,), "precision": (choice.setting.precision,)}
    spaces = tuple(space.narrowed(**own) for space in problem.plain_spaces)
    problem.model.prepare([profile for space in spaces for profile in structures(space, problem.base)])
    limits = replace(problem.limits, margin_bytes=margin_bytes)
    return PlainLayers(spaces, problem.evaluate, limits, problem.base.optim.batch_size, problem.request.prefer)


def _plan_of(
    problem: Problem,
    result: SearchResult,
    winner: Candidate,
    front: Sequence[Candidate],
    margin_bytes: Bytes,
    replaced: Candidate | None,
) -> Plan:
    request = problem.request
    limits = replace(problem.limits, margin_bytes=margin_bytes)
    heads: tuple[HeadChoice, ...] = ()
    if not problem.spaces.is_one:
        fronts = _fronts_within(problem, result, margin_bytes)
        heads = head_choices(problem.spaces, fronts, winner, problem.evaluate, limits, request.prefer, problem.gpu.name)
    by_kind = [each.chosen for each in heads if each.chosen is not None]
    compared = _plain_layers(problem, winner, margin_bytes).compared(winner, by_kind) if problem.plain_spaces else ()
    other_choices = runners_up(front, winner, _least(problem, limits, result), request.prefer)
    named = [winner, *front, *other_choices.values(), *by_kind, *(row.candidate for row in compared)]
    kept = bytes_per_identity(problem.model, named)
    summary = summarised(problem.spaces, front, winner, problem.limits, request.prefer, problem.left_out, kept)
    words = {
        "rule": f"{summary.rule} {stand_in_rule(request.prefer)}" if compared and request.is_free else summary.rule,
        "why_head": why_head(heads, winner, request.prefer, replaced) if heads else "",
        "comparison": tuple(figures(row, kept) for row in compared),
        "verdict": verdict(compared, problem.limits, request.prefer, request.is_free),
        "notes": notes_of(request, winner, summary.constraints),
    }
    summary = _with_trainings(summary.model_copy(update=words), request.tuned)
    profile = finished_profile(winner, problem, result, summary, kept[winner.setting])
    return Plan(profile, problem.gpu, winner, other_choices, result, heads, kept)


def _least(problem: Problem, limits: Limits, result: SearchResult) -> Candidate | None:
    """Return the setting of all spaces that needs the least memory; None where it breaks another limit."""
    pairs = zip(problem.spaces, result.starts, strict=True)
    smallest_each = [smallest(space, problem.evaluate, limits, starts) for space, starts in pairs if starts]
    known = [each for each in smallest_each if each is not None]
    least = min(known, key=lambda candidate: (candidate.memory_bytes, candidate.setting), default=None)
    return least if least and is_feasible(least, limits) else None


def bytes_per_identity(model: MemoryEstimator, candidates: Sequence[Candidate]) -> dict[Setting, float]:
    """Return setting -> bytes that its head keeps between steps, over the identities."""
    by_setting = {candidate.setting: candidate.profile for candidate in candidates}
    kept = model.head_bytes(list(by_setting.values()))
    return {
        setting: num_bytes / profile.num_ids for (setting, profile), num_bytes in zip(by_setting.items(), kept, strict=True)
    }


def _with_trainings(summary: SearchSummary, tuned: TrainProfile | None) -> SearchSummary:
    """Return the summary with the trainings that the accuracies are from, so that the plan can be made again from them."""
    if tuned is None or tuned.search is None:
        return summary
    return summary.model_copy(update={"trainings": tuned.search.trainings, "trained_on": tuned.search.trained_on})


def finished_profile(
    winner: Candidate, problem: Problem, result: SearchResult, summary: SearchSummary, bytes_per_identity: float
) -> TrainProfile:
    """Return `best.json`: the winner's settings with prediction, provenance and the search behind them."""
    request = problem.request
    gpu = problem.gpu
    backbone = winner.profile.model.backbone
    several = several_gpus(winner, gpu, problem.model)
    rate = winner.speed.images_per_second
    cards = f"{request.gpus} x {gpu.name}" if request.gpus > 1 else gpu.name
    document = {
        "name": f"{backbone}-{request.num_ids}",
        "description": f"Planned for {cards}: {request.num_ids:,} identities, {backbone}.",
        "prediction": expected(winner, request, rate, winner.accuracy, bytes_per_identity, several),
        "provenance": provenance_of(request, gpu, result.num_trials),
        "search": summary,
    }
    return TrainProfile.model_validate({**winner.profile.model_dump(), **document})


def expected(
    chosen: Candidate,
    request: PlanRequest,
    images_per_second: Interval,
    accuracy: Interval,
    bytes_per_identity: float,
    several: SeveralGpus | None = None,
) -> Prediction:
    """Return what a profile says of its run: the candidate's memory, and a rate and an accuracy from anywhere."""
    num_seen = request.num_images and round(request.epochs * request.num_images)
    return Prediction(
        memory=chosen.memory,
        images_per_second=images_per_second,
        hours_per_epoch=hours_per_epoch(images_per_second, request.num_images),
        hours=hours_per_epoch(images_per_second, num_seen),
        limited_by=chosen.speed.limited_by,
        phases=tuple(PhaseSeconds(phase=term.name, low=term.fast, high=term.slow) for term in chosen.speed.phases),
        loading=chosen.speed.loading.to_save(),
        accuracy=accuracy,
        bytes_per_identity=bytes_per_identity,
        several=several,
    )


def provenance_of(request: PlanRequest, gpu: GpuProfile, num_trials: int) -> Provenance:
    """Return where a profile that is written now comes from."""
    versions = installed_versions()
    return Provenance(
        attfc_version=versions["attfc"],
        torch_version=versions["torch"],
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        gpu=gpu.name,
        gpu_source=gpu.source,
        command=request.command,
        seed=request.seed,
        num_trials=num_trials,
    )
