"""Stages A, B and C of a question, in a journal, with trials that cost nothing."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal

from attfc_planner.commands.tune import Studies
from attfc_planner.tune.question import Question
from attfc_planner.tune.stages.budget import Scale
from attfc_planner.tune.stages.finals import MOST_SEEDS, Finals, seeded_knobs
from attfc_planner.tune.stages.scaling import NUM_CHECKS
from attfc_planner.tune.stages.short_training import OnCheck, ShortTraining
from attfc_planner.tune.stages.training_trial import TrainingTrial, recorded_beside
from attfc_planner.tune.stages.trainings import FIRST_CUT, HALVING, Trainings
from attfc_planner.tune.studies.storage import Store
from attfc_planner.tune.studies.study import SharedStudy
from attfc_planner.tune.verdict.result import Verdict, contenders, measured_candidates, verdict
from attfc_planner.tune.verdict.trained import SEED, Standing, training_records
from attfc_planner.tune.verdict.tuned_profile import tuned_profile
from attfc_train.heads.attfc.settings import AttFCSettings
from attfc_train.profile.profile import TrainProfile
from tests.planner.tune.stages.test_steps import took, trials
from tests.planner.tune.studies.fake_worker import Silent

Accurate = Callable[[TrainProfile], float]
SCALE = Scale(30, 3.0, 6)
PAIRS = 2000


def fake_training(accurate: Accurate, trained: list[TrainProfile]) -> object:
    def train(profile: TrainProfile, kind: Literal["cuda", "cpu"], *, timeout: float, on_check: OnCheck) -> ShortTraining:
        trained.append(profile)
        final = accurate(profile)
        for check in range(1, NUM_CHECKS + 1):
            step = profile.total_steps * check // NUM_CHECKS
            if on_check(step, ((max(final - (NUM_CHECKS - check) / 50, 0.0), PAIRS),)):
                return ShortTraining("stopped", seconds=1.0)
        return ShortTraining("finished", seconds=9.0, images_per_second=800.0, peak_bytes=10**9)

    return train


class Tuning:
    """Stage A and B of one question, in a journal."""

    def __init__(self, asked: Question, store: Store) -> None:
        self.asked = asked
        self.steps, _ = trials(asked, store, took, limit=12)
        self.study = SharedStudy(store, "trainings", asked.knobs, ("accuracy",), HALVING, FIRST_CUT)
        self.finals = SharedStudy(store, "finals", seeded_knobs(asked), ("accuracy",))
        self.baseline = SharedStudy(store, "baseline", {SEED: MOST_SEEDS}, ("accuracy",))
        self.trained: list[TrainProfile] = []
        self.watcher = Silent()
        self.steps.run()
        self.measured = measured_candidates(asked, self.steps.study.records())
        self.contenders = contenders(asked, self.measured)

    def train(self, accurate: Accurate, scale: Scale = SCALE) -> None:
        Trainings(self.trial(accurate), self.study, self.baseline, self.contenders, 0.0).run(scale)

    def trial(self, accurate: Accurate, seconds: float = 100.0) -> TrainingTrial:
        run = fake_training(accurate, self.trained)
        return TrainingTrial(self.asked, run, time.monotonic() + seconds, self.watcher)  # type: ignore[arg-type]

    def standing(self) -> Standing:
        return Studies(self.steps.study, self.study, self.finals, self.baseline).standing(self.asked)

    def verdict(self) -> Verdict:
        result = verdict(self.asked, self.steps.study.records(), self.standing())
        assert result is not None
        return result

    def profile(self) -> TrainProfile:
        standing = self.standing()
        beside = recorded_beside(self.asked, self.baseline)
        trainings = training_records(standing.trained, standing.full_fc, beside, self.asked.base.head.kind)
        return tuned_profile(self.asked, self.verdict(), self.measured, trainings, 20, SCALE.num_ids)

    def play_finals(self, accurate: Accurate, needed: float = 0.0, seconds: float = 100.0) -> None:
        self.run_finals(self.trial(accurate, seconds), needed)

    def run_finals(self, trial: TrainingTrial, needed: float = 0.0) -> None:
        Finals(trial, self.finals, self.study, self.baseline, self.standing, lambda: needed).run()


def is_full_fc(profile: TrainProfile) -> bool:
    return not isinstance(profile.head, AttFCSettings)


def by_queue(best: float, others: float) -> Accurate:
    """The queue length 5 is best; the full FC layer has 90 %."""

    def accurate(profile: TrainProfile) -> float:
        head = profile.head
        if not isinstance(head, AttFCSettings):
            return 0.9
        return best if head.queue_length == 5.0 else others

    return accurate
