"""What a watcher is told while traces are made."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from attfc_planner.trace import progress, store
from attfc_planner.trace.jobs import Job, JobKind
from attfc_planner.trace.progress import Progress, expecting, watched
from attfc_planner.trace.store import Traces
from tests.planner.trace.profiles import small_profile


def not_affine(jobs: Sequence[Job], finished: Callable[[Job], object]) -> list[None]:
    for job in jobs:
        finished(job)
    return [None for _ in jobs]


def test_the_number_of_train_steps_is_known_from_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a count of the heads alone, at whose end the networks come as a surprise, and one that never ends."""
    monkeypatch.setattr(store, "results", not_affine)
    told: list[Progress | None] = []
    with watched(told.append):
        Traces(tmp_path).prepare([small_profile(), small_profile(checkpointing=True), small_profile({"kind": "partial_fc"})])
    *counts, end = told
    assert end is None
    assert [each and (each.done, each.total) for each in counts] == [(done, 6) for done in range(7)], (
        "2 heads, 1 evaluation, 3 networks"
    )


def test_nobody_is_told_who_does_not_watch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "results", not_affine)
    told: list[Progress | None] = []
    with watched(told.append):
        pass
    Traces(tmp_path).prepare([small_profile()])
    assert told == []


def test_time_left_counts_what_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches time by the number of jobs: the quick ones come first, and would promise too little."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(progress, "WORK", {"head": 1.0, "network": 5.0})
    told: list[Progress | None] = []
    kinds: list[JobKind] = ["head", "head", "network"]
    with watched(told.append), expecting(kinds) as finished:
        for kind in kinds:
            now[0] += 3.0
            finished(kind)
    assert [each and each.seconds_left for each in told] == [None, None, 15.0, 0.0, None]


def test_what_comes_later_is_added(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a count that starts anew with what the choice still needs, and a pace that counts the search in between."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(progress, "WORK", {"network": 5.0, "exact": 10.0})
    told: list[Progress | None] = []
    batches: list[list[JobKind]] = [["network", "network"], [], ["exact"]]
    with watched(told.append):
        for kinds in batches:
            with expecting(kinds) as finished:
                for kind in kinds:
                    now[0] += 4.0
                    finished(kind)
            now[0] += 1000.0
    assert told == [
        Progress(0, 2, None),
        Progress(1, 2, None),
        Progress(2, 2, 0.0),
        None,
        Progress(2, 3, 8.0),
        Progress(3, 3, 0.0),
        None,
    ]
