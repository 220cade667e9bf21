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

from attfc_planner.tune.studies.worker import BEAT_SECONDS

Indices: TypeAlias = dict[str, int]
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
"""Outcomes after which a setting is run again: once, and always."""


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
        """Equal for equal settings."""
        return tuple(sorted(self.indices.items()))

    @property
    def counts(self) -> bool:
        """Whether the trial stands for its setting: it is neither a repetition or surplus, nor lost."""
        return self.state != "failed" and "dropped" not in self.notes


class Claim:
    """A trial that this process runs, and must end with one of `complete`, `prune` and `fail`."""

    def __init__(self, study: optuna.Study, trial: Trial, indices: Indices) -> None:
        self._study, self._trial = study, trial
        self.number, self.indices = trial.number, indices

    def note(self, **values: Any) -> None:
        """Facts about the trial; None is left out."""
        with _taken_for_dead():
            for key, value in values.items():
                if value is not None:
                    self._trial.set_user_attr(key, value)

    def constrain(self, values: Mapping[str, float]) -> None:
        """Numbers that are at most 0 where a constraint holds."""
        with _taken_for_dead():
            for name, value in values.items():
                self._trial.set_constraint(name, value)

    def report(self, value: float, step: int) -> bool:
        """Records an intermediate value; True where the study's pruner wants no more of this trial."""
        with _taken_for_dead():
            self._trial.report(value, step)
            return self._trial.should_prune()
        return True

    def complete(self, values: Sequence[float]) -> None:
        """The trial has its values."""
        self._end(TrialState.COMPLETE, values)

    def prune(self) -> None:
        """The trial was left out or stopped early."""
        self._end(TrialState.PRUNED, None)

    def fail(self, outcome: str, reason: str = "") -> None:
        """The trial has no result."""
        self.note(outcome=outcome, reason=reason)
        self._end(TrialState.FAIL, None)

    def _end(self, state: TrialState, values: Sequence[float] | None) -> None:
        with _taken_for_dead():
            self._study.tell(self._trial, values, state=state, skip_if_finished=True)

    @contextlib.contextmanager
    def beating(self) -> Iterator[None]:
        """Shows meanwhile that this worker lives; what escapes fails the trial, to be run again."""
        stop = threading.Event()
        thread = threading.Thread(target=self._beat, args=(stop,), daemon=True)
        thread.start()
        try:
            yield
        except BaseException as error:
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


def _taken_for_dead() -> contextlib.suppress:
    """This worker was silent for so long that others failed its trial; what it has to say comes too late."""
    return contextlib.suppress(optuna.exceptions.UpdateFinishedTrialError)


def record_of(trial: FrozenTrial) -> Record:
    """The trial with its setting, which is there from the moment it is enqueued."""
    indices = trial.system_attrs.get("fixed_params") or trial.params
    values = tuple(trial.values or ())
    return Record(trial.number, dict(indices), _STATES[trial.state], values, trial.user_attrs)
