"""The whole plan: search, choice, and the training profile with its prediction and provenance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from attfc_planner.gpu.profile import GpuProfile
from attfc_planner.gpu.versions import installed_versions
from attfc_planner.plan.problem import Problem
from attfc_planner.plan.request import PlanRequest
from attfc_planner.search.candidates import Candidate
from attfc_planner.search.choose import choose, pick, runners_up
from attfc_planner.search.constraints import is_feasible
from attfc_planner.search.refusal import refusal, smallest
from attfc_planner.search.study import SearchResult, pareto_front, plain_front, search
from attfc_planner.search.summary import summarised
from attfc_planner.speed.model import hours_per_epoch
from attfc_train.profile.prediction import Interval, Prediction, Provenance
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


def make_plan(problem: Problem) -> Plan:
    """Search, choose, and make the profile of the choice.

    Raises:
        InfeasiblePlanError: nothing respects the limits; names the one, the miss and the nearest setting.
    """
    request = problem.request
    space = problem.space
    evaluate = problem.evaluate
    limits = problem.limits
    usual_batch = problem.base.optim.batch_size
    result = search(space, evaluate, limits, batch_size=usual_batch, num_trials=request.num_trials, seed=request.seed)

    def front_within(margin_bytes: Bytes) -> Sequence[Candidate]:
        """Return the front of what fits with this margin; it is screened again where estimates were too low."""
        if not margin_bytes:
            return result.front
        return plain_front(space, evaluate, replace(limits, margin_bytes=margin_bytes), result.starts, usual_batch)

    winner, margin = choose(lambda margin_bytes: pick(front_within(margin_bytes), request.prefer), problem.model, limits)
    tightened = replace(limits, margin_bytes=margin)
    if winner is None:
        raise refusal(space, evaluate, tightened, problem.gpu.name)
    others = [other for other in front_within(margin) if other.setting != winner.setting]
    front = tuple(pareto_front([winner, *others]))
    least = smallest(space, evaluate, tightened, result.starts)
    least_feasible = least if least and is_feasible(least, tightened) else None
    summary = summarised(space, front, winner, limits, request.prefer, problem.left_out)
    profile = finished_profile(winner, request, problem.gpu, result, _with_trainings(summary, request.tuned))
    return Plan(profile, problem.gpu, winner, runners_up(front, winner, least_feasible, request.prefer), result)


def _with_trainings(summary: SearchSummary, tuned: TrainProfile | None) -> SearchSummary:
    """Return the summary with the trainings that the accuracies are from, so that the plan can be made again from them."""
    if tuned is None or tuned.search is None:
        return summary
    return summary.model_copy(update={"trainings": tuned.search.trainings, "trained_on": tuned.search.trained_on})


def finished_profile(
    winner: Candidate, request: PlanRequest, gpu: GpuProfile, result: SearchResult, summary: SearchSummary
) -> TrainProfile:
    """Return `best.json`: the winner's settings with prediction, provenance and the search behind them."""
    backbone = winner.profile.model.backbone
    document = {
        "name": f"{backbone}-{request.num_ids}",
        "description": f"Planned for {gpu.name}: {request.num_ids:,} identities, {backbone}.",
        "prediction": expected(winner, request, winner.speed.images_per_second, winner.accuracy),
        "provenance": provenance_of(request, gpu, result.num_trials),
        "search": summary,
    }
    return TrainProfile.model_validate({**winner.profile.model_dump(), **document})


def expected(chosen: Candidate, request: PlanRequest, images_per_second: Interval, accuracy: Interval) -> Prediction:
    """Return what a profile says of its run: the candidate's memory, and a rate and an accuracy from anywhere."""
    num_seen = request.num_images and round(request.epochs * request.num_images)
    return Prediction(
        memory=chosen.memory,
        images_per_second=images_per_second,
        hours_per_epoch=hours_per_epoch(images_per_second, request.num_images),
        hours=hours_per_epoch(images_per_second, num_seen),
        limited_by=chosen.speed.limited_by,
        accuracy=accuracy,
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
