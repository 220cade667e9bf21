"""The search: a fast screening of the whole space, then an Optuna study that starts from its Pareto front.

The model is cheap, so every setting near the budget is judged once in plain Python. The study is the record and the sampler:
the front's settings are enqueued as its first trials, multivariate TPE adds others, and both constraints are set on every
trial (`Trial.set_constraint`), so that the same code serves where a trial is expensive. The same seed gives the same trials.
"""

from __future__ import annotations

import warnings
from dataclasses import astuple, dataclass, replace
from itertools import groupby

import optuna

from attfc_planner.search.candidates import Candidate, Evaluate
from attfc_planner.search.constraints import Limits, constraints, is_feasible
from attfc_planner.search.space import SearchSpace, Setting

SCREEN_MARGIN = 1.1
"""Settings above this multiple of the budget are not judged further: estimates are far better than 10 %."""


@dataclass(frozen=True)
class SearchResult:
    """What was judged, and the study's trials in order (`num_trials` of them)."""

    candidates: tuple[Candidate, ...]
    num_trials: int

    def feasible(self, limits: Limits) -> list[Candidate]:
        """Those that respect every constraint."""
        return [candidate for candidate in self.candidates if is_feasible(candidate, limits)]


def search(space: SearchSpace, evaluate: Evaluate, limits: Limits, *, num_trials: int, seed: int) -> SearchResult:
    """Screens `space` and runs a study of at least `num_trials` trials.

    Args:
        evaluate: judges one setting, in milliseconds.
        num_trials: trials of the study; the Pareto front is tried in any case.
    """
    screened = screen(space, evaluate, limits)
    front = pareto_front([candidate for candidate in screened if is_feasible(candidate, limits)])
    tried = _run_study(space, evaluate, limits, front, max(num_trials, len(front)), seed)
    judged = {candidate.setting: candidate for candidate in (*screened, *tried)}
    return SearchResult(tuple(judged.values()), len(tried))


def screen(space: SearchSpace, evaluate: Evaluate, limits: Limits) -> list[Candidate]:
    """Every setting up to the first batch size that is far above the budget: memory only grows with the batch."""
    judged: list[Candidate] = []

    def without_batch(setting: Setting) -> tuple[float, ...]:
        return astuple(replace(setting, batch_size=0))

    for _, group in groupby(sorted(space, key=lambda one: (without_batch(one), one.batch_size)), key=without_batch):
        for setting in group:
            judged.append(evaluate(setting))
            if judged[-1].memory_bytes > SCREEN_MARGIN * limits.budget_bytes:
                break
    return judged


def pareto_front(candidates: list[Candidate]) -> list[Candidate]:
    """Those that no other beats in accuracy and speed at once; of equals, the one that needs less memory."""
    ordered = sorted(candidates, key=lambda one: (-one.images_per_second, -one.accuracy_points, one.memory_bytes, one.setting))
    front: list[Candidate] = []
    for candidate in ordered:
        if not front or candidate.accuracy_points > front[-1].accuracy_points:
            front.append(candidate)
    return front


def _run_study(
    space: SearchSpace, evaluate: Evaluate, limits: Limits, front: list[Candidate], num_trials: int, seed: int
) -> list[Candidate]:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    tried: list[Candidate] = []

    def objective(trial: optuna.Trial) -> tuple[float, float]:
        indices = {name: trial.suggest_int(name, 0, len(values) - 1) for name, values in space.knobs.items()}
        candidate = evaluate(space.at(indices))
        for name, value in constraints(candidate, limits).items():
            trial.set_constraint(name, value)
        tried.append(candidate)
        return candidate.accuracy_points, candidate.images_per_second

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = optuna.samplers.TPESampler(multivariate=True, seed=seed)
        study = optuna.create_study(directions=["maximize", "maximize"], sampler=sampler, study_name="attfc-plan")
        for candidate in front:
            study.enqueue_trial(space.indices(candidate.setting))
        study.optimize(objective, n_trials=num_trials)
    return tried
