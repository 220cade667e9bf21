"""The search: a screening of the whole space, then an Optuna study that starts from its Pareto front.

The screening (`attfc_planner.search.screening`) finds the front. The study is the record (`StudyRecord`) and the second look:
the front's settings are enqueued as its first trials, multivariate TPE adds others, and all constraints are set on every trial
(`Trial.set_constraint`); whatever it finds joins the front. The same seed gives the same trials.
"""

from __future__ import annotations

import contextlib
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from attfc_planner.knobs.space import SearchSpace, Setting
from attfc_planner.search.candidates import Candidate, Evaluate
from attfc_planner.search.constraints import Limits, constraints, indivisible, is_feasible
from attfc_planner.search.plainest import NEGLIGIBLE_POINTS, NEGLIGIBLE_SPEED, plainest
from attfc_planner.search.screening import cells, screen
from attfc_train.document import Value
from attfc_train.errors import StorageError
from attfc_train.files import write_atomically


class StudyRecord:
    """A study that was made in memory, where a trial costs 5 ms instead of 40."""

    def __init__(self, study: optuna.Study) -> None:
        self.study = study

    def save(self, path: Path) -> None:
        """Writes the study as an Optuna journal (`optuna.storages.JournalStorage`); a former one at `path` is replaced.

        Raises:
            StorageError: `path` cannot be written.
        """
        with _temporary_folder() as folder, _quiet():
            journal = folder / "journal"
            storage = JournalStorage(JournalFileBackend(str(journal)))
            copy = optuna.create_study(storage=storage, directions=self.study.directions, study_name=self.study.study_name)
            copy.set_metric_names(self.study.metric_names or [])
            copy.add_trials(self.study.trials)
            write_atomically(path, lambda file: file.write(journal.read_bytes()))


@dataclass(frozen=True)
class SearchResult:
    """The Pareto front of hours and accuracy, fastest first, where it was looked for, and the study's record."""

    starts: tuple[Candidate, ...]
    """See `attfc_planner.search.screening.cells`."""
    front: tuple[Candidate, ...]
    record: StudyRecord | None
    """None where nothing is feasible."""

    @property
    def num_trials(self) -> int:
        """Trials of the study."""
        return len(self.record.study.trials) if self.record else 0


def search(
    space: SearchSpace, evaluate: Evaluate, limits: Limits, *, batch_size: int, num_trials: int, seed: int
) -> SearchResult:
    """Screens `space` and runs a study of at least `num_trials` trials; no trials where nothing is feasible.

    Args:
        evaluate: judges one setting, in milliseconds.
        batch_size: the recipe's, which is preferred where it costs nothing.
        num_trials: trials of the study; the Pareto front is tried in any case.
    """
    starts = tuple(cells(space, evaluate, limits))
    front = plain_front(space, evaluate, limits, starts, batch_size)
    if not front:
        return SearchResult(starts, (), None)
    tried, record = _run_study(space, evaluate, limits, front, max(num_trials, len(front)), seed)
    added = [one for one in tried if is_feasible(one, limits) and not any(_as_good(other, one) for other in front)]
    return SearchResult(starts, tuple(pareto_front([*front, *added])), record)


def plain_front(
    space: SearchSpace, evaluate: Evaluate, limits: Limits, starts: Sequence[Candidate], batch_size: int
) -> list[Candidate]:
    """The Pareto front, but for what a plainer setting may cost (`attfc_planner.search.plainest`); fastest first.

    Args:
        starts, batch_size: see `SearchResult` and `search`.
    """
    front = screen(space, evaluate, limits, starts)
    return pareto_front([plainest(one, starts, limits, batch_size) for one in front])


def _as_good(one: Candidate, other: Candidate) -> bool:
    fast = (1 - NEGLIGIBLE_SPEED) * other.images_per_second
    return one.accuracy_points >= other.accuracy_points - NEGLIGIBLE_POINTS and one.images_per_second >= fast


def pareto_front(candidates: list[Candidate]) -> list[Candidate]:
    """Those that no other beats in accuracy and speed at once, fastest first; of equals, the smaller setting."""
    ordered = sorted(candidates, key=lambda one: (-one.images_per_second, -one.accuracy_points, one.setting))
    front: list[Candidate] = []
    for candidate in ordered:
        if not front or candidate.accuracy_points > front[-1].accuracy_points:
            front.append(candidate)
    return front


def _run_study(
    space: SearchSpace, evaluate: Evaluate, limits: Limits, front: list[Candidate], num_trials: int, seed: int
) -> tuple[list[Candidate], StudyRecord]:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    tried: list[Candidate] = []

    def objective(trial: optuna.Trial) -> tuple[float, float]:
        setting = _suggested(trial, space)
        if not setting.divides:
            trial.set_constraint("divisibility", indivisible(setting))
            raise optuna.TrialPruned
        candidate = evaluate(setting)
        _record(trial, candidate, limits)
        tried.append(candidate)
        return candidate.accuracy_points, candidate.hours

    with _quiet():
        sampler = optuna.samplers.TPESampler(multivariate=True, seed=seed)
        study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler, study_name="attfc-plan")
        study.set_metric_names(["accuracy points", "hours"])
        for candidate in front:
            study.enqueue_trial(_parameters(space, candidate.setting))
        study.optimize(objective, n_trials=num_trials)
    return tried, StudyRecord(study)


def _suggested(trial: optuna.Trial, space: SearchSpace) -> Setting:
    """Suggest ordered knobs as indices, others as they are, and what has one value not at all."""
    chosen: dict[str, Value | None] = {}
    for knob in space.knobs:
        if len(knob.values) == 1:
            chosen[knob.name] = knob.values[0]
        elif knob.ordered:
            chosen[knob.name] = knob.values[trial.suggest_int(knob.name, 0, len(knob.values) - 1)]
        else:
            chosen[knob.name] = trial.suggest_categorical(knob.name, knob.values)
    return Setting.of(chosen)


def _parameters(space: SearchSpace, setting: Setting) -> dict[str, object]:
    """Return the inverse of `_suggested`."""
    return {
        knob.name: knob.values.index(setting[knob.name]) if knob.ordered else setting[knob.name]
        for knob in space.knobs
        if len(knob.values) > 1
    }


def _record(trial: optuna.Trial, candidate: Candidate, limits: Limits) -> None:
    """Constraints, and what a reader of the journal wants to see beside the objectives."""
    for name, value in constraints(candidate, limits).items():
        trial.set_constraint(name, value)
    trial.set_user_attr("setting", candidate.setting.document())
    trial.set_user_attr("memory_bytes", candidate.memory_bytes)
    trial.set_user_attr("images_per_second", candidate.images_per_second)


@contextlib.contextmanager
def _temporary_folder() -> Iterator[Path]:
    try:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)
    except OSError as error:
        raise StorageError("the folder for temporary files must be writable", f"'{error}'", "Set TMPDIR.") from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without Optuna's notes on what is experimental."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield
