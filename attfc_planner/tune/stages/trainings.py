"""Stage B: short trainings of the settings that real steps left over, with successive halving, beside a full FC layer.

All of them see the same identities, passes and held-out pairs (`attfc_planner.tune.stages.scaling`). A training reports nine
times; after a third of it Optuna's `SuccessiveHalvingPruner` lets the best third go on. Not earlier: on real faces (`tiny`,
three trainings) the order after a ninth was that of the warm-up and not of the end. Differences may show later still, so what
is stopped is compared with the others at the check that it reached, and may come back in the finals.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from attfc_planner.knobs.space import Setting
from attfc_planner.tune.question import words
from attfc_planner.tune.stages.budget import Scale
from attfc_planner.tune.stages.training_trial import TrainingTrial, recorded_scale, short_profile
from attfc_planner.tune.studies.claim import Claim
from attfc_planner.tune.studies.study import SharedStudy
from attfc_planner.tune.verdict.trained import SEED

POLL_SECONDS = 1.0
HALVING = 3
FIRST_CUT = 3
"""Check after which the worst two thirds are stopped."""


@dataclass
class Trainings:
    """One worker's part in stage B.

    Args:
        study: of the settings. baseline: of the full FC layer, whose first trial also holds the scale for all workers.
        contenders: settings in the order in which they are tried.
    """

    trial: TrainingTrial
    study: SharedStudy
    baseline: SharedStudy
    contenders: list[Setting]
    startup: float = 10.0
    """Seconds that a process takes before its first step; with less left none is started."""

    def run(self, scale: Scale) -> None:
        """Work until all trainings are done or the time is over.

        Args:
            scale: what this worker proposes; it is used if no other worker was here before.
        """
        # The first trial of the baseline carries the scale. Should two workers enqueue one at the same moment, both read the
        # lower number from then on (`recorded_scale`), so all trainings are alike and can be compared.
        if not self.baseline.records():
            beside = self.trial.question.spaces.indices(self.contenders[0])
            self.baseline.enqueue({SEED: 0}, "full FC layer", num_ids=scale.num_ids, epochs=scale.epochs, beside=beside)
        self._enqueue_missing(scale.num_settings)
        while self.trial.deadline - time.monotonic() > self.startup:
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
        enqueued = {record.key for record in self.study.records()}
        wanted = [self.trial.question.spaces.indices(setting) for setting in self.contenders]
        missing = [indices for indices in wanted if tuple(sorted(indices.items())) not in enqueued]
        for indices in missing[: max(0, num_settings - len(enqueued))]:
            self.study.enqueue(indices, "left over by real steps")

    def _claim(self) -> tuple[Claim | None, bool]:
        """Claim the first setting, then the full FC layer, then the others; return whether it is the full FC layer."""
        # One setting and the full FC layer are what a comparison takes at least, should the time end early. The setting comes
        # first: without a full FC layer it still says something, the full FC layer alone does not.
        begun = any(record.state not in ("waiting", "failed") for record in self.study.records())
        order = (self.baseline, self.study) if begun else (self.study, self.baseline)
        for study in order:
            claim = study.claim()
            if claim is not None:
                return claim, study is self.baseline
        return None, False

    def _try(self, claim: Claim, is_baseline: bool) -> None:
        if is_baseline:
            self.trial.run_full_fc(claim, self.baseline)
            return
        setting = self.trial.question.spaces.at(claim.indices)
        profile = short_profile(self.trial.question, setting, recorded_scale(self.baseline))
        self.trial.run(claim, profile, words(setting), halving=True)

    def _show(self) -> None:
        records = [*self.study.records(), *self.baseline.records()]
        counted = [record for record in records if "dropped" not in record.notes]
        done = [record for record in counted if record.state not in ("waiting", "running")]
        best = max((record.values[0] for record in self.study.records() if record.values), default=None)
        self.trial.watcher.show("short trainings", len(done), len(counted), f"{best:.2%}" if best is not None else "none yet")
