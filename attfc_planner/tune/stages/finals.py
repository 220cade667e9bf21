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

from attfc_planner.accuracy.regression import MeasuredAccuracy
from attfc_planner.knobs.space import Setting
from attfc_planner.tune.question import Question, words
from attfc_planner.tune.stages.scaling import NUM_CHECKS
from attfc_planner.tune.stages.training_trial import TrainingTrial, recorded_scale, short_profile
from attfc_planner.tune.studies.claim import Claim, Indices, Record
from attfc_planner.tune.studies.study import SharedStudy
from attfc_planner.tune.verdict.trained import SEED, Trained, setting_of

POLL_SECONDS = 1.0
FINALISTS = 3
MOST_SEEDS = 5
"""Trainings of a finalist; more say little, and the rest of the time is the user's."""


def seeded_knobs(question: Question) -> dict[str, int]:
    """Of the finals' study; seed 0 is what successive halving trains with."""
    return question.knobs | {SEED: MOST_SEEDS}


@dataclass(frozen=True)
class Standing:
    """What is known at one moment."""

    pool: Sequence[Setting]
    """Settings that are known to run."""
    trained: Sequence[Trained]
    full_fc: Trained | None
    model: MeasuredAccuracy | None


def finalists(question: Question, standing: Standing) -> list[Setting]:
    """At most `FINALISTS` of the pool: in turn of what ended most accurately and of what the regression expects most."""
    pool, model = standing.pool, standing.model
    ended = [one for one in standing.trained if one.finished and one.setting in pool]
    ended.sort(key=lambda one: -one.checks[NUM_CHECKS].value)
    known = [one.setting for one in ended if one.setting is not None]
    expected: list[Setting] = []
    if model is not None:
        expected = sorted(pool, key=lambda one: (-model.expected(one.applied_to(question.base), 0.0)[0], one))
    pairs = itertools.zip_longest(known[:FINALISTS], expected[:FINALISTS])
    return list(dict.fromkeys(one for pair in pairs for one in pair if one is not None))[:FINALISTS]


@dataclass
class Finals:
    """One worker's part in stage C.

    Args:
        study: with a knob for the seed (`seeded_knobs`).
        halved: the study of stage B, which trained with seed 0.
        baseline: of the full FC layer, with a knob for the seed alone.
        standing: looks at all trials so far.
        needed_seconds: what a training is expected to take: with less left none is started.
    """

    trial: TrainingTrial
    study: SharedStudy
    halved: SharedStudy
    baseline: SharedStudy
    standing: Callable[[], Standing]
    needed_seconds: Callable[[], float]

    def run(self) -> None:
        """Works until every finalist has its seeds or the time does not do for another training."""
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
        """Runs what waits, if anything does."""
        for study in (self.baseline, self.study):
            claim = study.claim()
            if claim is not None:
                with claim.beating():
                    self._try(claim) if study is self.study else self.trial.run_full_fc(claim, self.baseline)
                return True
        return False

    def _propose(self) -> bool:
        question, standing = self.trial.question, self.standing()
        used = used_seeds(question, finalists(question, standing), self.halved.records(), self.study.records())
        of_full_fc = {record.indices[SEED] for record in self.baseline.records() if "dropped" not in record.notes}
        setting = min(used, key=lambda one: len(used[one]), default=None)
        fewest = len(used[setting]) if setting else 0
        if len(of_full_fc) < min(fewest, MOST_SEEDS) and not _is_broken(self.baseline.records()):
            self.baseline.enqueue(_next_seed(of_full_fc), "full FC layer, with another seed")
        elif setting is not None and len(used[setting]) < MOST_SEEDS:
            self.study.enqueue(question.space.indices(setting) | _next_seed(used[setting]), "a finalist, with another seed")
        else:
            return False
        return True

    def _try(self, claim: Claim) -> None:
        question, seed, standing = self.trial.question, claim.indices[SEED], self.standing()
        setting = setting_of(question, claim.indices)
        name = f"{words(setting)}, seed {seed}"
        if standing.model is not None and standing.full_fc is not None:
            run = next(run for run in standing.full_fc.runs if run.finished)
            variance = run.checks[NUM_CHECKS].log_odds_variance  # its pairs are everybody's
            accuracy, half_width = standing.model.expected(setting.applied_to(question.base), variance)
            name += f" ({100 * accuracy:.1f} ± {100 * half_width:.1f} % expected)"
        self.trial.run(claim, short_profile(question, setting, recorded_scale(self.baseline), seed), name, halving=False)

    def _show(self) -> None:
        counted = [record for record in self.study.records() if record.counts]
        done = [record for record in counted if record.state not in ("waiting", "running")]
        best = max((record.values[0] for record in counted if record.values), default=None)
        total = max(MOST_SEEDS * FINALISTS, len(counted))
        self.trial.watcher.show("finals", len(done), total, f"{best:.2%}" if best is not None else "none yet")


def used_seeds(
    question: Question, wanted: Iterable[Setting], halved: Iterable[Record], finals: Iterable[Record]
) -> dict[Setting, set[int]]:
    """Finalist -> its seeds, whatever became of them: lost trials are enqueued again by `SharedStudy.bury`, once or as often as
    they are interrupted."""
    used: dict[Setting, set[int]] = {setting: set() for setting in wanted}
    for record in (*halved, *finals):
        setting = setting_of(question, record.indices)
        if setting in used and "dropped" not in record.notes:
            used[setting].add(record.indices.get(SEED, 0))
    return used


def _is_broken(records: Sequence[Record]) -> bool:
    """Whether the full FC layer ran out of memory, or crashed with two seeds."""
    outcomes = [record.notes.get("outcome") for record in records]
    return "out of memory" in outcomes or outcomes.count("failed") >= 2


def _next_seed(used: set[int]) -> Indices:
    return {SEED: min(set(range(MOST_SEEDS)) - used)}
