"""Stage C: while time is left, the finalists are trained to the end again and again, with other seeds.

One training cannot tell a setting from its seed. The finalists are the most accurate settings so far and those of which the
regression over all trainings (`attfc_planner.measured_accuracy`) expects most, also where successive halving had stopped them
or nothing was trained yet; they are chosen anew after every training. Fewest seeds first.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from attfc_planner.measured_accuracy import MeasuredAccuracy
from attfc_planner.search.space import Setting
from attfc_planner.tune.budget import Scale
from attfc_planner.tune.claim import Claim, Indices, Record
from attfc_planner.tune.question import Question, words
from attfc_planner.tune.scaling import NUM_CHECKS
from attfc_planner.tune.study import SharedStudy
from attfc_planner.tune.trained import SEED, Trained, setting_of
from attfc_planner.tune.training_trial import TrainingTrial, short_profile

POLL_SECONDS = 1.0
FINALISTS = 3
MOST_SEEDS = 5
"""Trainings of a finalist; more say little, and the rest of the time is the user's."""
PAIRS = 6000
"""That held-out people make (`attfc_train.evaluate.drawn_pairs`): what an expected accuracy's interval is about."""


def seeded_knobs(question: Question) -> dict[str, int]:
    """Of the finals' study; seed 0 is what successive halving trains with."""
    return question.knobs | {SEED: MOST_SEEDS}


@dataclass(frozen=True)
class Standing:
    """What is known at one moment."""

    pool: Sequence[Setting]
    """Settings that are known to run."""
    trained: Sequence[Trained]
    model: MeasuredAccuracy | None


def finalists(question: Question, standing: Standing) -> list[Setting]:
    """At most `FINALISTS` of the pool: in turn of what ended most accurately and of what the regression expects most."""
    pool, model = standing.pool, standing.model
    ended = [one for one in standing.trained if one.finished and one.setting in pool]
    ended.sort(key=lambda one: -one.checks[NUM_CHECKS].value)
    known = [one.setting for one in ended if one.setting is not None]
    expected: list[Setting] = []
    if model is not None:
        expected = sorted(pool, key=lambda one: (-model.expected(one.applied_to(question.base), PAIRS)[0], one))
    pairs = itertools.zip_longest(known[:FINALISTS], expected[:FINALISTS])
    return list(dict.fromkeys(one for pair in pairs for one in pair if one is not None))[:FINALISTS]


@dataclass
class Finals:
    """One worker's part in stage C.

    Args:
        study: with a knob for the seed (`seeded_knobs`).
        halved: the study of stage B, which trained with seed 0.
        standing: looks at all trials so far.
        needed_seconds: what a training is expected to take: with less left none is started.
    """

    trial: TrainingTrial
    study: SharedStudy
    halved: SharedStudy
    scale: Scale
    standing: Callable[[], Standing]
    needed_seconds: float

    def run(self) -> None:
        """Works until every finalist has its seeds or the time does not do for another training."""
        while self.trial.deadline - time.monotonic() > self.needed_seconds:
            self.study.bury()
            claim = self.study.claim()
            if claim is not None:
                with claim.beating():
                    self._try(claim)
                self._show()
            elif not self._propose():
                if not self.study.is_running():
                    return
                time.sleep(POLL_SECONDS)

    def _propose(self) -> bool:
        question = self.trial.question
        taken = [record for record in self.study.records() if record.counts or record.notes.get("outcome") == "failed"]
        ended = {setting_of(question, record) for record in self.halved.records() if record.state == "complete"}
        following = next_training(question, finalists(question, self.standing()), taken, ended)
        if following is not None:
            self.study.enqueue(following, "a finalist, with another seed")
        return following is not None

    def _try(self, claim: Claim) -> None:
        question, seed = self.trial.question, claim.indices[SEED]
        setting = question.space.at({name: index for name, index in claim.indices.items() if name != SEED})
        model = self.standing().model
        name = f"{words(setting)}, seed {seed}"
        if model is not None:
            accuracy, half_width = model.expected(setting.applied_to(question.base), PAIRS)
            name += f" ({100 * accuracy:.1f} ± {100 * half_width:.1f} % expected)"
        self.trial.run(claim, short_profile(question, setting, self.scale, seed), name, halving=False)

    def _show(self) -> None:
        counted = [record for record in self.study.records() if record.counts]
        done = [record for record in counted if record.state not in ("waiting", "running")]
        best = max((record.values[0] for record in counted if record.values), default=None)
        total = MOST_SEEDS * FINALISTS
        self.trial.watcher.show("finals", len(done), total, f"{best:.2%}" if best is not None else "none yet")


def next_training(
    question: Question, wanted: Sequence[Setting], taken: Sequence[Record], first_seeds: set[Setting]
) -> Indices | None:
    """The finalist with the fewest seeds, as indices with the smallest free one; None where all have theirs.

    Args:
        taken: trials of the finals that ran, run or wait.
        first_seeds: settings whose seed 0 ran before the finals.
    """
    used = {setting: {0} if setting in first_seeds else set() for setting in wanted}
    for record in taken:
        setting = setting_of(question, record)
        if setting in used:
            used[setting].add(record.indices[SEED])
    open_ones = [setting for setting in wanted if len(used[setting]) < MOST_SEEDS]
    if not open_ones:
        return None
    setting = min(open_ones, key=lambda one: len(used[one]))
    seed = min(set(range(MOST_SEEDS)) - used[setting])
    return question.space.indices(setting) | {SEED: seed}
