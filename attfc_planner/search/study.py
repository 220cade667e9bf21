"""The search: a fast screening of the whole space, then an Optuna study that starts from its Pareto front.

Speed and accuracy prior of every setting are computed once; memory, which costs more, only along the border of what fits. The
study is the record (`StudyRecord`) and the sampler: the front's settings are enqueued as its first trials, multivariate TPE
adds others, and all constraints are set on every trial (`Trial.set_constraint`). The same seed gives the same trials.
"""

from __future__ import annotations

import contextlib
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from attfc_planner.search.candidates import Candidate, Evaluate
from attfc_planner.search.constraints import Limits, constraints, is_feasible, is_sound, memory_excess_mib
from attfc_planner.search.space import SearchSpace, Setting
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
            copy.add_trials(self.study.trials)
            write_atomically(path, lambda file: file.write(journal.read_bytes()))


@dataclass(frozen=True)
class SearchResult:
    """All settings that respect every constraint, the Pareto front among them, and how many trials the study has."""

    feasible: tuple[Candidate, ...]
    front: tuple[Candidate, ...]
    record: StudyRecord | None
    """None where nothing is feasible."""

    @property
    def num_trials(self) -> int:
        """Trials of the study."""
        return len(self.record.study.trials) if self.record else 0


def search(space: SearchSpace, evaluate: Evaluate, limits: Limits, *, num_trials: int, seed: int) -> SearchResult:
    """Screens `space` and runs a study of at least `num_trials` trials; no trials where nothing is feasible.

    Args:
        evaluate: judges one setting, in milliseconds.
        num_trials: trials of the study; the Pareto front is tried in any case.
    """
    fit = fitting(space, lambda one: is_sound(evaluate(one), limits), evaluate, limits)
    feasible = {candidate.setting: candidate for candidate in fit}
    front = pareto_front(list(feasible.values()))
    if not front:
        return SearchResult((), (), None)
    tried, record = _run_study(space, evaluate, limits, front, max(num_trials, len(front)), seed)
    feasible |= {one.setting: one for one in tried if is_feasible(one, limits)}
    return SearchResult(tuple(feasible.values()), tuple(front), record)


def fitting(space: SearchSpace, wanted: Callable[[Setting], bool], evaluate: Evaluate, limits: Limits) -> list[Candidate]:
    """Every wanted setting that fits the memory budget.

    Memory only grows with the batch size and with the DCC size, so for given references and checkpointing the largest batch
    size that fits grows as the DCC shrinks: the border is walked once, from the misfits, which are cheap to recognise.
    """
    groups: dict[tuple[int, bool], dict[float, list[Setting]]] = {}
    for setting in filter(wanted, space):
        shares = groups.setdefault((setting.num_references, setting.gradient_checkpointing), {})
        shares.setdefault(setting.dcc_share, []).append(setting)
    found = []
    for shares in groups.values():
        sizes = sorted({setting.batch_size for settings in shares.values() for setting in settings})
        largest, *smaller = sorted(shares, reverse=True)

        def fits(share: float, index: int, shares: dict[float, list[Setting]] = shares, sizes: list[int] = sizes) -> bool:
            return memory_excess_mib(evaluate(replace(shares[share][0], batch_size=sizes[index])), limits) <= 0

        fit = len(sizes)  # so many of the smallest sizes fit
        while fit and not fits(largest, fit - 1):
            fit -= 1
        found += [evaluate(setting) for setting in shares[largest] if setting.batch_size in sizes[:fit]]
        for share in smaller:
            while fit < len(sizes) and fits(share, fit):
                fit += 1
            found += [evaluate(setting) for setting in shares[share] if setting.batch_size in sizes[:fit]]
    return found


def pareto_front(candidates: list[Candidate]) -> list[Candidate]:
    """Those that no other beats in accuracy and speed at once; of equals, the smaller setting."""
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
        indices = {name: trial.suggest_int(name, 0, len(values) - 1) for name, values in space.knobs.items()}
        candidate = evaluate(space.at(indices))
        for name, value in constraints(candidate, limits).items():
            trial.set_constraint(name, value)
        tried.append(candidate)
        return candidate.accuracy_points, candidate.images_per_second

    with _quiet():
        sampler = optuna.samplers.TPESampler(multivariate=True, seed=seed)
        study = optuna.create_study(directions=["maximize", "maximize"], sampler=sampler, study_name="attfc-plan")
        for candidate in front:
            study.enqueue_trial(space.indices(candidate.setting))
        study.optimize(objective, n_trials=num_trials)
    return tried, StudyRecord(study)


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
