"""Phases timed by events of a CUDA device."""

from __future__ import annotations

import pytest
import torch

from attfc_train.phase import observed_by
from attfc_train.step.build import build
from attfc_train.step.step import train_step
from attfc_train.timing.marks import PhaseMarks, stamps
from attfc_train.timing.steps import timed_steps
from tests.gpu.waits import no_waits
from tests.train.profiles import random_batch, small_profile

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

CUDA = torch.device("cuda")


def test_marks_wait_for_nothing() -> None:
    """Catches an event that is asked for its time within the step."""
    profile = small_profile("identity-30%")
    state = build(profile, CUDA)
    batches = [random_batch(profile, seed).to(CUDA) for seed in range(2)]
    train_step(state, batches[0])
    marks = PhaseMarks(stamps(CUDA))
    with no_waits(), observed_by(marks):
        train_step(state, batches[1])
    assert len(marks) >= 20


@pytest.mark.needs_values
def test_phases_add_up_to_the_step() -> None:
    """The times between neighbouring events add up to the time between the outer two, to the events' half microsecond."""
    profile = small_profile("identity-30%")
    times = timed_steps(build(profile, CUDA), iter([random_batch(profile)] * 20), 4)
    assert sum(times.phases.values()) == pytest.approx(times.marked, rel=0.02)
    assert times.phases["forward"] > 0
    assert times.phases["backward"] > 0
