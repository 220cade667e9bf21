"""The line that a command shows while it plans."""

from __future__ import annotations

import io
import time

import pytest
from rich.console import Console

from attfc_planner.screens.tracing import TracingLine, tracing
from attfc_planner.trace.progress import Progress, expecting


def test_it_counts_and_the_time_runs_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: 50.0)
    line = TracingLine("Planning")
    assert line.text(50.0) == "Planning ..."
    line.watch(Progress(0, 34, None))
    assert line.text(60.0) == "Planning: traced 0 of 34 train steps, 10.0 s so far"
    line.watch(Progress(12, 34, 40.0))
    assert line.text(50.0) == "Planning: traced 12 of 34 train steps, 40.0 s left"
    assert line.text(55.0) == "Planning: traced 12 of 34 train steps, 35.0 s left"
    assert line.text(95.0) == "Planning: traced 12 of 34 train steps, nearly done"
    line.watch(None)
    line.tell("run 2 of 9")
    assert line.text(96.0) == "Planning, run 2 of 9 ..."


def test_the_longest_fits_into_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: 0.0)
    line = TracingLine("Calibrating the GPU once")
    line.watch(Progress(999, 1000, 3599.0))
    assert len(f". {line.text(0.0)}") <= 80


@pytest.mark.parametrize("is_terminal", [True, False])
def test_it_is_drawn_on_a_terminal_alone(is_terminal: bool) -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=is_terminal, width=80)
    with tracing(console, "Planning"), expecting(["head", "network"]) as finished:
        finished("head")
        time.sleep(0.3)  # the thread that draws comes by 12 times a second
    drawn = screen.getvalue()
    assert ("traced 1 of 2 train steps" in drawn) == is_terminal
    assert bool(drawn) == is_terminal
