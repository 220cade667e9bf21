"""A study that several processes and machines work on: no trial is run twice, none is lost, dead workers' trials run again.

Trials are always enqueued first, with their setting, and then claimed: both are atomic in every Optuna storage. Should two
workers enqueue one setting at the same moment, the lower number is run and the other is dropped by whoever claims it; so is
what exceeds the wanted number of trials. A claimed trial carries its worker and a heartbeat; a trial whose worker died is
failed, and its setting is enqueued once more. All of that follows from what the storage holds, so it does not matter who does
it, or whether two do. TPE's suggestions come from a copy of the study in memory, and are enqueued like the others.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import optuna
from optuna.distributions import IntDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from attfc_planner.tune.studies.claim import CUT, DIED, Claim, Indices, Record, record_of
from attfc_planner.tune.studies.notes import in_words
from attfc_planner.tune.studies.storage import Store, as_storage_error, quiet
from attfc_planner.tune.studies.worker import is_alive, this_worker
from attfc_train.errors import StorageError

FEWEST_FOR_IMPORTANCE = 10


class SharedStudy:
    """One study of a storage.

    Args:
        knobs: name -> number of values.
        metrics: names of the objectives, all to be maximised.
        halving: prune by successive halving with this factor, from the report `first_cut` on (one objective only).
        check: raises ValueError or LookupError for a trial that cannot be one of this study, beyond its knobs and values.
    """

    def __init__(
        self,
        store: Store,
        name: str,
        knobs: Mapping[str, int],
        metrics: Sequence[str],
        halving: int | None = None,
        first_cut: int = 1,
        check: Callable[[Record], object] = bool,
    ) -> None:
        self._name = name
        self._check = check
        self._store = store
        self._storage = store.backend
        self._knobs = dict(knobs)
        self._directions = [StudyDirection.MAXIMIZE] * len(metrics)
        pruner = optuna.pruners.SuccessiveHalvingPruner(first_cut, halving) if halving else optuna.pruners.NopPruner()
        with quiet(), as_storage_error():
            self._study = optuna.create_study(
                storage=store.backend,
                study_name=name,
                directions=self._directions,
                load_if_exists=True,
                pruner=pruner,
                sampler=optuna.samplers.RandomSampler(seed=0),  # every value of a trial is fixed when it is enqueued
            )
            if self._study.metric_names is None:
                self._study.set_metric_names(list(metrics))

    @property
    def facts(self) -> dict[str, Any]:
        """Return what was noted about the whole study; it may be anything."""
        with as_storage_error():
            return dict(self._study.user_attrs)

    def note(self, **facts: Any) -> None:
        """Note facts about the whole study."""
        for key, value in facts.items():
            self._study.set_user_attr(key, value)

    def records(self) -> list[Record]:
        """Return all trials by number.

        Raises:
            StorageError: one is not as attfc writes trials.
        """
        return [record for record, _ in self._pairs()]

    def enqueue(self, indices: Indices, why: str, **facts: Any) -> None:
        """Make a trial for whoever claims it; setting and facts are there at once."""
        self._study.enqueue_trial(indices, user_attrs={"why": why, **facts})

    def claim(self, limit: int = 2**31) -> Claim | None:
        """Take the next waiting trial, or return None if there is none.

        Args:
            limit: settings that are run at most; a trial beyond them is dropped.
        """
        for record, waiting in self._pairs():
            # Taking is the one atomic step: of workers that saw the same waiting trial, one gets it, and only that one decides
            # whether it is to be run. It looks at lower numbers only: of two trials with one setting the higher is dropped,
            # whoever claims them and in whichever order, and never both.
            if waiting.state == TrialState.WAITING and self._take(waiting):
                claim = self._begin(waiting, record.indices)
                dropped = _reason_to_drop(record, self.records(), limit)
                if dropped is None:
                    return claim
                claim.note(dropped=dropped)
                claim.prune()
        return None

    def is_running(self) -> bool:
        """Return whether anybody is at work, or a trial waits for it."""
        return any(record.state in ("running", "waiting") for record in self.records())

    def bury(self) -> int:
        """Fail the trials of dead workers and enqueue lost settings again; return how many were failed."""
        buried = 0
        for _, trial in self._pairs():
            if trial.state == TrialState.RUNNING and not _is_alive(trial):
                # Another worker may bury it at this moment, or its own may end it after all: then nothing is left to do. The
                # outcome comes first, because a trial that has ended takes no notes.
                with contextlib.suppress(optuna.exceptions.UpdateFinishedTrialError, ValueError):
                    self._storage.set_trial_user_attr(trial._trial_id, "outcome", DIED)
                    buried += bool(self._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL))
        # Two workers may enqueue one lost setting twice: `claim` drops the second.
        for indices in lost(self.records()):
            self.enqueue(indices, "again, because the worker of its first trial ended")
        return buried

    def suggest(
        self,
        seed: int,
        drawn: Callable[[Callable[[str], int]], Indices],
        excess: Callable[[Indices], float | None],
        attempts: int = 30,
    ) -> Indices | None:
        """Return a setting from multivariate TPE, or None if no acceptable one came up.

        Args:
            drawn: makes a setting of a function that draws the index of a knob by name.
            excess: of a setting: at most 0 where it may be tried, above 0 by how much it does not fit, None: tried already.
        """
        with quiet():
            sampler = optuna.samplers.TPESampler(multivariate=True, group=True, seed=seed)  # a head's knobs are a group
            # A copy in memory: what is asked and refused below must not be seen by the other workers.
            copy = optuna.create_study(directions=self._directions, sampler=sampler)
            copy.add_trials([self._for_sampler(record, trial) for record, trial in self._counted()])
            for _ in range(attempts):
                trial = copy.ask()
                indices = drawn(partial(self._draw, trial))
                misses = excess(indices)
                if misses is not None and misses <= 0:
                    return indices
                _refuse(copy, trial, misses)
        return None

    def importances(self, value: Callable[[Record], float | None], further: Iterable[Record] = ()) -> dict[str, float] | str:
        """Return each knob's share in what makes `value` high (PED-ANOVA), or why that cannot be said.

        Args:
            further: trials of another study with this one's knobs.
        """
        judged = [(record, number) for record in (*self.records(), *further) if (number := value(record)) is not None]
        if len(judged) < FEWEST_FOR_IMPORTANCE:
            return f"{len(judged)} trials; it takes {FEWEST_FOR_IMPORTANCE}"
        # Knobs that every trial has: those of one kind of head say nothing of the others.
        common = [name for name in self._knobs if all(name in record.indices for record, _ in judged)]
        varied = [name for name in common if len({record.indices[name] for record, _ in judged}) > 1]
        if not varied or len({number for _, number in judged}) == 1:
            return "nothing varied"
        divergences = self._divergences(judged, varied)
        total = sum(divergences.values())
        if not total > 0:  # nan as well
            return "no knob stands out"
        return {name: divergence / total for name, divergence in divergences.items()}

    def _divergences(self, judged: Sequence[tuple[Record, float]], varied: list[str]) -> dict[str, float]:
        """Return for each knob how far its values in the best trials are distributed differently than in all."""
        # PED-ANOVA (Watanabe, Bansal and Hutter, IJCAI 2023): the importance of knob d is the Pearson divergence of p(d | best
        # trials) from p(d | all trials). The best are a tenth, but at least two or three: one trial has no distribution.
        best_share = max(0.1, 2.5 / len(judged))
        with quiet():
            copy = optuna.create_study(direction="maximize")
            copy.add_trials(
                create_trial(value=number, params=record.indices, distributions=self._spaces(record.indices))
                for record, number in judged
            )
            evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=best_share)
            return optuna.importance.get_param_importances(copy, evaluator=evaluator, params=varied, normalize=False)

    def _pairs(self) -> list[tuple[Record, FrozenTrial]]:
        """Return all trials, as plain data that was looked at and as Optuna's."""
        with quiet(), as_storage_error():
            return [(self._record(trial), trial) for trial in self._study.get_trials(deepcopy=False)]

    def _record(self, trial: FrozenTrial) -> Record:
        try:
            record = record_of(trial, self._knobs, len(self._directions))
            self._check(record)
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            rule = f"trial {trial.number} of the study '{self._name}' must be as attfc-plan tune writes it"
            remedy = "Something else has written there: give another --study, or another --storage or --output."
            raise StorageError(rule, in_words(error, "what no trial holds"), remedy) from error
        return record

    def _counted(self) -> Iterator[tuple[Record, FrozenTrial]]:
        return ((record, trial) for record, trial in self._pairs() if record.counts and record.indices)

    def _take(self, waiting: FrozenTrial) -> bool:
        """Set a waiting trial running; return False if another worker was faster."""
        try:
            with self._store.exclusive():
                return self._storage.set_trial_state_values(waiting._trial_id, TrialState.RUNNING)
        except optuna.exceptions.UpdateFinishedTrialError:
            return False

    def _begin(self, waiting: FrozenTrial, indices: Indices) -> Claim:
        """Return the claim on a trial that was taken, with its worker, a first heartbeat and its parameters recorded."""
        trial = Trial(self._study, waiting._trial_id)
        trial.set_user_attr("worker", this_worker().document())
        trial.set_user_attr("beat", time.time())
        for name in indices:
            trial.suggest_int(name, 0, self._knobs[name] - 1)  # gives the enqueued value, and makes it a parameter
        return Claim(self._study, trial, indices)

    def _draw(self, trial: Trial, name: str) -> int:
        return trial.suggest_int(name, 0, self._knobs[name] - 1)

    def _spaces(self, names: Iterable[str]) -> dict[str, Any]:
        return {name: IntDistribution(0, self._knobs[name] - 1) for name in names}

    def _for_sampler(self, record: Record, trial: FrozenTrial) -> FrozenTrial:
        """Return a copy for TPE: finished trials with their result, all others as running.

        TPE takes a running trial for a bad one, so it suggests something else than what waits or runs elsewhere.
        """
        state = trial.state if trial.state.is_finished() else TrialState.RUNNING
        return create_trial(
            state=state,
            values=trial.values,
            params=record.indices,
            distributions=self._spaces(record.indices),
            constraints=trial.constraints or None,
        )


def _refuse(copy: optuna.Study, trial: Trial, misses: float | None) -> None:
    """Tell TPE that its suggestion misses the constraints by so much, or nothing if it was tried already (None)."""
    if misses is not None:
        trial.set_constraint("memory", misses)
    # TPE learns from pruned trials and passes over failed ones: what was tried already is known to it with its result.
    copy.tell(trial, state=TrialState.FAIL if misses is None else TrialState.PRUNED)


def study_names(store: Store) -> set[str]:
    """Return the names of all studies that a storage holds."""
    with quiet(), as_storage_error():
        return set(optuna.get_all_study_names(store.backend))


def lost(records: Iterable[Record]) -> list[Indices]:
    """Return the settings that must be enqueued again.

    No trial stands for such a setting, and all that there were got interrupted or lost their worker, the latter once.
    """
    groups: dict[tuple[tuple[str, int], ...], list[Record]] = {}
    for record in records:
        if "dropped" not in record.notes:
            groups.setdefault(record.key, []).append(record)
    return [group[0].indices for group in groups.values() if _is_lost(group)]


def _is_lost(group: list[Record]) -> bool:
    outcomes = [record.notes.get("outcome") for record in group]
    if any(record.counts for record in group) or not set(outcomes) <= {DIED, CUT}:
        return False
    return outcomes.count(DIED) < 2  # a setting whose worker died twice may be what killed it


def _reason_to_drop(claimed: Record, records: Iterable[Record], limit: int) -> str | None:
    """Return why a claimed trial is not to be run, None if it is; the same answer whoever asks and whenever."""
    # The invariant: only trials with lower numbers are looked at, and their settings never change.
    earlier = [record for record in records if record.number < claimed.number and record.counts]
    twin = next((record for record in earlier if record.key == claimed.key), None)
    if twin is not None:
        return f"the setting is that of trial {twin.number}"
    return "there are trials enough" if len({record.key for record in earlier}) >= limit else None


def _is_alive(trial: FrozenTrial) -> bool:
    """Return whether the worker of a running trial lives; a trial taken a moment ago may not carry it yet."""
    begun = trial.datetime_start.timestamp() if trial.datetime_start else None
    return is_alive(trial.user_attrs.get("worker"), trial.user_attrs.get("beat", begun), time.time())
