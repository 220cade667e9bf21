"""Stage B: short trainings of the settings that real steps left over, with successive halving, beside a full FC layer.

All of them see the same identities, passes and held-out pairs (`attfc_planner.tune.scaling`). A training reports nine times;
after a ninth and a third of it Optuna's `SuccessiveHalvingPruner` lets the best third go on. Differences may
show late, so what is stopped is only ever compared with the others at the check that it reached.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from attfc_planner.search.space import Setting
from attfc_planner.tune.budget import Scale
from attfc_planner.tune.claim import CUT, Claim, Record
from attfc_planner.tune.question import Question, words
from attfc_planner.tune.scaling import NUM_CHECKS, full_fc_beside, shortened
from attfc_planner.tune.short_training import OnCheck, Sets, ShortTraining, Train
from attfc_planner.tune.study import SharedStudy
from attfc_planner.tune.ties import Accuracy, mean_accuracy
from attfc_planner.tune.watcher import Watcher
from attfc_train.data.source import open_dataset
from attfc_train.profile import TrainProfile

POLL_SECONDS = 1.0
HALVING = 3


@dataclass
class Trainings:
    """One worker's part in stage B.

    Args:
        study: of the settings. baseline: of the full FC layer, whose first trial also holds the scale for all workers.
        contenders: settings in the order in which they are tried.
        deadline: of `time.monotonic`.
    """

    question: Question
    study: SharedStudy
    baseline: SharedStudy
    train: Train
    contenders: list[Setting]
    deadline: float
    watcher: Watcher
    startup: float = 10.0
    """Seconds that a process takes before its first step: with less left nothing is started."""

    def run(self, scale: Scale) -> None:
        """Works until all trainings are done or the time is over; `scale` is what this worker proposes."""
        if not self.baseline.records():
            self.baseline.enqueue({}, "full FC layer", num_ids=scale.num_ids, epochs=scale.epochs)
        self._enqueue_missing(scale.num_settings)
        while self.deadline - time.monotonic() > self.startup:
            for study in (self.baseline, self.study):
                study.bury()
            claim, is_baseline = self._claim()
            if claim is not None:
                with claim.beating():
                    self._try(claim, is_baseline)
                self._show()
            elif self.study.is_running() or self.baseline.is_running():
                time.sleep(POLL_SECONDS)
            else:
                return

    def _enqueue_missing(self, num_settings: int) -> None:
        known = {record.key for record in self.study.records()}
        for setting in self.contenders[: max(0, num_settings - len(known))]:
            indices = self.question.space.indices(setting)
            if tuple(sorted(indices.items())) not in known:
                self.study.enqueue(indices, "left over by real steps")

    def _claim(self) -> tuple[Claim | None, bool]:
        """The first setting, then the full FC layer, then the others."""
        begun = any(record.state not in ("waiting", "failed") for record in self.study.records())
        order = (self.baseline, self.study) if begun else (self.study, self.baseline)
        for study in order:
            claim = study.claim()
            if claim is not None:
                return claim, study is self.baseline
        return None, False

    def _try(self, claim: Claim, is_baseline: bool) -> None:
        setting = self.contenders[0] if is_baseline else self.question.space.at(claim.indices)
        profile = short_profile(self.question, setting, recorded_scale(self.baseline))
        if is_baseline:
            profile = full_fc_beside(profile)
        name = "full FC layer" if is_baseline else words(setting)
        checks: dict[str, Sets] = {}
        claim.note(num_ids=profile.num_ids, steps=profile.total_steps, name=name)
        result = self.train(
            profile,
            self.question.gpu.kind,
            timeout=max(1.0, self.deadline - time.monotonic()),
            on_check=_reporting(claim, profile, checks, halving=not is_baseline),
        )
        self._record(claim, name, result, checks)

    def _record(self, claim: Claim, name: str, result: ShortTraining, checks: Mapping[str, Sets]) -> None:
        claim.note(
            outcome=result.outcome,
            reason=result.reason or None,
            images_per_second=result.images_per_second,
            peak_bytes=result.peak_bytes,
            wall_seconds=result.seconds,
        )
        reached = f"{max(map(int, checks), default=0)}/{NUM_CHECKS}"
        last = _last(checks)
        accuracy = f"{100 * last.value:.2f} ± {100 * last.half_width:.2f} %" if last else "no accuracy"
        if result.outcome == "finished" and last is not None:
            claim.complete((last.value,))
            self.watcher.say(f"training {name}: {accuracy}")
            return
        self.watcher.say(
            f"training {name}: {result.outcome} at {reached}, {accuracy}{f', {result.reason}' if result.reason else ''}"
        )
        if result.outcome == "out of time":
            claim.fail(CUT, "the time was over")
        elif result.outcome == "out of memory":
            claim.constrain({"memory": 1.0})
            claim.prune()
        elif result.outcome == "stopped":
            claim.prune()
        else:
            claim.fail("failed", result.reason)

    def _show(self) -> None:
        records = [*self.study.records(), *self.baseline.records()]
        counted = [record for record in records if "dropped" not in record.notes]
        done = [record for record in counted if record.state not in ("waiting", "running")]
        best = max((record.values[0] for record in self.study.records() if record.values), default=None)
        self.watcher.show("short trainings", len(done), len(counted), f"{best:.2%}" if best is not None else "none yet")


def recorded_scale(baseline: SharedStudy) -> Scale:
    """The scale that all workers use: that of the baseline's first trial, whoever enqueued it."""
    first = baseline.records()[0].notes
    return Scale(first["num_ids"], first["epochs"], 0)


def short_profile(question: Question, setting: Setting, scale: Scale) -> TrainProfile:
    """The profile of a short training of `setting`."""
    spec = question.split.training_part(scale.num_ids)
    num_images = open_dataset(spec).index.num_images
    short = shortened(setting.applied_to(question.base), scale.num_ids, num_images, scale.epochs)
    return short.model_copy(
        update={
            "name": f"tune-{short.name}",
            "data": short.data.model_copy(update={"path": spec}),
            "run": short.run.model_copy(update={"val": question.split.val}),
        }
    )


def _reporting(claim: Claim, profile: TrainProfile, checks: dict[str, Sets], halving: bool) -> OnCheck:
    """Notes every evaluation and asks the pruner, before the last."""

    def on_check(step: int, sets: Sets) -> bool:
        check = round(NUM_CHECKS * step / profile.total_steps)
        checks[str(check)] = sets
        claim.note(checks=dict(checks))
        if not halving:
            return False
        wants_no_more = claim.report(mean_accuracy(sets).value, check)
        return wants_no_more and check < NUM_CHECKS

    return on_check


def checks_of(record: Record) -> dict[int, Accuracy]:
    """Check -> accuracy, as a training's trial recorded them."""
    noted: Mapping[str, Any] = record.notes.get("checks", {})
    return {int(check): mean_accuracy((accuracy, pairs) for accuracy, pairs in sets) for check, sets in noted.items()}


def _last(checks: Mapping[str, Sets]) -> Accuracy | None:
    return mean_accuracy(checks[max(checks, key=int)]) if checks else None
