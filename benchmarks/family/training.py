"""One run of an arm, recorded once: as `benchmarks.heads.training` does it."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace

from attfc_train.profile.profile import TrainProfile
from benchmarks.family.base import base_profile
from benchmarks.family.experiments import Arm
from benchmarks.family.workshop import Workshop
from benchmarks.heads.records import Line
from benchmarks.heads.training import run_once
from benchmarks.heads.variants import settings_digest


@dataclass(frozen=True, slots=True)
class Run:
    """An arm with one seed."""

    arm: Arm
    seed: int

    def key(self, workshop: Workshop) -> Line:
        """Return what tells the run from all others, wherever it is done."""
        return {
            "kind": "run",
            "data": workshop.data.name,
            "sets": list(self.arm.sets),
            "prepared": self.arm.prepared,
            "steps": self._steps(workshop),
            "seed": self.seed,
            "base": settings_digest(self._profile(workshop, ())),
        }

    def done(self, workshop: Workshop, options: argparse.Namespace) -> bool:
        """Do the run if it is not on record; return whether it is there now."""
        try:
            prepared = self.arm.prepare(workshop, self.seed) if self.arm.prepare else ()
        except BlockingIOError:
            return False
        profile = self._profile(workshop, (*self.arm.sets, *prepared))
        data = replace(workshop.data, path=profile.data.path or "")
        return run_once(self.key(workshop), profile, data, options.output, options.work, masked=True)

    def _steps(self, workshop: Workshop) -> int:
        return round(self.arm.share * workshop.data.steps)

    def _profile(self, workshop: Workshop, sets: tuple[str, ...]) -> TrainProfile:
        return base_profile(workshop.data, self._steps(workshop), self.seed, sets)
