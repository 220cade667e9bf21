"""Marks: what they say of phases, and that a step without them is as it was."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from attfc_train import phase as phase_module
from attfc_train.phase import Phase, current_phase, observed_by, phase
from attfc_train.step.build import build
from attfc_train.step.step import train_step
from attfc_train.timing.marks import BETWEEN, PhaseMarks, Stamp, stamps
from tests.train.profiles import random_batch, small_profile


class Tick:
    """A moment of a clock that moves when it is told to."""

    now = 0.0

    def __init__(self) -> None:
        self.time = Tick.now

    def until(self, later: Any) -> float:
        return float(later.time - self.time)


def later(seconds: float) -> None:
    Tick.now += seconds


def test_a_phase_within_a_phase_counts_for_itself_alone() -> None:
    """Catches the inner phase counted twice, and the rest of the outer one given to nobody."""
    marks = PhaseMarks(Tick)
    begin = Tick()
    with observed_by(marks):
        later(1)
        with phase("loss"):
            later(2)
            with phase("backward"):
                later(4)
            later(8)
        later(16)
        with phase("backward"):
            later(32)
        later(64)
    assert marks.seconds(begin, Tick()) == {BETWEEN: 1 + 16 + 64, "loss": 2 + 8, "backward": 4 + 32}
    assert len(marks) == 6


def test_an_error_leaves_no_observer_and_ends_its_phases() -> None:
    marks = PhaseMarks(Tick)
    with pytest.raises(ValueError, match="a test"), observed_by(marks), phase("loss"), phase("backward"):
        raise ValueError("a test")
    assert current_phase() is None
    assert len(marks) == 4
    with phase("loss"):
        pass
    assert len(marks) == 4
    assert phase_module._observers == []


@pytest.mark.parametrize("head", ["identity-30%", "full_fc", "f2c"])
def test_marks_change_no_bit_of_a_step(head: str) -> None:
    profile = small_profile(head)
    states = build(profile, torch.device("cpu")), build(profile, torch.device("cpu"))
    for seed in range(3):
        plain = train_step(states[0], random_batch(profile, seed)).loss
        marks = PhaseMarks(stamps(torch.device("cpu")))
        with observed_by(marks):
            marked = train_step(states[1], random_batch(profile, seed)).loss
        assert torch.equal(plain, marked)
    assert len(marks) > 10
    for mine, other in zip(states[0].feature_encoder.parameters(), states[1].feature_encoder.parameters(), strict=True):
        assert torch.equal(mine, other)


class Event:
    """Stands in for ``torch.cuda.Event``: where it was recorded, and how far apart two are, in milliseconds."""

    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing, "the default takes no time"
        self.stream: object = None
        self.time = 0.0

    def record(self, stream: object) -> None:
        self.stream = stream
        self.time = Tick.now

    def elapsed_time(self, other: Event) -> float:
        return 1000 * (other.time - self.time)


def test_a_gpu_is_asked_by_events_of_the_stream_that_the_step_runs_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches milliseconds taken for seconds, an event on another device's stream, and a wait of the host."""
    device = torch.device("cuda", 1)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: f"stream of {device}")
    monkeypatch.setattr(torch.cuda, "synchronize", lambda *_: pytest.fail("nothing may wait"))
    now = stamps(device)
    first: Stamp = now()
    later(0.25)
    second = now()
    assert first.event.stream == "stream of cuda:1"  # type: ignore[attr-defined]
    assert first.until(second) == pytest.approx(0.25)


def test_a_name_that_nobody_knows_would_be_seen() -> None:
    """Catches a phase of `attfc_train.phase` without a row in the report."""
    from typing import get_args

    from attfc_train.timing.limits import LABELS, ORDER

    names = set(get_args(Phase)) - {"build", "evaluation"}
    assert names <= set(ORDER) == set(LABELS)
