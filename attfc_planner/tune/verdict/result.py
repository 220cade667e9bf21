"""From the trials of all stages to one setting: the rule, what it changes against the plan, and what cannot be told apart.

The rule: of the settings whose short trainings ran to the end, all that are statistically tied with the most accurate one
are equally good; of these the fastest is taken, and of those as fast (`EQUAL_SPEED`) the most accurate. Without a finished
training, and where its accuracy tells nothing (`Accuracy.untold`), the plan's own rule is applied to measured speed and memory,
with the accuracy prior, and accuracy counts as not tested. How far trainings of one setting differ is taken from the regression
over all of them where there is one (`attfc_planner.accuracy.regression`), else from the pairs alone. A setting that crashed or
ran out of memory with any seed is chosen only if no other setting ran.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from attfc_planner.accuracy.regression import MeasuredAccuracy
from attfc_planner.knobs.space import Setting
from attfc_planner.search.candidates import Candidate
from attfc_planner.search.choose import EQUAL_SPEED, in_order
from attfc_planner.search.constraints import is_feasible
from attfc_planner.search.study import pareto_front
from attfc_planner.tune.question import Question, headroom, process_bytes, with_measured, word, words
from attfc_planner.tune.stages.correction import MemoryCorrection
from attfc_planner.tune.stages.scaling import NUM_CHECKS
from attfc_planner.tune.stages.steps import neighbours, observations
from attfc_planner.tune.studies.claim import Record
from attfc_planner.tune.verdict.ties import TOO_WIDE, Accuracy, Difference, at_common_check
from attfc_planner.tune.verdict.trained import BROKEN, Standing, Trained
from attfc_train.profile.prediction import MemoryPrediction, MemoryTerm
from attfc_train.units import Bytes, format_bytes

MOST_TRAININGS = 6
"""Settings that are trained, beside the best of every further kind of head."""
STEPS_SOURCE = "measured: real train steps of a tuning trial, in a process of their own; no more than the loader decodes"


@dataclass(frozen=True)
class Comparison:
    """A training against the best one, at the last check that both reached."""

    trained: Trained
    check: int
    against_best: Difference


@dataclass(frozen=True)
class Verdict:
    """The setting that a tuning chose, and what it rests on."""

    chosen: Candidate
    """With measured memory and speed."""
    rule: str
    """Why it was chosen."""
    comparisons: tuple[Comparison, ...]
    """The trainings, most accurate first; empty without one that reported."""
    baseline: Trained | None
    changes: dict[str, tuple[str, str]]
    """Knob -> the plan's value and the tuned one."""
    why: str
    """What became of the plan's choice."""
    model: MeasuredAccuracy | None
    """What the trainings say of every setting; None if they are too few."""
    untested: str = ""
    """Why no accuracy was tested; empty where one was."""

    @property
    def tied(self) -> tuple[Comparison, ...]:
        """Return the settings that cannot be told from the best."""
        return tuple(each for each in self.comparisons if each.against_best.is_tie)

    @property
    def trained(self) -> Trained | None:
        """Return the trainings of the chosen setting, None if there are none."""
        return next((each.trained for each in self.comparisons if each.trained.setting == self.chosen.setting), None)


def measured_candidates(
    question: Question, records: Sequence[Record], model: MeasuredAccuracy | None = None
) -> list[Candidate]:
    """Return the settings whose steps ran and respect every constraint, measured in place of predicted.

    Args:
        model: what trainings say, in place of the accuracy prior. The accuracy floor is asked of the prior in any case: the
            best of what was tried is chosen, also where trainings show that all of it is worse than planned.
    """
    correction = MemoryCorrection.learned(observations(list(records)))
    measured = [_measured(question, record, correction) for record in records if record.state == "complete"]
    # Feasibility comes before the trainings' accuracy: see `model`.
    feasible = [candidate for candidate in measured if is_feasible(candidate, question.limits)]
    return [_with_accuracy(candidate, model) for candidate in feasible]


def _with_accuracy(candidate: Candidate, model: MeasuredAccuracy | None) -> Candidate:
    if model is None:
        return candidate
    return replace(candidate, accuracy=model.interval(candidate.profile), is_measured=True)


def contenders(question: Question, candidates: Sequence[Candidate]) -> list[Setting]:
    """Return what is trained, in order: the best by the plan's rule, the plan's choice, then others that differ from these.

    Of several kinds of heads the best of each comes next: only trainings can tell these apart. Among the latter are the
    best setting's neighbours in knobs that change neither memory nor speed, such as the queue length: only trainings can
    tell these apart.
    """
    front = {candidate.setting for candidate in pareto_front(list(candidates))}
    ordered = [candidate.setting for candidate in in_order(candidates, question.request.prefer)]
    if not ordered:
        return []
    best = ordered[0]
    planned = question.plan.chosen.setting
    of_other_heads = _first_of_each_head(ordered, best)
    variants = [each for each in neighbours(question, best) if question.steps_key(each) == question.steps_key(best)]
    rest_of_front = [setting for setting in ordered[1:] if setting in front]
    first = [best, *([planned] if planned in ordered else []), *of_other_heads]
    wanted = [*first, *rest_of_front[:2], *variants, *rest_of_front[2:]]
    return list(dict.fromkeys(wanted))[: MOST_TRAININGS + len(of_other_heads)]


def _first_of_each_head(ordered: Sequence[Setting], best: Setting) -> list[Setting]:
    """Return the first setting of every kind of head but the best one's."""
    first: dict[str | None, Setting] = {}
    for setting in ordered:
        first.setdefault(setting.head, setting)
    return [setting for kind, setting in first.items() if kind != best.head]


def finals_pool(question: Question, candidates: Sequence[Candidate], trained: Sequence[Trained]) -> list[Setting]:
    """Return the settings that may become finalists, one of those that learn alike: what was trained, else the fastest.

    They run, and no training of theirs crashed or ran out of memory. What ran stands for every queue length.
    """
    fastest_first = sorted(candidates, key=lambda each: -each.images_per_second)
    settings = [setting for candidate in fastest_first for setting in _alike_in_cost(question, candidate.setting)]
    runs = {question.steps_key(each.setting) for each in candidates}
    already_trained = [each.setting for each in trained if each.setting and question.steps_key(each.setting) in runs]
    broken = {each.setting for each in trained if each.outcome in BROKEN}
    # Of settings that learn alike, as with and without gradient checkpointing, the first stands for all: to train the others
    # would tell nothing. A broken one is skipped before, so that a twin, which may need less memory, can take its place.
    pool: dict[Setting, Setting] = {}
    for setting in (*already_trained, *settings):
        if setting not in broken:
            pool.setdefault(_alike_in_accuracy(question, setting), setting)
    return list(pool.values())


def _alike_in_cost(question: Question, setting: Setting) -> list[Setting]:
    """Return the setting at every value of the knobs that affect accuracy alone."""
    space = question.spaces.of(setting)
    fixed = {knob.name: (setting[knob.name],) for knob in space.knobs if knob.affects != {"accuracy"}}
    return list(space.narrowed(**fixed))


def _alike_in_accuracy(question: Question, setting: Setting) -> Setting:
    """Return the setting that stands for all that differ in what does not affect accuracy."""
    knobs = question.spaces.of(setting).knobs
    return setting.turned(**{knob.name: knob.values[0] for knob in knobs if "accuracy" not in knob.affects})


def verdict(question: Question, steps: Sequence[Record], standing: Standing) -> Verdict | None:
    """Return the result of all trials so far, or None if no setting's steps ran.

    Args:
        steps: trials of real steps.
        standing: what the trainings say.
    """
    model = standing.model
    candidates = {question.steps_key(each.setting): each for each in measured_candidates(question, steps, model)}
    if not candidates:
        return None
    noise_factor = _noise_factor(model)
    comparisons = _comparisons([each for each in standing.trained if each.checks and each.outcome not in BROKEN], noise_factor)
    broken = {question.steps_key(each.setting) for each in standing.trained if each.setting and each.outcome in BROKEN}
    working = {key: candidate for key, candidate in candidates.items() if key not in broken}
    untested = _untested(comparisons)
    chosen, rule = _choice(question, working or candidates, comparisons, model, untested)
    changes = _changes(question.plan.chosen.setting, chosen.setting)
    why = _fate(question, steps, candidates, comparisons, chosen, noise_factor, untested)
    return Verdict(chosen, rule, tuple(comparisons), standing.full_fc, changes, why, model, untested)


def _untested(comparisons: Sequence[Comparison]) -> str:
    """Return why no accuracy was tested, of trainings most accurate first; empty where one was."""
    if not comparisons:
        return "no short training reported"
    best = comparisons[0].trained
    if not best.finished or best.accuracy is None:
        return "no short training finished"
    return best.accuracy.untold


def _noise_factor(model: MeasuredAccuracy | None) -> float:
    """Return the variance of a training's accuracy over that of its pairs; 1 while trainings are too few to know it."""
    return model.noise_factor if model else 1.0


def _changes(planned: Setting, chosen: Setting) -> dict[str, tuple[str, str]]:
    """Return knob -> value in the plan and now, of the knobs that both have."""
    pairs = {name: (value, chosen[name]) for name, value in planned.document().items() if name in chosen.names}
    return {name: (word(before), word(after)) for name, (before, after) in pairs.items() if before != after}


def _choice(
    question: Question,
    candidates: dict[Setting, Candidate],
    comparisons: Sequence[Comparison],
    model: MeasuredAccuracy | None,
    untested: str,
) -> tuple[Candidate, str]:
    """Return the setting that the rule chooses, and the rule in words.

    Args:
        candidates: by `Question.steps_key`.
        comparisons: most accurate first.
    """
    # A training that was stopped early is never chosen: tied at a third of the run is not tied at the end.
    tied = [each for each in comparisons if each.trained.finished and each.against_best.is_tie and not untested]
    measured = [(each, candidates.get(question.steps_key(_setting_of(each)))) for each in tied]
    eligible = [(each, candidate) for each, candidate in measured if candidate is not None]
    if not eligible:
        reason = untested or "no setting whose steps ran was trained to the end"
        rule = f"the plan's rule with measured speed and memory; accuracy was not tested: {reason}"
        return in_order(list(candidates.values()), question.request.prefer)[0], rule
    # No tied setting is known to be more accurate than another, so speed decides. Speeds within EQUAL_SPEED count as equal, and
    # of these the first is the most accurate.
    fast = max(candidate.images_per_second for _, candidate in eligible) * (1 - EQUAL_SPEED)
    selected, candidate = next(pair for pair in eligible if pair[1].images_per_second >= fast)
    if len(eligible) == 1:
        rule = "the most accurate of the short trainings that ran to the end"
    else:
        rule = f"of {len(eligible)} settings tied in accuracy the fastest, of equally fast ones the most accurate"
    return _with_setting(question, candidate, _setting_of(selected), model), rule


def _with_setting(question: Question, candidate: Candidate, setting: Setting, model: MeasuredAccuracy | None) -> Candidate:
    """Return `setting` with the measured steps of `candidate`, which takes the same ones."""
    measured = with_measured(question.evaluate(setting), lambda: candidate.speed, candidate.predict_memory)
    return _with_accuracy(measured, model)


def _setting_of(comparison: Comparison) -> Setting:
    assert comparison.trained.setting is not None, "the full FC layer is not compared here"
    return comparison.trained.setting


def _comparisons(trained: list[Trained], noise_factor: float) -> list[Comparison]:
    """Return the trainings best first, each against the best.

    Args:
        noise_factor: variance of a training's accuracy over that of its pairs.
    """
    if not trained:
        return []
    # The best is the most accurate of those that got furthest. The others follow by how far they got, since a difference at an
    # early check says less, and then by their difference to the best there.
    furthest = max(max(each.checks) for each in trained)
    best = max((each for each in trained if furthest in each.checks), key=lambda each: each.checks[furthest].value)
    comparisons = []
    for each in trained:
        common = at_common_check(each.checks, best.checks, noise_factor)
        if each is not best and common is not None:
            comparisons.append(Comparison(each, *common))
    comparisons.sort(key=lambda comparison: (-comparison.check, -comparison.against_best.value))
    return [Comparison(best, furthest, Difference(0.0, 0.0)), *comparisons]


def _fate(
    question: Question,
    steps: Sequence[Record],
    candidates: dict[Setting, Candidate],
    comparisons: Sequence[Comparison],
    chosen: Candidate,
    noise_factor: float,
    untested: str,
) -> str:
    """Return what became of the plan's choice, which is why another was taken."""
    planned = question.plan.chosen.setting
    if planned == chosen.setting:
        if untested:
            return f"The plan's choice ran as planned; its accuracy was not tested: {untested}."
        others = [each for each in comparisons if each.trained.setting != planned]
        return "The plan's choice was confirmed." if others else "The plan's choice stands; nothing else was trained."
    measured = candidates.get(question.steps_key(planned))
    if measured is None:
        return f"The plan's choice ({words(planned)}) did not pass: {_last_reason(question, steps, planned)}."
    parts = [f"{chosen.images_per_second / measured.images_per_second - 1:+.0%} images/s"]
    trained = {each.trained.setting: each.trained for each in comparisons}
    if planned in trained and chosen.setting in trained:
        common = at_common_check(trained[chosen.setting].checks, trained[planned].checks, noise_factor)
        if common is not None:
            check, gap = common
            parts.append(f"{points(gap)} at check {check} of {NUM_CHECKS}")
    if len(parts) == 1:
        parts.append("accuracy not tested")
    return f"Against the plan's choice ({words(planned)}): {', '.join(parts)}."


def _last_reason(question: Question, steps: Sequence[Record], planned: Setting) -> str:
    key = question.steps_key(planned)
    records = [record for record in steps if record.indices and question.steps_key(question.spaces.at(record.indices)) == key]
    reasons = [str(record.notes.get("reason") or record.notes.get("outcome")) for record in records]
    return reasons[-1] if reasons else "it was not tried"


def points(gap: Difference) -> str:
    """Return ``-0.31 ± 0.80 points (tied)``; what so few pairs cannot tell apart was not tested."""
    tie = "" if not gap.is_tie else " (tied)" if gap.half_width < TOO_WIDE else " (not tested: too few pairs)"
    return f"{100 * gap.value:+.2f} ± {100 * gap.half_width:.2f} points{tie}"


@dataclass(frozen=True)
class AgainstFullFC:
    """A setting's training against that of the full FC layer, at the last check that both reached."""

    check: int
    setting: Accuracy
    full_fc: Accuracy
    gap: Difference

    @property
    def points(self) -> tuple[float, float]:
        """Return the ends of the interval in points."""
        return 100 * (self.gap.value - self.gap.half_width), 100 * (self.gap.value + self.gap.half_width)


def against_full_fc(result: Verdict, trained: Trained | None = None) -> AgainstFullFC | None:
    """Return how a setting's training compares with the full FC layer's; None without both, or where they test nothing.

    Args:
        trained: None: the chosen setting's.
    """
    trained = trained or result.trained
    full_fc = result.baseline
    if trained is None or full_fc is None:
        return None
    common = at_common_check(trained.checks, full_fc.checks, _noise_factor(result.model))
    if common is None:
        return None
    check, gap = common
    pair = trained.checks[check], full_fc.checks[check]
    return None if all(accuracy.untold for accuracy in pair) else AgainstFullFC(check, *pair, gap)


def trained_candidates(question: Question, result: Verdict, candidates: Sequence[Candidate]) -> list[tuple[Candidate, Trained]]:
    """Return the settings that were trained, with their measured steps, each with its trainings.

    Args:
        candidates: all settings whose steps ran.
    """
    by_steps = {question.steps_key(each.setting): each for each in candidates}
    trained = [(_setting_of(each), each.trained) for each in result.comparisons]
    pairs = [(setting, by_steps.get(question.steps_key(setting)), each) for setting, each in trained]
    return [
        (_with_setting(question, candidate, setting, result.model), each)
        for setting, candidate, each in pairs
        if candidate is not None
    ]


def _measured(question: Question, record: Record, correction: MemoryCorrection) -> Candidate:
    """Return a setting with its trial's speed and memory."""
    candidate = question.evaluate(question.spaces.at(record.indices))
    # Bare steps load no data: a training runs at the slower of them and the loader.
    rate = record.values[1]
    return with_measured(
        candidate,
        lambda: candidate.speed.with_steps(rate, STEPS_SOURCE),
        partial(_measured_memory, candidate, record, correction),
    )


def _measured_memory(candidate: Candidate, record: Record, correction: MemoryCorrection) -> MemoryPrediction:
    """Return the prediction's frame with the measured peak in place of the traced terms."""
    predicted = candidate.memory
    expected = process_bytes(predicted)
    # What a trial's process does not have stays as predicted: others' memory and the data loader's. The margin is no larger
    # than the prediction's own, since a measured peak is better known than a predicted one.
    kept = [term for term in predicted.terms if term.name in ("foreign", "data")]
    margin = min(correction.margin(expected), headroom(predicted))
    rule = f"rule: {len(correction.ran)} real peaks against their predictions"
    terms = (*_measured_terms(record, expected), *kept, MemoryTerm(name="headroom", bytes=margin, source=rule))
    return predicted.model_copy(update={"terms": terms})


def _measured_terms(record: Record, expected: Bytes) -> list[MemoryTerm]:
    """Return the measured peak: as one term, or, where the allocator tells what it holds, as its and the rest."""
    peak = record.notes["peak_bytes"]
    held = record.notes.get("reserved_bytes")
    source = f"measured: real train steps and an evaluation (predicted {format_bytes(expected)})"
    if held is None:
        return [MemoryTerm(name="process", bytes=peak, source=source)]
    return [
        MemoryTerm(name="context", bytes=peak - held, source="measured: device memory beside the allocator's"),
        MemoryTerm(name="allocator", bytes=held, source=source),
    ]
