"""Trials that something else wrote into a shared storage are refused in one line, before anything is made of them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import optuna
import pytest
from optuna.distributions import IntDistribution
from optuna.trial import TrialState, create_trial

from attfc_planner.tune.question import Question
from attfc_planner.tune.stages.recorded import check_baseline, check_steps, check_training
from attfc_planner.tune.studies.storage import Store
from attfc_planner.tune.studies.study import SharedStudy
from attfc_planner.tune.verdict.trained import SEED
from attfc_train.errors import StorageError
from tests.planner.tune.stages.test_steps import took, trials
from tests.planner.tune.tuning import Tuning

KNOBS = {"size": 8, "kind": 3}
GOOD = {
    "kind": "storage fp32",
    "outcome": "ran",
    "predicted_bytes": 10**9,
    "peak_bytes": 10**9,
    "wall_seconds": 3,
    "checks": {"9": [[0.5, 100]]},
    "something of a later attfc": [1],
}


def written(store: Store, name: str, notes: dict[str, Any], values: list[float] | None = None, **indices: int) -> None:
    """Write a trial as any program with Optuna can."""
    study = optuna.load_study(study_name=name, storage=store.backend)
    distributions = {knob: IntDistribution(0, 2**30) for knob in indices}
    state = TrialState.COMPLETE if values else TrialState.FAIL
    attributes = {"user_attrs": notes, "params": indices, "distributions": distributions}
    study.add_trial(create_trial(state=state, values=values, **attributes))  # type: ignore[arg-type]


def refused(shared: SharedStudy, use: Callable[[], object] | None = None) -> str:
    with pytest.raises(StorageError, match="must be as attfc-plan tune writes it") as error:
        (use or shared.records)()
    assert "\n" not in str(error.value)
    return str(error.value)


def test_what_attfc_knows_is_taken(store: Store) -> None:
    shared = SharedStudy(store, "study", KNOBS, ("accuracy", "images/s"))
    written(store, "study", GOOD, [0.0, 1.0], size=7, kind=2)
    notes = shared.records()[0].notes
    assert "something of a later attfc" not in notes
    assert notes["checks"] == {"9": [(0.5, 100)]}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("wall_seconds", "3"),
        ("wall_seconds", True),
        ("wall_seconds", -1),
        ("wall_seconds", math.inf),
        ("wall_seconds", math.nan),
        ("peak_bytes", 0),
        ("peak_bytes", 1.5),
        ("peak_bytes", 10**400),
        ("predicted_bytes", None),
        ("outcome", "[red]"),
        ("outcome", ["ran"]),
        ("reason", {"a": 1}),
        ("reason", "x" * 10**5),
        ("worker", "me"),
        ("beat", "now"),
        ("images_per_second", 0),
        ("checks", {"10": [[0.5, 100]]}),
        ("checks", {"9": []}),
        ("checks", {"9": [[1.5, 100]]}),
        ("checks", {"9": [[0.5, 0]]}),
        ("checks", {"9": [[0.5]]}),
        ("checks", [1]),
        ("beside", {"size": -1}),
    ],
)
def test_a_note_of_another_kind(key: str, value: object, store: Store) -> None:
    """Each ended in a traceback, or was counted with: a peak of 0 divides, an accuracy of 1.5 wins."""
    shared = SharedStudy(store, "study", KNOBS, ("accuracy", "images/s"))
    written(store, "study", GOOD | {key: value}, [0.0, 1.0], size=7, kind=2)
    assert key in refused(shared, shared.claim)
    assert key in refused(shared, shared.bury)


@pytest.mark.parametrize("indices", [{"size": 8, "kind": 0}, {"size": 2**20, "kind": 0}, {"size": 1, "other": 0}])
def test_a_setting_that_is_none(indices: dict[str, int], store: Store) -> None:
    shared = SharedStudy(store, "study", KNOBS, ("accuracy",))
    written(store, "study", GOOD, [0.5], **indices)
    refused(shared)


@pytest.mark.parametrize("why", [{"size": -1, "kind": 0}, {"size": "1", "kind": 0}, {"size": 1.0, "kind": 0}, 7, [1]])
def test_a_setting_that_was_enqueued_by_hand(why: Any, store: Store) -> None:
    shared = SharedStudy(store, "study", KNOBS, ("accuracy",))
    study = optuna.load_study(study_name="study", storage=store.backend)
    study.add_trial(create_trial(state=TrialState.WAITING, system_attrs={"fixed_params": why}))
    refused(shared, shared.claim)


@pytest.mark.parametrize("system", [{"completed_rung_0": "0.9"}, {"constraints:memory": "none"}, {"constraints": [[1]]}])
def test_what_only_optuna_reads(system: dict[str, Any], store: Store) -> None:
    """The pruner compares the rungs of all trials, TPE their constraints."""
    shared = SharedStudy(store, "study", KNOBS, ("accuracy",), halving=3)
    study = optuna.load_study(study_name="study", storage=store.backend)
    study.add_trial(create_trial(state=TrialState.COMPLETE, value=0.5, system_attrs=system))
    refused(shared)


@pytest.mark.parametrize("changes", [{"peak_bytes": ...}, {"kind": ...}, {"wall_seconds": ...}, {"reserved_bytes": 2**50}])
def test_a_trial_of_another_program_among_real_steps(changes: dict[str, Any], asked: Question, store: Store) -> None:
    """What the verdict reads of a trial that ran must be there."""
    stage, _ = trials(asked, store, took, limit=2)
    stage.run()
    study = SharedStudy(store, "steps", asked.knobs, ("accuracy points", "images/s"), check=partial(check_steps, asked))
    first = study.records()[0]
    assert first.state == "complete", "attfc's own pass"
    notes = {name: value for name, value in {**first.notes, **changes}.items() if value is not ...}
    written(store, "steps", notes, [0.0, 1.0], **first.indices)
    assert f"trial {len(study._study.trials) - 1} of" in refused(study)


def test_trainings_pass_and_others_do_not(tuning: Tuning, store: Store) -> None:
    tuning.train(lambda _: 0.8)
    asked = tuning.asked
    accuracy = ("accuracy",)
    trainings = SharedStudy(store, "trainings", asked.knobs, accuracy, check=partial(check_training, asked))
    baseline = SharedStudy(store, "baseline", {SEED: 5}, accuracy, check=partial(check_baseline, asked))
    assert any(record.state == "complete" for record in trainings.records())
    assert baseline.records()
    written(store, "trainings", dict(trainings.records()[0].notes), [1.5], **trainings.records()[0].indices)
    assert "the accuracy 1.5" in refused(trainings)


@pytest.mark.parametrize(
    "scale",
    [
        {"num_ids": 30, "epochs": 1.0},
        {"num_ids": 10**6, "epochs": 1.0, "beside": {}},
        {"num_ids": 30, "epochs": 10**9, "beside": {}},
        {"num_ids": 1, "epochs": 1.0, "beside": {}},
        {"num_ids": 30, "epochs": 1.0, "beside": {"no knob": 0}},
    ],
)
def test_the_scale_of_all_trainings(scale: dict[str, Any], asked: Question, store: Store) -> None:
    """An assertion failed, or a training of 10^9 epochs was begun."""
    if scale.get("beside") == {}:
        scale = scale | {"beside": asked.spaces.indices(asked.plan.chosen.setting)}
    shared = SharedStudy(store, "full FC", {SEED: 5}, ("accuracy",), check=partial(check_baseline, asked))
    shared.enqueue({SEED: 0}, "full FC layer", **scale)
    assert re.search("trial 0 of the study 'full FC'", refused(shared))
