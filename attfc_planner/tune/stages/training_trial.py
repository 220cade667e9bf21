"""One short training as a trial of a study: its profile, its checks, and how it ended."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from attfc_planner.knobs.space import Setting
from attfc_planner.tune.question import Question
from attfc_planner.tune.stages.budget import Scale
from attfc_planner.tune.stages.scaling import NUM_CHECKS, full_fc_beside, shortened
from attfc_planner.tune.stages.short_training import OnCheck, Sets, ShortTraining, Train
from attfc_planner.tune.stages.watcher import Watcher
from attfc_planner.tune.studies.claim import CUT, Claim
from attfc_planner.tune.studies.study import SharedStudy
from attfc_planner.tune.verdict.ties import Accuracy, mean_accuracy
from attfc_planner.tune.verdict.trained import SEED
from attfc_train.data.source import open_dataset
from attfc_train.profile.profile import TrainProfile


@dataclass(frozen=True)
class TrainingTrial:
    """What runs claimed trainings.

    Args:
        deadline: of `time.monotonic`.
    """

    question: Question
    train: Train
    deadline: float
    watcher: Watcher

    def run(self, claim: Claim, profile: TrainProfile, name: str, halving: bool) -> None:
        """Train `profile`, and end the claim.

        Args:
            name: of the training, for the watcher.
            halving: whether the study's pruner is asked before the last check.
        """
        checks: dict[str, Sets] = {}
        claim.note(num_ids=profile.num_ids, steps=profile.total_steps, name=name)
        result = self.train(
            profile,
            self.question.gpu.kind,
            timeout=max(1.0, self.deadline - time.monotonic()),
            on_check=_reporting(claim, profile, checks, halving),
        )
        self._record(claim, name, result, checks)

    def run_full_fc(self, claim: Claim, baseline: SharedStudy) -> None:
        """Train the full FC layer with the claim's seed, beside the setting that its first trial names."""
        setting = recorded_beside(self.question, baseline)
        seed = claim.indices[SEED]
        assert setting is not None, "the claim is one of its trials"
        profile = short_profile(self.question, setting, recorded_scale(baseline), seed)
        self.run(claim, full_fc_beside(profile), f"full FC layer{f', seed {seed}' if seed else ''}", halving=False)

    def _record(self, claim: Claim, name: str, result: ShortTraining, checks: Mapping[str, Sets]) -> None:
        """Note what came of the training, end its claim and say it."""
        claim.note(
            outcome=result.outcome,
            reason=result.reason or None,
            images_per_second=result.images_per_second,
            peak_bytes=result.peak_bytes,
            wall_seconds=result.seconds,
        )
        last = _last(checks)
        accuracy = f"{100 * last.value:.2f} ± {100 * last.half_width:.2f} %" if last else "no accuracy"
        if result.outcome == "finished" and last is not None:
            claim.complete((last.value,))
            self.watcher.say(f"training {name}: {accuracy}")
            return
        reached = f"{max(map(int, checks), default=0)}/{NUM_CHECKS}"
        reason = f", {result.reason}" if result.reason else ""
        self.watcher.say(f"training {name}: {result.outcome} at {reached}, {accuracy}{reason}")
        _end_unfinished(claim, result)


def _end_unfinished(claim: Claim, result: ShortTraining) -> None:
    if result.outcome == "out of time":
        claim.fail(CUT, "the time was over")  # no fault of the setting: it is trained again
    elif result.outcome == "out of memory":
        claim.constrain({"memory": 1.0})
        claim.prune()
    elif result.outcome == "stopped":
        claim.prune()
    else:
        claim.fail("failed", result.reason)


def recorded_scale(baseline: SharedStudy) -> Scale:
    """Return the scale that all workers use: that of the baseline's first trial, whoever enqueued it."""
    first = baseline.records()[0].notes
    return Scale(first["num_ids"], first["epochs"], 0)


def recorded_beside(question: Question, baseline: SharedStudy) -> Setting | None:
    """Return the setting whose batch size the full FC layer is trained with; None before there is a trial."""
    records = baseline.records()
    return question.spaces.at(records[0].notes["beside"]) if records else None


def short_profile(question: Question, setting: Setting, scale: Scale, seed: int = 0) -> TrainProfile:
    """Return the profile of a short training of `setting`."""
    spec = question.split.training_part(scale.num_ids)
    num_images = open_dataset(spec).index.num_images
    short = shortened(setting.applied_to(question.base), scale.num_ids, num_images, scale.epochs)
    return short.model_copy(
        update={
            "name": f"tune-{short.name}",
            "data": short.data.model_copy(update={"path": spec}),
            "run": short.run.model_copy(update={"val": question.split.val, "seed": seed}),
        }
    )


def _reporting(claim: Claim, profile: TrainProfile, checks: dict[str, Sets], halving: bool) -> OnCheck:
    """Return what notes every evaluation in `checks` and the claim, and asks the pruner before the last."""

    def on_check(step: int, sets: Sets) -> bool:
        check = round(NUM_CHECKS * step / profile.total_steps)
        checks[str(check)] = sets
        claim.note(checks=dict(checks))
        if not halving:
            return False
        # The pruner has a rung at the first cut and one at three times that, which is the end: a training that got there is
        # finished, whatever the pruner says. It is told all the same, since it compares what reached a rung.
        is_to_stop = claim.report(mean_accuracy(sets).value, check)
        return is_to_stop and check < NUM_CHECKS

    return on_check


def _last(checks: Mapping[str, Sets]) -> Accuracy | None:
    return mean_accuracy(checks[max(checks, key=int)]) if checks else None
