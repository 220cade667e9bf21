"""From the trials of all stages to one setting: the rule, what it changes against the plan, and what cannot be told apart.

The rule: of the settings whose short trainings ran to the end, all that are statistically tied with the most accurate one are
equally good; of these the fastest is taken, and of those as fast (`EQUAL_SPEED`) the most accurate. Without a finished training
the plan's own rule is applied to measured speed and memory, with the accuracy prior. How far trainings of one setting differ is
taken from the regression over all of them where there is one (`attfc_planner.accuracy.regression`), else from the pairs alone.
What crashed or ran out of memory with any seed is not chosen while anything else works.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from attfc_planner.accuracy.prior import midpoint
from attfc_planner.accuracy.regression import MeasuredAccuracy
from attfc_planner.knobs.space import Setting
from attfc_planner.search.candidates import Candidate
from attfc_planner.search.choose import EQUAL_SPEED, Preference, pick
from attfc_planner.search.constraints import is_feasible
from attfc_planner.search.study import pareto_front
from attfc_planner.tune.question import Question, headroom, process_bytes, with_measured, word, words
from attfc_planner.tune.stages.correction import MemoryCorrection
from attfc_planner.tune.stages.scaling import NUM_CHECKS
from attfc_planner.tune.stages.steps import neighbours, observations
from attfc_planner.tune.studies.claim import Record
from attfc_planner.tune.verdict.ties import Accuracy, Difference, at_common_check, difference
from attfc_planner.tune.verdict.trained import BROKEN, Trained
from attfc_train.profile.prediction import Interval, MemoryPrediction, MemoryTerm
from attfc_train.units import format_bytes

MOST_TRAININGS = 6
STEPS_SOURCE = "measured: real train steps of a tuning trial, in a process of their own; no more than the loader decodes"


@dataclass(frozen=True)
class Comparison:
    """A training against the best one, at the last check that both reached."""

    trained: Trained
    check: int
    against_best: Difference


@dataclass(frozen=True)
class Verdict:
    """What a tuning found."""

    chosen: Candidate
    """With measured memory and speed."""
    rule: str
    """Why it was chosen."""
    comparisons: tuple[Comparison, ...]
    """Most accurate first; empty without a training that reported."""
    baseline: Trained | None
    changes: dict[str, tuple[str, str]]
    """Knob -> the plan's value and the tuned one."""
    why: str
    """What became of the plan's choice."""
    model: MeasuredAccuracy | None
    """What the trainings say of every setting; None where they are too few."""

    @property
    def tied(self) -> tuple[Comparison, ...]:
        """The settings that cannot be told from the best."""
        return tuple(one for one in self.comparisons if one.against_best.is_tie)


def measured_candidates(
    question: Question, records: Sequence[Record], model: MeasuredAccuracy | None = None
) -> list[Candidate]:
    """The settings whose steps ran and respect every constraint, with what was measured in place of what was predicted.

    Args:
        model: what trainings say, in place of the accuracy prior. The accuracy floor is asked of the prior in any case: the
            best of what was tried is chosen, also where trainings show that all of it is worse than planned.
    """
    correction = MemoryCorrection.learned(observations(list(records)))
    found = [_measured(question, record, correction) for record in records if record.state == "complete"]
    feasible = [candidate for candidate in found if is_feasible(candidate, question.limits)]
    return [one if model is None else replace(one, accuracy=model.interval(one.profile)) for one in feasible]


def in_order(candidates: Sequence[Candidate], prefer: Preference) -> list[Candidate]:
    """Best first: what the plan's rule picks, then what it picks of the rest, and so on."""
    ordered, rest = [], list(candidates)
    while (best := pick(rest, prefer)) is not None:
        ordered.append(best)
        rest = [one for one in rest if one is not best]
    return ordered


def contenders(question: Question, candidates: Sequence[Candidate]) -> list[Setting]:
    """What is trained, in order: the best by the plan's rule, the plan's choice, then others that differ in speed or accuracy.

    Among the latter are the best setting's neighbours in knobs that change neither memory nor speed, such as the queue length:
    only trainings can tell these apart.
    """
    front = {candidate.setting for candidate in pareto_front(list(candidates))}
    ordered = [candidate.setting for candidate in in_order(candidates, question.request.prefer)]
    if not ordered:
        return []
    best, planned = ordered[0], question.plan.chosen.setting
    variants = [one for one in neighbours(question, best) if question.steps_key(one) == question.steps_key(best)]
    others = [setting for setting in ordered[1:] if setting in front]
    wanted = [best, *([planned] if planned in ordered else []), *others[:2], *variants, *others[2:]]
    return list(dict.fromkeys(wanted))[:MOST_TRAININGS]


def finals_pool(question: Question, candidates: Sequence[Candidate], trained: Sequence[Trained]) -> list[Setting]:
    """What may become a finalist: settings that run, at every queue length; of those that learn alike what was trained, else
    the fastest. Nothing whose training crashed or ran out of memory."""
    fastest = sorted(candidates, key=lambda one: -one.images_per_second)
    settings = [setting for candidate in fastest for setting in _alike_in_cost(question, candidate.setting)]
    runs = {question.steps_key(each.setting) for each in candidates}
    known = [each.setting for each in trained if each.setting is not None and question.steps_key(each.setting) in runs]
    broken = {each.setting for each in trained if each.outcome in BROKEN}
    pool: dict[Setting, Setting] = {}
    for setting in (*known, *settings):
        if setting not in broken:
            pool.setdefault(_alike_in_accuracy(question, setting), setting)
    return list(pool.values())


def _alike_in_cost(question: Question, setting: Setting) -> list[Setting]:
    """Return the setting at every value of the knobs that affect accuracy alone."""
    others = {knob.name: (setting[knob.name],) for knob in question.space.knobs if knob.affects != {"accuracy"}}
    return list(question.space.narrowed(**others))


def _alike_in_accuracy(question: Question, setting: Setting) -> Setting:
    """Return the setting that stands for all that differ in what does not affect accuracy."""
    return setting.turned(**{knob.name: knob.values[0] for knob in question.space.knobs if "accuracy" not in knob.affects})


def verdict(
    question: Question,
    steps: Sequence[Record],
    trained: Sequence[Trained],
    full_fc: Trained | None,
    model: MeasuredAccuracy | None = None,
) -> Verdict | None:
    """The result of all trials so far; None where no setting's steps ran."""
    candidates = {question.steps_key(one.setting): one for one in measured_candidates(question, steps, model)}
    if not candidates:
        return None
    noise = model.noise_factor if model else 1.0
    compared = _compared([one for one in trained if one.checks and one.outcome not in BROKEN], noise)
    broken = {question.steps_key(one.setting) for one in trained if one.setting and one.outcome in BROKEN}
    working = {key: one for key, one in candidates.items() if key not in broken}
    chosen, rule = _choice(question, working or candidates, compared, model)
    plan = question.plan.chosen.setting
    changes = {
        name: (word(value), word(chosen.setting[name]))
        for name, value in plan.document().items()
        if value != chosen.setting[name]
    }
    why = _fate(question, steps, candidates, compared, chosen, noise)
    return Verdict(chosen, rule, tuple(compared), full_fc, changes, why, model)


def _choice(
    question: Question, candidates: dict[Setting, Candidate], compared: Sequence[Comparison], model: MeasuredAccuracy | None
) -> tuple[Candidate, str]:
    finished = [one for one in compared if one.trained.finished and one.against_best.is_tie]
    rows = [(one, candidates.get(question.steps_key(_setting(one)))) for one in finished]
    known = [(one, candidate) for one, candidate in rows if candidate is not None]
    if not known:
        rule = "the plan's rule with measured speed and memory; no short training finished"
        return in_order(list(candidates.values()), question.request.prefer)[0], rule
    fast = max(candidate.images_per_second for _, candidate in known) * (1 - EQUAL_SPEED)
    one, candidate = next(row for row in known if row[1].images_per_second >= fast)  # `compared` is in order of accuracy
    if len(known) == 1:
        rule = "the most accurate of the short trainings that ran to the end"
    else:
        rule = f"of {len(known)} settings tied in accuracy the fastest, of equally fast ones the most accurate"
    return _with_setting(question, candidate, _setting(one), model), rule


def _with_setting(question: Question, candidate: Candidate, setting: Setting, model: MeasuredAccuracy | None) -> Candidate:
    """Measured steps stand for every setting that takes the same ones."""
    own = with_measured(question.evaluate(setting), candidate.speed.images_per_second, candidate.predict_memory)
    return own if model is None else replace(own, accuracy=model.interval(own.profile))


def _setting(one: Comparison) -> Setting:
    assert one.trained.setting is not None, "the full FC layer is not compared here"
    return one.trained.setting


def _compared(trained: list[Trained], noise_factor: float) -> list[Comparison]:
    """Best first: those that got furthest, by accuracy; then those stopped earlier, by how far behind they were then.

    Args:
        noise_factor: variance of a training's accuracy over that of its pairs.
    """
    if not trained:
        return []
    furthest = max(max(one.checks) for one in trained)
    best = max((one for one in trained if furthest in one.checks), key=lambda one: one.checks[furthest].value)
    found = []
    for one in trained:
        common = at_common_check(one.checks, best.checks, noise_factor)
        if one is not best and common is not None:
            found.append(Comparison(one, *common))
    found.sort(key=lambda row: (-row.check, -row.against_best.value))
    return [Comparison(best, furthest, Difference(0.0, 0.0)), *found]


def _fate(
    question: Question,
    steps: Sequence[Record],
    candidates: dict[Setting, Candidate],
    compared: Sequence[Comparison],
    chosen: Candidate,
    noise_factor: float,
) -> str:
    """What became of the plan's choice, which is why another was taken."""
    plan = question.plan.chosen.setting
    if plan == chosen.setting:
        return "The plan's choice was confirmed."
    key = question.steps_key(plan)
    measured = candidates.get(key)
    if measured is None:
        own = [record for record in steps if record.indices and question.steps_key(question.space.at(record.indices)) == key]
        reasons = [str(record.notes.get("reason") or record.notes.get("outcome")) for record in own]
        return f"The plan's choice ({words(plan)}) did not pass: {reasons[-1] if reasons else 'it was not tried'}."
    parts = [f"{chosen.images_per_second / measured.images_per_second - 1:+.0%} images/s"]
    rows = {one.trained.setting: one.trained for one in compared}
    if plan in rows and chosen.setting in rows:
        common = at_common_check(rows[chosen.setting].checks, rows[plan].checks, noise_factor)
        if common is not None:
            parts.append(f"{points(common[1])} at check {common[0]} of {NUM_CHECKS}")
    return f"Against the plan's choice ({words(plan)}): {', '.join(parts)}."


def points(gap: Difference) -> str:
    """``-0.31 ± 0.80 points (tied)``."""
    tie = " (tied)" if gap.is_tie else ""
    return f"{100 * gap.value:+.2f} ± {100 * gap.half_width:.2f} points{tie}"


def against_full_fc(found: Verdict) -> tuple[Accuracy, Accuracy, Difference] | None:
    """The chosen setting's accuracy, the full FC layer's and their difference; None where one of them did not finish."""
    own = next((one.trained for one in found.comparisons if one.trained.setting == found.chosen.setting), None)
    base = found.baseline
    if own is None or base is None or not (own.finished and base.finished):
        return None
    ours, theirs = own.checks[NUM_CHECKS], base.checks[NUM_CHECKS]
    return ours, theirs, difference(ours, theirs, found.model.noise_factor if found.model else 1.0)


def _measured(question: Question, record: Record, correction: MemoryCorrection) -> Candidate:
    candidate = question.evaluate(question.space.at(record.indices))
    rate = float(f"{min(record.values[1], midpoint(candidate.speed.loader_images_per_second)):.4g}")
    speed = Interval(low=rate, high=rate, source=STEPS_SOURCE)
    return with_measured(candidate, speed, partial(_measured_memory, candidate, record, correction))


def _measured_memory(candidate: Candidate, record: Record, correction: MemoryCorrection) -> MemoryPrediction:
    """The prediction's frame with the measured peak in place of the traced terms."""
    predicted, notes = candidate.memory, record.notes
    peak, held = notes["peak_bytes"], notes.get("reserved_bytes")
    expected = process_bytes(predicted)
    source = f"measured: real train steps and an evaluation (predicted {format_bytes(expected)})"
    if held is None:
        terms = [MemoryTerm(name="process", bytes=peak, source=source)]
    else:
        terms = [
            MemoryTerm(name="context", bytes=peak - held, source="measured: device memory beside the allocator's"),
            MemoryTerm(name="allocator", bytes=held, source=source),
        ]
    kept = [term for term in predicted.terms if term.name in ("foreign", "data")]
    margin = min(correction.margin(expected), headroom(predicted))
    rule = f"rule: {len(correction.ran)} real peaks against their predictions"
    terms += [*kept, MemoryTerm(name="headroom", bytes=margin, source=rule)]
    return predicted.model_copy(update={"terms": tuple(terms)})
