"""``best.json`` after a tuning: the plan's format, with what was measured where the plan had predictions."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from attfc_planner.gpu.versions import installed_versions
from attfc_planner.search.candidates import Candidate
from attfc_planner.search.study import pareto_front
from attfc_planner.search.summary import summarised
from attfc_planner.speed.model import hours_per_epoch
from attfc_planner.tune.question import Question
from attfc_planner.tune.verdict.result import STEPS_SOURCE, Verdict, against_full_fc
from attfc_planner.tune.verdict.trained import trained_on
from attfc_train.profile.prediction import Interval, Prediction, Provenance
from attfc_train.profile.profile import TrainProfile
from attfc_train.profile.search_summary import SearchSummary, TrainingRecord


def tuned_profile(
    question: Question,
    found: Verdict,
    candidates: Sequence[Candidate],
    trainings: tuple[TrainingRecord, ...],
    num_trials: int,
    num_short_ids: int | None,
) -> TrainProfile:
    """The chosen setting for the whole data set, with prediction, provenance, and the Pareto front of what was measured.

    Args:
        candidates: all settings whose steps ran.
        trainings: see `attfc_planner.tune.verdict.trained.training_records`.
        num_trials: of all stages.
        num_short_ids: identities of the short trainings; None where there were none.
    """
    request, chosen = question.request, found.chosen
    rate = _rate(found)
    prediction = Prediction(
        memory=chosen.memory,
        images_per_second=rate,
        hours_per_epoch=hours_per_epoch(rate, request.num_images),
        hours=hours_per_epoch(rate, request.num_images and round(request.epochs * request.num_images)),
        limited_by=chosen.speed.limited_by,
        accuracy=_accuracy(found, num_short_ids),
    )
    versions = installed_versions()
    provenance = Provenance(
        attfc_version=versions["attfc"],
        torch_version=versions["torch"],
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        gpu=question.gpu.name,
        gpu_source=question.gpu.source,
        command=request.command,
        seed=request.seed,
        num_trials=num_trials,
    )
    description = f"Tuned on {question.gpu.name}: {request.num_ids:,} identities, {request.backbone}. {found.why}"
    document = {
        "name": question.plan.profile.name,
        "description": description,
        "prediction": prediction,
        "provenance": provenance,
        "search": _summary(question, found, candidates, trainings, num_short_ids),
    }
    return TrainProfile.model_validate({**chosen.profile.model_dump(), **document})


def _summary(
    question: Question,
    found: Verdict,
    candidates: Sequence[Candidate],
    trainings: tuple[TrainingRecord, ...],
    num_short_ids: int | None,
) -> SearchSummary:
    """The plan's, with measured settings for its front, and the trainings."""
    others = [one for one in candidates if one.setting != found.chosen.setting]
    front = pareto_front([found.chosen, *others])
    left_out = question.plan.profile.search.left_out if question.plan.profile.search else ()
    made = summarised(question.space, front, found.chosen, question.limits, question.request.prefer, left_out)
    where = trained_on(question, num_short_ids) if trainings and num_short_ids else ""
    return made.model_copy(update={"rule": f"tuned: {found.rule}", "trainings": trainings, "trained_on": where})


def _rate(found: Verdict) -> Interval:
    """From the short training, which loads data, to the bare steps; only the latter where it did not end by itself."""
    steps = found.chosen.images_per_second
    own = next((one.trained for one in found.comparisons if one.trained.setting == found.chosen.setting), None)
    if own is None or own.images_per_second is None:
        return Interval(low=steps, high=steps, source=STEPS_SOURCE)
    training = float(f"{own.images_per_second:.4g}")
    source = f"measured: {training:,.4g} in a short training with data loading, {steps:,.4g} in bare train steps"
    return Interval(low=min(training, steps), high=max(training, steps), source=source)


def _accuracy(found: Verdict, num_short_ids: int | None) -> Interval:
    """Points against a full FC layer: from the regression over all trainings, where they are too few for that from the two
    trainings, and the prior where one of these is missing."""
    compared = against_full_fc(found)
    if compared is None or found.model is not None:
        return found.chosen.accuracy
    own, base, gap = compared
    source = (
        f"measured: {own.value:.2%} against {base.value:.2%} of a full FC layer, short trainings "
        f"of {num_short_ids or 0:,} identities on held-out pairs, 95 % interval"
    )
    low, high = 100 * (gap.value - gap.half_width), 100 * (gap.value + gap.half_width)
    return Interval(low=round(low, 3), high=round(high, 3), source=source)
