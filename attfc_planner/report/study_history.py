"""The history of an Optuna study: its trials in order, and how much every knob mattered."""

from __future__ import annotations

import errno
import math
import warnings
from dataclasses import dataclass
from pathlib import Path

import optuna
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from attfc_train.errors import StorageError
from attfc_train.units import MIB

MAX_BYTES = 256 * MIB
"""Largest journal that is read: it is read as a whole."""
LEAST_TRIALS = 4
"""An importance compares the better trials with all of them: with fewer there is nothing to compare."""


@dataclass(frozen=True, slots=True)
class Trial:
    """A finished trial."""

    number: int
    value: float
    feasible: bool
    """Whether every constraint holds."""


@dataclass(frozen=True, slots=True)
class Objective:
    """An objective of a study, with its value in every finished trial."""

    study: str
    name: str
    maximised: bool
    trials: tuple[Trial, ...]
    """In order."""
    importances: dict[str, float]
    """Knob -> share, largest first, in [0, 1]; empty where there are too few trials (see `LEAST_TRIALS`)."""
    not_finished: int
    """Trials without a finite value: pruned, failed, running, or infinite."""

    def best(self) -> list[float]:
        """Return the best feasible value up to each trial; NaN before the first feasible one."""
        better = max if self.maximised else min
        best = math.nan
        best_so_far = []
        for trial in self.trials:
            if trial.feasible:
                best = trial.value if math.isnan(best) else better(best, trial.value)
            best_so_far.append(best)
        return best_so_far


def read_objectives(path: Path) -> list[Objective]:
    """Return every objective of every study in an Optuna journal.

    Raises:
        StorageError: no such file, larger than `MAX_BYTES`, or no journal.
    """
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise OSError(errno.EINVAL, "a folder, device or pipe")
    except OSError as error:
        raise StorageError(f"'{path}' must be a readable study", str(error.strerror), "Check the path.") from error
    if size > MAX_BYTES:
        raise StorageError(f"'{path}' must have at most {MAX_BYTES // MIB} MiB", f"{size // MIB} MiB", "Check the path.")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Optuna's notes on what is experimental, and on which end of a value is better
        try:
            storage = JournalStorage(JournalFileBackend(str(path)))
            studies = [optuna.load_study(study_name=name, storage=storage) for name in optuna.get_all_study_names(storage)]
            objectives = [objective for study in studies for objective in _objectives(study)]
        except Exception as error:  # whatever Optuna trips over
            reason = f"{type(error).__name__}: {error}"[:120]
            raise _no_journal(path, reason) from error
    if not objectives:
        raise _no_journal(path, "no study in it")
    return objectives


def _no_journal(path: Path, reason: str) -> StorageError:
    return StorageError(f"'{path}' must be an Optuna journal", reason, "Give the study that attfc-plan wrote.")


def _objectives(study: optuna.Study) -> list[Objective]:
    names = study.metric_names or [f"objective {number}" for number, _ in enumerate(study.directions, 1)]
    finished = [_finished(study, index) for index in range(len(study.directions))]
    return [
        Objective(
            study=study.study_name,
            name=name,
            maximised=direction == StudyDirection.MAXIMIZE,
            trials=tuple(Trial(trial.number, trial.values[index], _is_feasible(trial)) for trial in finished[index]),
            importances=_importances(study, index, direction),
            not_finished=len(study.trials) - len(finished[index]),
        )
        for index, (name, direction) in enumerate(zip(names, study.directions, strict=True))
    ]


def _finished(study: optuna.Study, index: int) -> list[FrozenTrial]:
    """Return the trials that have a finite value in an objective."""
    return [trial for trial in study.trials if trial.values is not None and math.isfinite(trial.values[index])]


def _is_feasible(trial: FrozenTrial) -> bool:
    return all(value <= 0 for value in trial.constraints.values())


def _importances(study: optuna.Study, index: int, direction: StudyDirection) -> dict[str, float]:
    """Return knob -> importance: PED-ANOVA (Watanabe et al. 2023, arXiv 2304.10255), by what the better trials share."""
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    # Parameters that every trial has: those of one kind of head say nothing of the others.
    names = set.intersection(*(set(trial.params) for trial in complete)) if complete else set()
    varied = [name for name in sorted(names) if len({trial.params.get(name) for trial in complete}) > 1]
    if len(complete) < LEAST_TRIALS or not varied:
        return {}
    sign = -1.0 if direction == StudyDirection.MAXIMIZE else 1.0  # the evaluator looks for low values

    def target(trial: FrozenTrial) -> float:
        return sign * float(trial.values[index])

    importances = get_param_importances(study, evaluator=PedAnovaImportanceEvaluator(), params=varied, target=target)
    return {} if any(math.isnan(value) for value in importances.values()) else dict(importances)
