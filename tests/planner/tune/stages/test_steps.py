"""Stage A with steps that cost nothing: what is tried, what is learned from running out of memory, how it ends."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal

import pytest

from attfc_planner.calibrate.real_steps import RealSteps
from attfc_planner.tune.question import Question, process_bytes
from attfc_planner.tune.stages.steps import StepTrials, first_settings
from attfc_planner.tune.studies.claim import CUT
from attfc_planner.tune.studies.storage import Store
from attfc_planner.tune.studies.study import SharedStudy
from attfc_planner.tune.verdict.result import measured_candidates
from attfc_train.errors import InfeasiblePlanError
from attfc_train.profile.profile import TrainProfile
from attfc_train.units import GIB
from tests.planner.fakes import FakeMemoryModel
from tests.planner.tune.studies.fake_worker import Silent

Real = Callable[[TrainProfile], RealSteps]


def trials(asked: Question, store: Store, real: Real, limit: int = 12, seconds: float = 100) -> tuple[StepTrials, Silent]:
    def run(profile: TrainProfile, kind: Literal["cuda", "cpu"], *, timeout: float) -> RealSteps:
        return real(profile)

    watcher = Silent()
    study = SharedStudy(store, "steps", asked.knobs, ("accuracy points", "images/s"))
    return StepTrials(asked, study, run, limit, time.monotonic() + seconds, watcher), watcher


def took(profile: TrainProfile, extra: float = 1.0) -> RealSteps:
    """As predicted, times `extra`."""
    peak = round(process_bytes(FakeMemoryModel().estimate(profile)) * extra)
    seconds = profile.optim.batch_size / 2000
    return RealSteps("ran", seconds=(seconds,), reserved_bytes=peak - GIB // 2, context_bytes=GIB // 2, process_bytes=peak)


def test_the_plans_choice_comes_first_and_every_setting_once(asked: Question, store: Store) -> None:
    stage, watcher = trials(asked, store, took)
    stage.run()
    records = stage.study.records()
    assert records[0].indices == asked.spaces.indices(asked.plan.chosen.setting)
    assert len(records) == len({record.key for record in records}) == 12
    assert {record.state for record in records} == {"complete"}
    assert any(record.notes["why"] == "TPE" for record in records)
    assert len(watcher.lines) == 12
    again, _ = trials(asked, store, lambda profile: pytest.fail("all trials are done"))
    again.run()


def test_the_first_settings_leave_room_for_tpe(asked: Question) -> None:
    for limit in (1, 2, 12, 40):
        assert 1 <= len(first_settings(asked, limit)) <= max(1, 2 * limit // 3 + 1)


def test_what_ran_out_of_memory_is_learned_from(asked: Question, store: Store) -> None:
    """The card holds half of what it says: predictions above that fail, and soon none is tried any more."""
    half = asked.gpu.capacity_bytes // 2
    ran: list[TrainProfile] = []

    def real(profile: TrainProfile) -> RealSteps:
        ran.append(profile)
        predicted = process_bytes(FakeMemoryModel().estimate(profile))
        return took(profile) if predicted < half else RealSteps("out of memory", "no more")

    stage, _ = trials(asked, store, real, limit=30)
    stage.run()
    records = stage.study.records()
    failed = [record for record in records if record.notes["outcome"] == "out of memory"]
    assert failed
    assert {record.state for record in failed} == {"pruned"}
    kinds = [record.notes["kind"] for record in failed]
    sizes: dict[str, list[int]] = {}
    for kind, record in zip(kinds, failed, strict=True):
        sizes.setdefault(kind, []).append(record.notes["predicted_bytes"])
    for in_order in sizes.values():
        assert in_order == sorted(in_order, reverse=True), "only smaller ones of the kind were tried afterwards"
    assert len(ran) == len([record for record in records if record.notes["outcome"] in ("ran", "out of memory")])
    refused = [record for record in records if record.notes["outcome"] == "not run"]
    assert all("out of memory" in record.notes["reason"] or "corrected" in record.notes["reason"] for record in refused)


def test_predictions_are_corrected_by_what_was_measured(asked: Question, store: Store) -> None:
    """Everything takes 1.9 times what was predicted: what would not fit so is not run, after the first trial."""
    stage, _ = trials(asked, store, lambda profile: took(profile, 1.9), limit=30)
    stage.run()
    assert stage.correction().ratio == pytest.approx(1.9)
    capacity = asked.gpu.capacity_bytes
    late = [record for record in stage.study.records() if record.state == "complete" and record.number > 0]
    assert late
    assert all(record.notes["peak_bytes"] <= capacity for record in late)
    kept = measured_candidates(asked, stage.study.records())
    assert all(candidate.memory.total_bytes <= capacity for candidate in kept)
    assert all(candidate.memory_bytes > 0 for candidate in kept)


def test_a_trial_that_the_deadline_cuts_is_run_again(asked: Question, store: Store) -> None:
    late, _ = trials(asked, store, lambda profile: RealSteps("out of time", "no end"), limit=1, seconds=5)
    original = late._try

    def only_once(claim) -> None:
        original(claim)
        late.deadline = 0.0

    late._try = only_once  # type: ignore[method-assign]
    late.run()
    (cut,) = late.study.records()
    assert (cut.state, cut.notes["outcome"]) == ("failed", CUT)
    again, _ = trials(asked, store, took, limit=1)
    again.run()
    assert [record.state for record in again.study.records()] == ["failed", "complete"]


def test_where_nothing_runs_it_ends_soon(asked: Question, store: Store) -> None:
    stage, _ = trials(asked, store, lambda profile: RealSteps("failed", "RuntimeError: no kernel"))
    with pytest.raises(InfeasiblePlanError, match=r"3 of 3; dcc_share .*RuntimeError: no kernel") as refused:
        stage.run()
    assert refused.value.exit_code == 6


def test_an_interruption_leaves_a_trial_to_be_run_again(asked: Question, store: Store) -> None:
    def interrupted(profile: TrainProfile) -> RealSteps:
        raise KeyboardInterrupt

    stage, _ = trials(asked, store, interrupted, limit=2)
    with pytest.raises(KeyboardInterrupt):
        stage.run()
    again, _ = trials(asked, store, took, limit=2)
    again.run()
    records = again.study.records()
    assert [record.state for record in records] == ["failed", "complete", "complete"]
    assert records[0].key == records[1].key
