"""``best.json`` after a tuning: the plan's format, with what was measured where the plan had predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attfc_planner.knobs.space import Setting
from attfc_planner.plan.plan import bytes_per_identity, expected, provenance_of
from attfc_planner.search.candidates import Candidate
from attfc_planner.search.study import pareto_front
from attfc_planner.search.summary import summarised
from attfc_planner.tune.question import Question
from attfc_planner.tune.verdict.result import STEPS_SOURCE, Verdict, against_full_fc
from attfc_planner.tune.verdict.trained import trained_on
from attfc_train.profile.prediction import Interval
from attfc_train.profile.profile import TrainProfile
from attfc_train.profile.search_summary import SearchSummary, TrainingRecord


def tuned_profile(
    question: Question,
    result: Verdict,
    candidates: Sequence[Candidate],
    trainings: tuple[TrainingRecord, ...],
    num_trials: int,
    num_short_ids: int | None,
) -> TrainProfile:
    """Return the chosen setting for the whole data set, with prediction, provenance, and the measured Pareto front.

    Args:
        candidates: all settings whose steps ran.
        trainings: see `attfc_planner.tune.verdict.trained.training_records`.
        num_trials: trials of all stages.
        num_short_ids: identities of the short trainings; None if there were none.
    """
    request = question.request
    front = _front(result, candidates)
    kept = bytes_per_identity(question.problem.model, front)
    description = f"Tuned on {question.gpu.name}: {request.num_ids:,} identities, {request.backbone}. {result.why}"
    document = {
        "name": question.plan.profile.name,
        "description": description,
        "prediction": expected(
            result.chosen, request, _rate(result), _accuracy(result, num_short_ids), kept[result.chosen.setting]
        ),
        "provenance": provenance_of(request, question.gpu, num_trials),
        "search": _summary(question, result, front, kept, trainings, num_short_ids),
    }
    return TrainProfile.model_validate({**result.chosen.profile.model_dump(), **document})


def _front(result: Verdict, candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return the measured front and the chosen setting, which may have another queue length than what gave its steps."""
    rest = [candidate for candidate in candidates if candidate.setting != result.chosen.setting]
    front = pareto_front([result.chosen, *rest])
    return front if result.chosen in front else [result.chosen, *front]


def _summary(
    question: Question,
    result: Verdict,
    front: Sequence[Candidate],
    kept: Mapping[Setting, float],
    trainings: tuple[TrainingRecord, ...],
    num_short_ids: int | None,
) -> SearchSummary:
    """Return the plan's summary, with measured settings for its front, and the trainings."""
    left_out = question.plan.profile.search.left_out if question.plan.profile.search else ()
    summary = summarised(question.spaces, front, result.chosen, question.limits, question.request.prefer, left_out, kept)
    where = trained_on(question, num_short_ids) if trainings and num_short_ids else ""
    return summary.model_copy(update={"rule": f"tuned: {result.rule}", "trainings": trainings, "trained_on": where})


def _rate(result: Verdict) -> Interval:
    """Return images/s from the short training, which loads data, to the bare steps; the latter alone if it did not finish."""
    steps = result.chosen.images_per_second
    trained = result.trained
    if trained is None or trained.images_per_second is None:
        return Interval(low=steps, high=steps, source=STEPS_SOURCE)
    training = float(f"{trained.images_per_second:.4g}")
    source = f"measured: {training:,.4g} in a short training with data loading, {steps:,.4g} in bare train steps"
    return Interval(low=min(training, steps), high=max(training, steps), source=source)


def _accuracy(result: Verdict, num_short_ids: int | None) -> Interval:
    """Return points against a full FC layer by the best source there is.

    That is the regression over all trainings; where they are too few for it, the difference of the two trainings; and the
    prior where one of these is missing.
    """
    compared = against_full_fc(result)
    if compared is None or result.model is not None:
        return result.chosen.accuracy
    chosen, full_fc, gap = compared
    source = (
        f"measured: {chosen.value:.2%} against {full_fc.value:.2%} of a full FC layer, short trainings "
        f"of {num_short_ids or 0:,} identities on held-out pairs, 95 % interval"
    )
    low = 100 * (gap.value - gap.half_width)
    high = 100 * (gap.value + gap.half_width)
    return Interval(low=round(low, 3), high=round(high, 3), source=source)
