"""The search: a screening of the whole space, then an Optuna study that starts from its Pareto front.

The screening (`attfc_planner.search.screening`) gives the front. The study is the record (`StudyRecord`) and the second look:
the front's settings are its first trials, multivariate TPE adds others, and all constraints are set on every trial
(`Trial.set_constraint`); feasible trials that the front does not match join it. The same seed gives the same trials.
"""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from attfc_planner.knobs.space import HEAD, SearchSpace, Setting
from attfc_planner.knobs.spaces import Spaces
from attfc_planner.search.candidates import Candidate, Evaluate
from attfc_planner.search.constraints import Limits, constraints, indivisible, is_feasible
from attfc_planner.search.plainest import NEGLIGIBLE_POINTS, NEGLIGIBLE_SPEED, plainest
from attfc_planner.search.screening import cells, screen
from attfc_train.document import Value
from attfc_train.errors import StorageError
from attfc_train.files import write_atomically
from attfc_train.scratch import scratch


class StudyRecord:
    """A study in memory, where a trial costs 5 ms; in a journal it would cost 40."""

    def __init__(self, study: optuna.Study) -> None:
        self.study = study

    def save(self, path: Path) -> None:
        """Write the study as an Optuna journal (`optuna.storages.JournalStorage`); a former one at `path` is replaced.

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
    """The Pareto front of hours and accuracy, with what it was made from and the study's record."""

    starts: tuple[tuple[Candidate, ...], ...]
    """Of every space, see `attfc_planner.search.screening.cells`."""
    front: tuple[Candidate, ...]
    """Fastest first."""
    record: StudyRecord | None
    """None where nothing is feasible, and where spaces were only screened."""

    @property
    def num_trials(self) -> int:
        """Number of trials of the study."""
        return len(self.record.study.trials) if self.record else 0


def search(spaces: Spaces, evaluate: Evaluate, limits: Limits, *, batch_size: int, num_trials: int, seed: int) -> SearchResult:
    """Screen all spaces and run a study of at least `num_trials` trials; no trials where nothing is feasible.

    Args:
        evaluate: judges one setting, in milliseconds.
        batch_size: the recipe's, which is preferred where it costs nothing.
        num_trials: trials of the study; the Pareto front is tried in any case.
    """
    result = screened(spaces, evaluate, limits, batch_size)
    front = list(result.front)
    if not front:
        return result
    tried, record = _run_study(spaces, evaluate, limits, front, max(num_trials, len(front)), seed)
    feasible = [candidate for candidate in tried if is_feasible(candidate, limits)]
    added = [candidate for candidate in feasible if not any(_is_as_good(member, candidate) for member in front)]
    return SearchResult(result.starts, tuple(pareto_front([*front, *added])), record)


def screened(spaces: Spaces, evaluate: Evaluate, limits: Limits, batch_size: int) -> SearchResult:
    """Screen all spaces, and run no study; the arguments are those of `search`."""
    starts = tuple(tuple(cells(space, evaluate, limits)) for space in spaces)
    return SearchResult(starts, tuple(common_front(plain_fronts(spaces, evaluate, limits, starts, batch_size))), None)


def plain_fronts(
    spaces: Spaces, evaluate: Evaluate, limits: Limits, starts: Sequence[Sequence[Candidate]], batch_size: int
) -> list[list[Candidate]]:
    """Return the Pareto front of every space, fastest first, with each member made as plain as next to nothing allows.

    Args:
        starts, batch_size: see `SearchResult` and `search`.
    """
    pairs = zip(spaces, starts, strict=True)
    return [plain_front(space, evaluate, limits, own_starts, batch_size) for space, own_starts in pairs]


def common_front(fronts: Sequence[Sequence[Candidate]]) -> list[Candidate]:
    """Return the Pareto front of several spaces from that of each: nothing that its own space beats is on it."""
    return pareto_front([member for front in fronts for member in front])


def plain_front(
    space: SearchSpace, evaluate: Evaluate, limits: Limits, starts: Sequence[Candidate], batch_size: int
) -> list[Candidate]:
    """Return one space's part of `plain_fronts`."""
    front = screen(space, evaluate, limits, starts)
    plain = [plainest(member, starts, limits, batch_size) for member in front]
    # One that is no more accurate than the faster member before it, as that was found, would be slower for nothing.
    least = [-math.inf, *(member.accuracy_points for member in front)]
    kept = zip(front, plain, least, strict=False)
    return pareto_front([made if made.accuracy_points > points else member for member, made, points in kept])


def _is_as_good(member: Candidate, candidate: Candidate) -> bool:
    """Return whether a member of the front is as good as a candidate, but for what a plainer setting may cost."""
    least_speed = (1 - NEGLIGIBLE_SPEED) * candidate.images_per_second
    least_points = candidate.accuracy_points - NEGLIGIBLE_POINTS
    return member.accuracy_points >= least_points and member.images_per_second >= least_speed


def pareto_front(candidates: list[Candidate]) -> list[Candidate]:
    """Return the candidates that no other beats in accuracy and speed at once, fastest first; of equals the smaller setting."""
    fastest_first = sorted(candidates, key=lambda each: (-each.images_per_second, -each.accuracy_points, each.setting))
    front: list[Candidate] = []
    # All before a candidate are as fast or faster, and the last member is the most accurate of them.
    for candidate in fastest_first:
        if not front or candidate.accuracy_points > front[-1].accuracy_points:
            front.append(candidate)
    return front


def _run_study(
    spaces: Spaces, evaluate: Evaluate, limits: Limits, front: list[Candidate], num_trials: int, seed: int
) -> tuple[list[Candidate], StudyRecord]:
    """Return the candidates that were tried, and the study."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    tried: list[Candidate] = []

    def objective(trial: optuna.Trial) -> tuple[float, float]:
        setting = _suggested(trial, spaces)
        if not setting.divides:
            trial.set_constraint("divisibility", indivisible(setting))
            raise optuna.TrialPruned
        candidate = evaluate(setting)
        _record(trial, candidate, limits)
        tried.append(candidate)
        return candidate.accuracy_points, candidate.hours

    with _quiet():
        sampler = optuna.samplers.TPESampler(multivariate=True, group=not spaces.is_one, seed=seed)
        study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler, study_name="attfc-plan")
        study.set_metric_names(["accuracy points", _time_name(front)])
        for candidate in front:
            study.enqueue_trial(_parameters(spaces, candidate.setting))
        study.optimize(objective, n_trials=num_trials)
    return tried, StudyRecord(study)


def _time_name(front: list[Candidate]) -> str:
    """Return the name of `Candidate.hours`, which are those of a million images where their number is not known."""
    is_known = all(candidate.profile.data.num_images is not None for candidate in front)
    return "hours" if is_known else "hours a million images"


def _suggested(trial: optuna.Trial, spaces: Spaces) -> Setting:
    """Suggest the kind of head where there is a choice, and then its knobs.

    Ordered knobs are suggested as indices, so that TPE sees neighbours, and others as they are; one value is not suggested.
    """
    kind = spaces.kinds[0] if spaces.is_one else trial.suggest_categorical(HEAD.name, spaces.kinds)
    space = spaces.members[spaces.kinds.index(kind)]
    suggested: dict[str, Value | None] = {}
    for knob in space.knobs:
        name = spaces.parameter(space, knob.name)
        if len(knob.values) == 1:
            suggested[knob.name] = knob.values[0]
        elif knob.ordered:
            suggested[knob.name] = knob.values[trial.suggest_int(name, 0, len(knob.values) - 1)]
        else:
            suggested[knob.name] = trial.suggest_categorical(name, knob.values)
    return Setting.of(suggested)


def _parameters(spaces: Spaces, setting: Setting) -> dict[str, object]:
    """Return the inverse of `_suggested`."""
    space = spaces.of(setting)
    own = {
        spaces.parameter(space, knob.name): knob.values.index(setting[knob.name]) if knob.ordered else setting[knob.name]
        for knob in space.knobs
        if len(knob.values) > 1
    }
    return own if spaces.is_one else {HEAD.name: setting.head, **own}


def _record(trial: optuna.Trial, candidate: Candidate, limits: Limits) -> None:
    """Set a trial's constraints, and the figures that a reader of the journal looks for beside the objectives."""
    for name, value in constraints(candidate, limits).items():
        trial.set_constraint(name, value)
    trial.set_user_attr("setting", candidate.setting.document())
    trial.set_user_attr("memory_bytes", candidate.memory_bytes)
    trial.set_user_attr("images_per_second", candidate.images_per_second)


@contextlib.contextmanager
def _temporary_folder() -> Iterator[Path]:
    try:
        with scratch() as place:
            yield place.folder
    except OSError as error:
        raise StorageError("the folder for temporary files must be writable", f"'{error}'", "Set TMPDIR.") from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence Optuna's notes on what is experimental."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield
