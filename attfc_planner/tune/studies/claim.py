"""One trial of a shared study: as plain data, and as the claim of the process that runs it."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState

from attfc_planner.tune.studies.notes import check_indices, check_values, checked_notes, is_number
from attfc_planner.tune.studies.worker import BEAT_SECONDS

Indices: TypeAlias = dict[str, int]
"""Knob -> index of its value: a setting as a study holds it."""
State: TypeAlias = Literal["waiting", "running", "complete", "pruned", "failed"]
_STATES: dict[TrialState, State] = {
    TrialState.WAITING: "waiting",
    TrialState.RUNNING: "running",
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}
DIED = "its worker died"
CUT = "interrupted"
"""Outcomes after which a setting is run again: once after the first, always after the second."""


@dataclass(frozen=True)
class Record:
    """One trial as plain data."""

    number: int
    indices: Indices
    state: State
    values: tuple[float, ...]
    notes: Mapping[str, Any]

    @property
    def key(self) -> tuple[tuple[str, int], ...]:
        """Return what is equal for equal settings, and hashable."""
        return tuple(sorted(self.indices.items()))

    @property
    def counts(self) -> bool:
        """Return whether the trial stands for its setting: not a repetition, not surplus, not lost."""
        return self.state != "failed" and "dropped" not in self.notes


class Claim:
    """A trial that this process runs, and must end with one of `complete`, `prune` and `fail`."""

    def __init__(self, study: optuna.Study, trial: Trial, indices: Indices) -> None:
        self.number = trial.number
        self.indices = indices
        self._study = study
        self._trial = trial

    def note(self, **values: Any) -> None:
        """Record facts about the trial; a fact that is None is left out."""
        with _too_late_is_ignored():
            for key, value in values.items():
                if value is not None:
                    self._trial.set_user_attr(key, value)

    def constrain(self, values: Mapping[str, float]) -> None:
        """Record constraints, each a number that is at most 0 where it holds."""
        with _too_late_is_ignored():
            for name, value in values.items():
                self._trial.set_constraint(name, value)

    def report(self, value: float, step: int) -> bool:
        """Record an intermediate value; return whether the trial is to be stopped."""
        with _too_late_is_ignored():
            self._trial.report(value, step)
            return self._trial.should_prune()
        return True  # others failed the trial: what it would still learn is lost

    def complete(self, values: Sequence[float]) -> None:
        """End the trial with its values."""
        self._end(TrialState.COMPLETE, values)

    def prune(self) -> None:
        """End a trial that was left out or stopped early."""
        self._end(TrialState.PRUNED, None)

    def fail(self, outcome: str, reason: str = "") -> None:
        """End a trial that has no result."""
        self.note(outcome=outcome, reason=reason)  # before the end: a trial that has ended takes no notes
        self._end(TrialState.FAIL, None)

    def _end(self, state: TrialState, values: Sequence[float] | None) -> None:
        with _too_late_is_ignored():
            self._study.tell(self._trial, values, state=state, skip_if_finished=True)

    @contextlib.contextmanager
    def beating(self) -> Iterator[None]:
        """Show meanwhile that this worker lives; fail the trial, to be run again, if an exception escapes."""
        stop = threading.Event()
        thread = threading.Thread(target=self._beat, args=(stop,), daemon=True)
        thread.start()
        try:
            yield
        except BaseException as error:  # a signal as well: an interrupted setting must not be lost
            with contextlib.suppress(Exception):  # the storage may be what failed
                self.fail(CUT, type(error).__name__)
            raise
        finally:
            stop.set()
            thread.join()

    def _beat(self, stop: threading.Event) -> None:
        while not stop.wait(BEAT_SECONDS):
            with contextlib.suppress(Exception):  # an unreachable storage is the main thread's to report
                self._trial.set_user_attr("beat", time.time())


def _too_late_is_ignored() -> contextlib.suppress:
    """Return a context that ignores calls about a trial that has ended.

    A worker that was silent for too long is taken for dead: others fail its trial and enqueue the setting again. What the
    worker then still has to say comes too late, and the repetition counts.
    """
    return contextlib.suppress(optuna.exceptions.UpdateFinishedTrialError)


def record_of(trial: FrozenTrial, knobs: Mapping[str, int], num_values: int) -> Record:
    """Return a trial as plain data.

    Args:
        knobs: of its study, name -> number of values.
        num_values: objectives of its study.

    Raises:
        ValueError: it is not as attfc writes trials.
    """
    # An enqueued trial has its setting in `fixed_params` from the first moment, its parameters only once it is claimed.
    indices = dict(trial.system_attrs.get("fixed_params") or trial.params)
    values = tuple(trial.values or ())
    check_indices(indices, knobs)
    check_values(values, num_values)
    _check_reports(trial)
    return Record(trial.number, indices, _STATES[trial.state], values, checked_notes(trial.user_attrs))


def _check_reports(trial: FrozenTrial) -> None:
    """Refuse what Optuna's pruner and sampler would take for numbers."""
    reported = {f"at check {step}": value for step, value in trial.intermediate_values.items()}
    rungs = {key: value for key, value in trial.system_attrs.items() if key.startswith("completed_rung")}
    for name, value in (reported | rungs | trial.constraints).items():
        if not is_number(value):
            raise ValueError(f"the value {value!r:.60} {name}")
