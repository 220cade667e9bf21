"""Stage A: real train steps of promising settings, each in a process of its own, for memory and speed.

The plan's choice comes first, then its Pareto front, the choice's neighbours, and what TPE suggests from the results so far.
Every peak is compared with its prediction, and the other predictions are corrected by it
(`attfc_planner.tune.stages.correction`). What cannot fit by the corrected ones is recorded, and not run.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from attfc_planner.calibrate.real_steps import RealSteps
from attfc_planner.knobs.space import Setting
from attfc_planner.search.candidates import Candidate
from attfc_planner.search.constraints import constraints, indivisible, is_sound
from attfc_planner.tune.question import Question, beside_process, headroom, process_bytes, words
from attfc_planner.tune.stages.correction import MemoryCorrection, Observation
from attfc_planner.tune.stages.watcher import Watcher
from attfc_planner.tune.studies.claim import CUT, Claim, Indices, Record
from attfc_planner.tune.studies.study import SharedStudy
from attfc_train.errors import InfeasiblePlanError
from attfc_train.profile.profile import TrainProfile
from attfc_train.units import Bytes, format_bytes

TRIAL_SECONDS = 300.0
"""After so long the steps of one trial are killed."""
POLL_SECONDS = 0.5
HOPELESS = 3
"""So many trials failed and none ran: the rest would, too."""
EXCESS_OUT_OF_MEMORY = 0.1
"""The constraint's value where a trial ran out of memory: it is not known by how much."""


class RunSteps(Protocol):
    """`attfc_planner.calibrate.real_steps.run_real_steps`; a test may give another."""

    def __call__(self, profile: TrainProfile, kind: Literal["cuda", "cpu"], *, timeout: float) -> RealSteps:
        """Runs a few steps."""
        ...


@dataclass
class StepTrials:
    """One worker's part in stage A.

    Args:
        limit: settings to try, by all workers together.
        deadline: of `time.monotonic`; no trial goes on beyond it.
    """

    question: Question
    study: SharedStudy
    run_steps: RunSteps
    limit: int
    deadline: float
    watcher: Watcher
    seed: int = 0
    _first: list[Setting] = field(init=False)

    def __post_init__(self) -> None:
        self._first = first_settings(self.question, self.limit)

    def run(self) -> None:
        """Works until all trials are done, nothing is left to try, or the time is over.

        Raises:
            InfeasiblePlanError: nothing runs at all.
        """
        while self._seconds_left() > self._typical_seconds():
            self.study.bury()
            claim = self.study.claim(self.limit)
            if claim is not None:
                with claim.beating():
                    self._try(claim)
                self._show()
                self._check_hope()
            elif not self._propose():
                if not self.study.is_running():
                    return
                time.sleep(POLL_SECONDS)

    def correction(self) -> MemoryCorrection:
        """Learned from the trials of all workers."""
        return MemoryCorrection.learned(observations(self.study.records()))

    def _seconds_left(self) -> float:
        return self.deadline - time.monotonic()

    def _typical_seconds(self) -> float:
        seconds = [record.notes["wall_seconds"] for record in self.study.records() if "wall_seconds" in record.notes]
        return min(seconds, default=0.0)

    def _propose(self) -> bool:
        """Enqueues one more setting; False where there are enough, or no other is worth trying."""
        records = [record for record in self.study.records() if "dropped" not in record.notes]
        if len({record.key for record in records}) >= self.limit:
            return False
        tried, correction = {self._key(record.indices) for record in records}, self.correction()
        for setting in self._first:
            if self.question.steps_key(setting) not in tried:
                self.study.enqueue(self.question.space.indices(setting), "the plan's choice, its front and neighbours")
                return True
        found = self.study.suggest(self.seed + len(records), lambda indices: self._excess(indices, tried, correction))
        if found is None:
            found = self._next_of_front(tried, correction)
        if found is not None:
            self.study.enqueue(found, "TPE")
        return found is not None

    def _key(self, indices: Indices) -> Setting:
        return self.question.steps_key(self.question.space.at(indices))

    def _excess(self, indices: Indices, tried: set[Setting], correction: MemoryCorrection) -> float | None:
        """How far a suggestion is from what may be tried; None where it was."""
        setting = self.question.space.at(indices)
        if self._key(indices) in tried:
            return None
        if not setting.divides:
            return indivisible(setting)
        candidate = self.question.evaluate(setting)
        if not is_sound(candidate, self.question.limits):
            limits = constraints(candidate, self.question.limits)
            return max(value for name, value in limits.items() if name != "memory")
        budget = self.question.limits.budget_bytes
        if self._refusal(candidate, correction) is None:
            return 0.0
        return max(EXCESS_OUT_OF_MEMORY, (self._needed(candidate, correction) - budget) / budget)

    def _next_of_front(self, tried: set[Setting], correction: MemoryCorrection) -> Indices | None:
        """The first member of the plan's front that was not tried."""
        for candidate in self.question.plan.search.front:
            new = self.question.steps_key(candidate.setting) not in tried
            if new and self._refusal(candidate, correction) is None:
                return self.question.space.indices(candidate.setting)
        return None

    def _needed(self, candidate: Candidate, correction: MemoryCorrection) -> Bytes:
        memory = candidate.memory
        return correction.needed(process_bytes(memory), headroom(memory)) + beside_process(candidate)

    def _refusal(self, candidate: Candidate, correction: MemoryCorrection) -> str | None:
        """Why a setting cannot fit, by all that is known now."""
        predicted, budget = process_bytes(candidate.memory), self.question.limits.budget_bytes
        needed = self._needed(candidate, correction)
        if needed > budget:
            return f"needs {format_bytes(needed)} of {format_bytes(budget)}, corrected by {len(correction.ran)} real peaks"
        return correction.refusal(self.question.kind(candidate.setting), predicted)

    def _try(self, claim: Claim) -> None:
        setting = self.question.space.at(claim.indices)
        candidate = self.question.evaluate(setting)
        refusal = self._refusal(candidate, self.correction())
        claim.note(kind=self.question.kind(setting), predicted_bytes=process_bytes(candidate.memory))
        if refusal is not None:
            claim.note(outcome="not run", reason=refusal)
            claim.constrain({"memory": self._excess(claim.indices, set(), self.correction()) or EXCESS_OUT_OF_MEMORY})
            claim.prune()
            self.watcher.say(f"trial {claim.number}: {words(setting)}: not run, {refusal}")
            return
        begin = time.monotonic()
        limit = min(TRIAL_SECONDS, max(1.0, self._seconds_left()))
        profile = candidate.profile.resolve(candidate.profile.num_ids)
        real = self.run_steps(profile, self.question.gpu.kind, timeout=limit)
        claim.note(wall_seconds=time.monotonic() - begin)
        self._record(claim, candidate, real, is_cut=limit < TRIAL_SECONDS)

    def _record(self, claim: Claim, candidate: Candidate, real: RealSteps, is_cut: bool) -> None:
        where = f"trial {claim.number}: {words(candidate.setting)}"
        limits = constraints(candidate, self.question.limits)
        if real.outcome == "ran" and real.step_seconds is not None:
            claim.note(outcome="ran", **measured(real, candidate))
            budget = self.question.limits.budget_bytes
            peak = peak_bytes(real, candidate)
            claim.constrain(limits | {"memory": (peak + beside_process(candidate) - budget) / budget})
            rate = candidate.setting.batch_size / real.step_seconds
            claim.complete((candidate.accuracy_points, rate))
            predicted = process_bytes(candidate.memory)
            self.watcher.say(f"{where}: {rate:,.1f} images/s, {format_bytes(peak)} (predicted {format_bytes(predicted)})")
        elif real.outcome == "out of memory":
            claim.note(outcome=real.outcome, reason=real.reason)
            claim.constrain(limits | {"memory": EXCESS_OUT_OF_MEMORY})
            claim.prune()
            self.watcher.say(f"{where}: out of memory")
        elif real.outcome == "out of time" and is_cut:
            claim.fail(CUT, "the time for real steps was over")
        elif real.outcome == "out of time":
            claim.note(outcome=real.outcome, reason=real.reason)
            claim.constrain(limits | {"time": 1.0})
            claim.prune()
            self.watcher.say(f"{where}: {real.reason}")
        else:
            claim.fail("failed", real.reason)
            self.watcher.say(f"{where}: failed, {real.reason}")

    def _show(self) -> None:
        records = self.study.records()
        done = [record for record in records if record.state in ("complete", "pruned") and record.counts]
        rates = [record.values[1] for record in done if record.state == "complete"]
        self.watcher.show("real steps", len(done), self.limit, f"{max(rates):,.1f} images/s" if rates else "none yet")

    def _check_hope(self) -> None:
        records = [record for record in self.study.records() if record.state in ("complete", "pruned", "failed")]
        failed = [record for record in records if record.notes.get("outcome") in ("failed", "out of memory")]
        if len(failed) >= HOPELESS and not any(record.state == "complete" for record in records):
            last = failed[-1]
            got = f"{len(failed)} of {len(records)}; {words(self.question.space.at(last.indices))}: {last.notes.get('reason')}"
            raise InfeasiblePlanError(
                "some of the first real steps must run", f"failures in {got}", "Free the device, or see attfc-plan explain."
            )


def first_settings(question: Question, limit: int) -> list[Setting]:
    """What is tried before TPE has anything to go by: at most two thirds of the trials.

    The plan's choice, its Pareto front evenly spaced, and the choice's neighbours in the space.
    """
    plan = question.plan
    front = [candidate.setting for candidate in plan.search.front]
    third = max(1, limit // 3)
    spaced = [front[index * (len(front) - 1) // max(1, third - 1)] for index in range(min(third, len(front)))]
    near = list(neighbours(question, plan.chosen.setting))[:third]
    unique: dict[Setting, Setting] = {}
    for setting in (plan.chosen.setting, *spaced, *near):
        unique.setdefault(question.steps_key(setting), setting)
    return list(unique.values())[:limit]


def neighbours(question: Question, setting: Setting) -> Iterator[Setting]:
    """Settings one step away in one knob that respect every constraint but memory."""
    space = question.space
    here = space.indices(setting)
    for name, values in space.values.items():
        for index in (here[name] - 1, here[name] + 1):
            if 0 <= index < len(values):
                near = space.at({**here, name: index})
                if near.divides and is_sound(question.evaluate(near), question.limits):
                    yield near


def observations(records: list[Record]) -> Iterator[Observation]:
    """What trials of stage A say about predictions."""
    for record in records:
        outcome, notes = record.notes.get("outcome"), record.notes
        if outcome in ("ran", "out of memory"):
            yield Observation(notes["kind"], notes["predicted_bytes"], notes.get("peak_bytes") if outcome == "ran" else None)


def measured(real: RealSteps, candidate: Candidate) -> Mapping[str, Any]:
    """What is kept of real steps."""
    batch, ordered = candidate.setting.batch_size, sorted(real.seconds)
    return {
        "peak_bytes": peak_bytes(real, candidate),
        "reserved_bytes": real.reserved_bytes,
        "context_bytes": real.context_bytes,
        "images_per_second": batch / (real.step_seconds or 1.0),
        "slowest": batch / ordered[-1],
        "fastest": batch / ordered[0],
    }


def peak_bytes(real: RealSteps, candidate: Candidate) -> Bytes:
    """Of the process; where the driver does not tell its context, with the predicted one."""
    if real.process_bytes is not None:
        return real.process_bytes
    memory = candidate.memory
    return (real.reserved_bytes or 0) + memory.total_bytes - memory.without("context")
