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
"""The steps of one trial are killed after so long."""
POLL_SECONDS = 0.5
HOPELESS = 3
"""Failed trials, if none ran, after which the rest are taken to fail, too."""
EXCESS_OUT_OF_MEMORY = 0.1
"""The constraint's value where a trial ran out of memory: it is not known by how much."""


class RunSteps(Protocol):
    """`attfc_planner.calibrate.real_steps.run_real_steps`; a test may give another."""

    def __call__(self, profile: TrainProfile, kind: Literal["cuda", "cpu"], *, timeout: float) -> RealSteps:
        """Run a few steps."""
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
        """Work until all trials are done, nothing is left to try, or the time is over.

        Raises:
            InfeasiblePlanError: nothing runs at all.
        """
        # One turn does one thing: run what waits; else make one more trial, for whoever claims it first; else wait, because
        # what runs elsewhere may fail, and is then enqueued again by `bury`.
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
        """Return what the trials of all workers teach."""
        return MemoryCorrection.learned(observations(self.study.records()))

    def _seconds_left(self) -> float:
        return self.deadline - time.monotonic()

    def _typical_seconds(self) -> float:
        """Return what the quickest trial took; with less time left none is begun."""
        seconds = [record.notes["wall_seconds"] for record in self.study.records() if "wall_seconds" in record.notes]
        return min(seconds, default=0.0)

    def _propose(self) -> bool:
        """Enqueue one more setting; return False if there are enough, or no other is worth trying."""
        records = [record for record in self.study.records() if "dropped" not in record.notes]
        if len({record.key for record in records}) >= self.limit:
            return False
        tried = {self._key(record.indices) for record in records}
        for setting in self._first:
            if self.question.steps_key(setting) not in tried:
                self.study.enqueue(self.question.spaces.indices(setting), "the plan's choice, its front and neighbours")
                return True
        correction = self.correction()
        # The seed moves on with the trials: TPE with the same seed and no new result would suggest the same again.
        suggested = self.study.suggest(
            self.seed + len(records), self.question.spaces.drawn, lambda indices: self._excess(indices, tried, correction)
        )
        if suggested is None:
            suggested = self._next_of_front(tried, correction)
        if suggested is not None:
            self.study.enqueue(suggested, "TPE")
        return suggested is not None

    def _key(self, indices: Indices) -> Setting:
        return self.question.steps_key(self.question.spaces.at(indices))

    def _excess(self, indices: Indices, tried: set[Setting], correction: MemoryCorrection) -> float | None:
        """Return how far a suggestion is from what may be tried, at most 0 if it may; None if it was tried."""
        # The cheapest question first. A setting that misses one constraint is not asked about the next.
        setting = self.question.spaces.at(indices)
        if self._key(indices) in tried:
            return None
        if not setting.divides:
            return indivisible(setting)
        candidate = self.question.evaluate(setting)
        if not is_sound(candidate, self.question.limits):
            limits = constraints(candidate, self.question.limits)
            return max(value for name, value in limits.items() if name != "memory")
        if self._refusal(candidate, correction) is None:
            return 0.0
        # (needed - budget) / budget is below 0 where the refusal comes from what ran out of memory, not from prediction.
        budget = self.question.limits.budget_bytes
        return max(EXCESS_OUT_OF_MEMORY, (self._needed(candidate, correction) - budget) / budget)

    def _next_of_front(self, tried: set[Setting], correction: MemoryCorrection) -> Indices | None:
        """Return the first member of the plan's front that was not tried and may fit."""
        for candidate in self.question.plan.search.front:
            is_new = self.question.steps_key(candidate.setting) not in tried
            if is_new and self._refusal(candidate, correction) is None:
                return self.question.spaces.indices(candidate.setting)
        return None

    def _needed(self, candidate: Candidate, correction: MemoryCorrection) -> Bytes:
        """Return the bytes of a training: the process, corrected, and what a trial's process does not have."""
        memory = candidate.memory
        return correction.needed(process_bytes(memory), headroom(memory)) + beside_process(candidate)

    def _refusal(self, candidate: Candidate, correction: MemoryCorrection) -> str | None:
        """Return why a setting cannot fit, by all that is known now, or None if it may."""
        needed = self._needed(candidate, correction)
        budget = self.question.limits.budget_bytes
        if needed > budget:
            return f"needs {format_bytes(needed)} of {format_bytes(budget)}, corrected by {len(correction.ran)} real peaks"
        return correction.refusal(self.question.kind(candidate.setting), process_bytes(candidate.memory))

    def _try(self, claim: Claim) -> None:
        setting = self.question.spaces.at(claim.indices)
        candidate = self.question.evaluate(setting)
        claim.note(kind=self.question.kind(setting), predicted_bytes=process_bytes(candidate.memory))
        # Asked when it was proposed, and again now: other workers' trials may have taught more since.
        refusal = self._refusal(candidate, self.correction())
        if refusal is not None:
            self._leave_out(claim, setting, refusal)
            return
        begin = time.monotonic()
        limit = min(TRIAL_SECONDS, max(1.0, self._seconds_left()))
        profile = candidate.profile.resolve(candidate.profile.num_ids)
        real = self.run_steps(profile, self.question.gpu.kind, timeout=limit)
        claim.note(wall_seconds=time.monotonic() - begin)
        self._record(claim, candidate, real, is_cut=limit < TRIAL_SECONDS)

    def _leave_out(self, claim: Claim, setting: Setting, refusal: str) -> None:
        claim.note(outcome="not run", reason=refusal)
        claim.constrain({"memory": self._excess(claim.indices, set(), self.correction()) or EXCESS_OUT_OF_MEMORY})
        claim.prune()
        self.watcher.say(f"trial {claim.number}: {words(setting)}: not run, {refusal}")

    def _record(self, claim: Claim, candidate: Candidate, real: RealSteps, is_cut: bool) -> None:
        """End the claim with what came of its steps.

        Args:
            is_cut: whether the stage's deadline, and not `TRIAL_SECONDS`, limited the trial.
        """
        where = f"trial {claim.number}: {words(candidate.setting)}"
        if real.outcome == "ran" and real.step_seconds is not None:
            self._complete(claim, candidate, real, candidate.setting.batch_size / real.step_seconds)
        elif real.outcome == "out of memory":
            self._prune(claim, candidate, real, memory=EXCESS_OUT_OF_MEMORY)
            self.watcher.say(f"{where}: out of memory")
        elif real.outcome == "out of time" and is_cut:
            claim.fail(CUT, "the time for real steps was over")  # no fault of the setting: it is run again
        elif real.outcome == "out of time":
            self._prune(claim, candidate, real, time=1.0)
            self.watcher.say(f"{where}: {real.reason}")
        else:
            claim.fail("failed", real.reason)
            self.watcher.say(f"{where}: failed, {real.reason}")

    def _complete(self, claim: Claim, candidate: Candidate, real: RealSteps, rate: float) -> None:
        """End the claim with measured memory and speed.

        Args:
            rate: images/s.
        """
        claim.note(outcome="ran", **measured(real, candidate))
        peak = peak_bytes(real, candidate)
        budget = self.question.limits.budget_bytes
        limits = constraints(candidate, self.question.limits)
        claim.constrain(limits | {"memory": (peak + beside_process(candidate) - budget) / budget})
        claim.complete((candidate.accuracy_points, rate))
        predicted = process_bytes(candidate.memory)
        where = f"trial {claim.number}: {words(candidate.setting)}"
        self.watcher.say(f"{where}: {rate:,.1f} images/s, {format_bytes(peak)} (predicted {format_bytes(predicted)})")

    def _prune(self, claim: Claim, candidate: Candidate, real: RealSteps, **misses: float) -> None:
        """End the claim of a setting that misses a constraint, which TPE learns."""
        claim.note(outcome=real.outcome, reason=real.reason)
        claim.constrain(constraints(candidate, self.question.limits) | misses)
        claim.prune()

    def _show(self) -> None:
        records = self.study.records()
        done = [record for record in records if record.state in ("complete", "pruned") and record.counts]
        rates = [record.values[1] for record in done if record.state == "complete"]
        self.watcher.show("real steps", len(done), self.limit, f"{max(rates):,.1f} images/s" if rates else "none yet")

    def _check_hope(self) -> None:
        """Raise InfeasiblePlanError if the first trials failed and none ran."""
        records = [record for record in self.study.records() if record.state in ("complete", "pruned", "failed")]
        failed = [record for record in records if record.notes.get("outcome") in ("failed", "out of memory")]
        if len(failed) >= HOPELESS and not any(record.state == "complete" for record in records):
            last = failed[-1]
            got = f"{len(failed)} of {len(records)}; {words(self.question.spaces.at(last.indices))}: {last.notes.get('reason')}"
            raise InfeasiblePlanError(
                "some of the first real steps must run", f"failures in {got}", "Free the device, or see attfc-plan explain."
            )


def first_settings(question: Question, limit: int) -> list[Setting]:
    """Return what is tried before TPE has anything to go by: at most two thirds of the trials.

    The plan's choice, that of every other kind of head, the Pareto front evenly spaced, and the choice's neighbours.
    """
    chosen = question.plan.chosen.setting
    front = [candidate.setting for candidate in question.plan.search.front]
    third = max(1, limit // 3)
    # The i-th of n members is at i (length - 1) / (n - 1): both ends of the front are among them.
    spaced = [front[index * (len(front) - 1) // max(1, third - 1)] for index in range(min(third, len(front)))]
    near = list(neighbours(question, chosen))[:third]
    unique: dict[Setting, Setting] = {}
    for setting in (chosen, *question.other_heads, *spaced, *near):
        unique.setdefault(question.steps_key(setting), setting)
    return list(unique.values())[:limit]


def neighbours(question: Question, setting: Setting) -> Iterator[Setting]:
    """Yield the settings one step away in one knob that respect every constraint but memory."""
    space = question.spaces.of(setting)
    here = space.indices(setting)
    for name, values in space.values.items():
        for index in (here[name] - 1, here[name] + 1):
            if 0 <= index < len(values):
                near = space.at({**here, name: index})
                if near.divides and is_sound(question.evaluate(near), question.limits):
                    yield near


def observations(records: list[Record]) -> Iterator[Observation]:
    """Yield what trials of stage A say about predictions."""
    for record in records:
        notes = record.notes
        outcome = notes.get("outcome")
        if outcome in ("ran", "out of memory"):
            yield Observation(notes["kind"], notes["predicted_bytes"], notes.get("peak_bytes") if outcome == "ran" else None)


def measured(real: RealSteps, candidate: Candidate) -> Mapping[str, Any]:
    """Return the notes that a trial keeps of real steps."""
    batch_size = candidate.setting.batch_size
    return {
        "peak_bytes": peak_bytes(real, candidate),
        "reserved_bytes": real.reserved_bytes,
        "context_bytes": real.context_bytes,
        "images_per_second": batch_size / (real.step_seconds or 1.0),
        "slowest": batch_size / max(real.seconds),
        "fastest": batch_size / min(real.seconds),
    }


def peak_bytes(real: RealSteps, candidate: Candidate) -> Bytes:
    """Return the peak of the process, with the predicted context where the driver does not tell the real one."""
    if real.process_bytes is not None:
        return real.process_bytes
    memory = candidate.memory
    return (real.reserved_bytes or 0) + memory.total_bytes - memory.without("context")
