"""``best.json`` after a tuning: the plan's format, with what was measured where the plan had predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from attfc_planner.knobs.space import Setting
from attfc_planner.plan.plan import bytes_per_identity, expected, provenance_of
from attfc_planner.search.candidates import Candidate
from attfc_planner.search.study import pareto_front
from attfc_planner.search.summary import summarised
from attfc_planner.tune.question import Question
from attfc_planner.tune.stages.scaling import NUM_CHECKS
from attfc_planner.tune.verdict.result import STEPS_SOURCE, AgainstFullFC, Verdict, against_full_fc, trained_candidates
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
    result, candidates = _judged(question, result, candidates, num_short_ids)
    front = _front(result, candidates)
    kept = bytes_per_identity(question.problem.model, front)
    description = f"Tuned on {question.gpu.name}: {request.num_ids:,} identities, {request.backbone}. {result.why}"
    document = {
        "name": question.plan.profile.name,
        "description": description,
        "prediction": expected(result.chosen, request, _rate(result), result.chosen.accuracy, kept[result.chosen.setting]),
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


def _judged(
    question: Question, result: Verdict, candidates: Sequence[Candidate], num_short_ids: int | None
) -> tuple[Verdict, list[Candidate]]:
    """Return the verdict and the candidates with accuracies that agree with the trainings, all of one kind.

    They are the regression's over all trainings, where there is one; else the trainings' own, of the settings that were trained
    beside a full FC layer; else, where the chosen setting was not, the prior's. Figures of two kinds are never side by side:
    the prior's would contradict what was measured.
    """
    model = result.model
    if model is not None:
        return result, [replace(each, accuracy=model.interval(each.profile), is_measured=True) for each in candidates]
    own = against_full_fc(result)
    if own is None:
        return result, list(candidates)
    measured = [(each, against_full_fc(result, trained)) for each, trained in trained_candidates(question, result, candidates)]
    known = [_with_own(each, compared, num_short_ids) for each, compared in measured if compared is not None]
    return replace(result, chosen=_with_own(result.chosen, own, num_short_ids)), known


def _with_own(candidate: Candidate, own: AgainstFullFC, num_short_ids: int | None) -> Candidate:
    """Return the candidate with the difference of its training and that of the full FC layer for its accuracy."""
    stopped = "" if own.check == NUM_CHECKS else f" at check {own.check} of {NUM_CHECKS}, where it was stopped"
    source = (
        f"measured: {own.setting.value:.2%} against {own.full_fc.value:.2%} of a full FC layer{stopped}, short trainings "
        f"of {num_short_ids or 0:,} identities on held-out pairs, 95 % interval"
    )
    low, high = own.points
    return replace(candidate, accuracy=Interval(low=round(low, 3), high=round(high, 3), source=source), is_measured=True)
