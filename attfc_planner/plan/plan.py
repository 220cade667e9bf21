"""The whole plan: search, choice, and the training profile with its prediction and provenance."""

from __future__ import annotations

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
from attfc_train.profile.prediction import Prediction, Provenance
from attfc_train.profile.profile import TrainProfile
from attfc_train.profile.search_summary import SearchSummary
from attfc_train.units import Bytes


@dataclass(frozen=True)
class Plan:
    """The answer."""

    profile: TrainProfile
    gpu: GpuProfile
    chosen: Candidate
    runners_up: dict[str, Candidate]
    search: SearchResult


def make_plan(problem: Problem) -> Plan:
    """Search, choose, and write down why.

    Raises:
        InfeasiblePlanError: nothing respects the limits; names the one, the miss and the nearest setting.
    """
    request, space, evaluate = problem.request, problem.space, problem.evaluate
    limits = problem.limits
    usual = problem.base.optim.batch_size
    result = search(space, evaluate, limits, batch_size=usual, num_trials=request.num_trials, seed=request.seed)

    def selected(margin_bytes: Bytes) -> Candidate | None:
        if not margin_bytes:
            return pick(result.front, request.prefer)
        tightened = replace(limits, margin_bytes=margin_bytes)
        return pick(plain_front(space, evaluate, tightened, result.starts, usual), request.prefer)

    winner, margin = choose(selected, problem.model, limits)
    tightened = replace(limits, margin_bytes=margin)
    if winner is None:
        raise refusal(space, evaluate, tightened, problem.gpu.name)
    kept = plain_front(space, evaluate, tightened, result.starts, usual) if margin else result.front
    front = tuple(pareto_front([winner, *(other for other in kept if other.setting != winner.setting)]))
    least = smallest(space, evaluate, tightened, result.starts)
    others = runners_up(front, winner, least if least and is_feasible(least, tightened) else None, request.prefer)
    summary = summarised(space, front, winner, limits, request.prefer, problem.left_out)
    if request.tuned is not None and request.tuned.search is not None:
        trained = request.tuned.search
        summary = summary.model_copy(update={"trainings": trained.trainings, "trained_on": trained.trained_on})
    return Plan(finished_profile(winner, request, problem.gpu, result, summary), problem.gpu, winner, others, result)


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
    versions = installed_versions()
    provenance = Provenance(
        attfc_version=versions["attfc"],
        torch_version=versions["torch"],
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
