"""Traces from workers, and from this process where workers cannot make them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from attfc_planner.trace import store
from attfc_planner.trace.history import Trace
from attfc_planner.trace.record import record
from attfc_train.profile.profile import TrainProfile
from tests.planner.trace.profiles import small_profile


@pytest.mark.parametrize("dies", [False, True])
def test_what_a_fork_cannot_trace_is_traced_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, dies: bool) -> None:
    """Catches ``return future.result()``: a CUDA build of torch refuses backward passes in a fork after one here."""
    here, traced = os.getpid(), []

    def only_here(profile: TrainProfile, batches: Sequence[TrainProfile]) -> Trace:
        if os.getpid() != here:
            if dies:
                os._exit(1)
            raise RuntimeError("Unable to handle autograd's threading in combination with fork-based multiprocessing.")
        traced.append(profile)
        return record(profile, batches)

    monkeypatch.setattr(store, "record", only_here)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    profiles = [small_profile(batch_size=size) for size in (8, 16)]
    traces = store.Traces(tmp_path)
    traces.prepare_exact(profiles)
    assert len(traced) == 2
    assert [traces.exact(profile).births(0) for profile in profiles]
    assert len(traced) == 2, "kept"
