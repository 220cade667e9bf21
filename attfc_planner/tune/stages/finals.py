"""Stage C: while time is left, the finalists are trained to the end again and again, with other seeds.

One training cannot tell a setting from its seed. The finalists are the most accurate settings so far and those of which the
regression over all trainings (`attfc_planner.accuracy.regression`) expects most, also where successive halving had stopped them
or nothing was trained yet; they are chosen anew after every training. The full FC layer, which they are all compared with, is
trained with further seeds too. Fewest seeds first.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from attfc_planner.knobs.space import Setting
from attfc_planner.tune.question import Question, words
from attfc_planner.tune.stages.scaling import NUM_CHECKS
from attfc_planner.tune.stages.training_trial import TrainingTrial, recorded_scale, short_profile
from attfc_planner.tune.studies.claim import Claim, Indices, Record
from attfc_planner.tune.studies.study import SharedStudy
from attfc_planner.tune.verdict.trained import SEED, Standing, setting_of

POLL_SECONDS = 1.0
FINALISTS = 3
MOST_SEEDS = 5
"""Trainings of a finalist; more say little, and the rest of the time is the user's."""


def seeded_knobs(question: Question) -> dict[str, int]:
    """Return the knobs of the finals' study: those of the others and the seed, which is 0 in successive halving."""
    return question.knobs | {SEED: MOST_SEEDS}


def finalists(question: Question, standing: Standing) -> list[Setting]:
    """Return at most `FINALISTS` of the pool: in turn what ended most accurately and what the regression expects most."""
    # Each list alone would go wrong: what ended best may owe it to its seed, and what is expected most may be an error of the
    # regression where nothing was trained. A finalist of either kind is trained, and both lists are better afterwards.
    model = standing.model
    ended = [each for each in standing.trained if each.finished and each.setting in standing.pool]
    ended.sort(key=lambda each: -each.checks[NUM_CHECKS].value)
    most_accurate = [each.setting for each in ended]
    most_expected: list[Setting] = []
    if model is not None:
        order = {each: -model.expected(each.applied_to(question.base), 0.0)[0] for each in standing.pool}
        most_expected = sorted(standing.pool, key=lambda each: (order[each], each))
    in_turn = itertools.chain.from_iterable(itertools.zip_longest(most_accurate[:FINALISTS], most_expected[:FINALISTS]))
    return list(dict.fromkeys(setting for setting in in_turn if setting is not None))[:FINALISTS]


@dataclass
class Finals:
    """One worker's part in stage C.

    Args:
        study: with a knob for the seed (`seeded_knobs`).
        halved: the study of stage B, which trained with seed 0.
        baseline: of the full FC layer, with a knob for the seed alone.
        standing: looks at all trials so far.
        needed_seconds: tells what a training is expected to take; with less left none is started.
    """

    trial: TrainingTrial
    study: SharedStudy
    halved: SharedStudy
    baseline: SharedStudy
    standing: Callable[[], Standing]
    needed_seconds: Callable[[], float]

    def run(self) -> None:
        """Work until every finalist has its seeds, or too little time is left for another training."""
        # One training at a time, and the finalists are chosen anew after each: unlike rounds of seeds for fixed finalists, the
        # next training goes to what is in doubt by all that is known, and the stage may end after any of them.
        while self.trial.deadline - time.monotonic() > self.needed_seconds():
            for study in (self.baseline, self.study):
                study.bury()
            if self._work():
                self._show()
            elif not self._propose():
                if not (self.study.is_running() or self.baseline.is_running()):
                    return
                time.sleep(POLL_SECONDS)

    def _work(self) -> bool:
        """Run what waits; return False if nothing does."""
        for study in (self.baseline, self.study):
            claim = study.claim()
            if claim is not None:
                with claim.beating():
                    if study is self.study:
                        self._try(claim)
                    else:
                        self.trial.run_full_fc(claim, self.baseline)
                return True
        return False

    def _propose(self) -> bool:
        """Enqueue the next seed of whoever has fewest; return False if all have theirs."""
        # Two workers may propose the same seed at the same moment: the study drops the second (`SharedStudy.claim`).
        question = self.trial.question
        used = used_seeds(question, finalists(question, self.standing()), self.halved.records(), self.study.records())
        used_by_full_fc = {record.indices[SEED] for record in self.baseline.records() if "dropped" not in record.notes}
        setting = min(used, key=lambda each: len(used[each]), default=None)
        fewest = len(used[setting]) if setting else 0
        # The full FC layer's turn comes when every finalist has more seeds: its variance is in every difference to it.
        if len(used_by_full_fc) < min(fewest, MOST_SEEDS) and not _is_broken(self.baseline.records()):
            self.baseline.enqueue(_next_seed(used_by_full_fc), "full FC layer, with another seed")
        elif setting is not None and len(used[setting]) < MOST_SEEDS:
            self.study.enqueue(question.spaces.indices(setting) | _next_seed(used[setting]), "a finalist, with another seed")
        else:
            return False
        return True

    def _try(self, claim: Claim) -> None:
        question = self.trial.question
        seed = claim.indices[SEED]
        setting = setting_of(question, claim.indices)
        name = f"{words(setting)}, seed {seed}{_expectation(question, self.standing(), setting)}"
        profile = short_profile(question, setting, recorded_scale(self.baseline), seed)
        self.trial.run(claim, profile, name, halving=False)

    def _show(self) -> None:
        counted = [record for record in self.study.records() if record.counts]
        done = [record for record in counted if record.state not in ("waiting", "running")]
        best = max((record.values[0] for record in counted if record.values), default=None)
        total = max(MOST_SEEDS * FINALISTS, len(counted))
        self.trial.watcher.show("finals", len(done), total, f"{best:.2%}" if best is not None else "none yet")


def used_seeds(
    question: Question, wanted: Iterable[Setting], halved: Iterable[Record], finals: Iterable[Record]
) -> dict[Setting, set[int]]:
    """Return finalist -> its seeds, whatever became of them.

    A lost trial counts as well: `SharedStudy.bury` enqueues it again, and it must not be proposed beside.
    """
    used: dict[Setting, set[int]] = {setting: set() for setting in wanted}
    for record in (*halved, *finals):
        setting = setting_of(question, record.indices)
        if setting in used and "dropped" not in record.notes:
            used[setting].add(record.indices.get(SEED, 0))
    return used


def _expectation(question: Question, standing: Standing, setting: Setting) -> str:
    """Return the accuracy that the regression expects of one more training, in brackets; nothing without a regression."""
    if standing.model is None or standing.full_fc is None:
        return ""
    # The binomial variance hardly depends on the setting, and all are verified on the same pairs: the full FC layer's will do.
    finished = next(run for run in standing.full_fc.runs if run.finished)
    variance = finished.checks[NUM_CHECKS].log_odds_variance
    accuracy, half_width = standing.model.expected(setting.applied_to(question.base), variance)
    return f" ({100 * accuracy:.1f} ± {100 * half_width:.1f} % expected)"


def _is_broken(records: Sequence[Record]) -> bool:
    """Return whether the full FC layer ran out of memory, or crashed with two seeds."""
    outcomes = [record.notes.get("outcome") for record in records]
    return "out of memory" in outcomes or outcomes.count("failed") >= 2


def _next_seed(used: set[int]) -> Indices:
    return {SEED: min(set(range(MOST_SEEDS)) - used)}
