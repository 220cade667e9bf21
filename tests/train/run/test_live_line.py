"""The line while a run trains: what stands in it at which width, and that it moves between two steps."""

from __future__ import annotations

import io
import threading
import time

import pytest
from rich.console import Console

from attfc_train.data.progress import tell
from attfc_train.run.live_line import LineState, LiveLine, busy, line_text

VALUES = {"loss": 3.0341, "images_per_second": 331.4, "data_wait_share": 0.02, "memory_bytes": 6e8, "peak_memory_bytes": 7e8}
LARGE = {**VALUES, "loss": 13.034, "images_per_second": 10331.0, "memory_bytes": 2.3e10, "peak_memory_bytes": 2.4e10}


def state(values: dict[str, float], step: int = 50, total: int = 600, seconds: float | None = 0.5) -> LineState:
    return LineState(total, step, values, seconds_per_step=seconds, since=100.0)


@pytest.mark.parametrize(("step", "total", "values"), [(50, 600, VALUES), (123_456, 1_234_567, LARGE)])
@pytest.mark.parametrize("width", [80, 100, 120, 200])
def test_what_matters_most_is_there_at_every_width(step: int, total: int, values: dict[str, float], width: int) -> None:
    """Catches memory that pushes the time left out of 80 columns, as it did."""
    text = line_text(state(values, step, total), width, 100.0)
    assert len(text) <= width
    for part in (f"{step:,}/{total:,}", f"loss {values['loss']:.3f}", f"{values['images_per_second']:,.0f} images/s", "left "):
        assert part in text
    assert ("memory" in text) == (width >= (120 if values is LARGE else 100))


def test_the_time_left_falls_between_two_steps() -> None:
    now = line_text(state(VALUES), 80, 100.0)
    later = line_text(state(VALUES), 80, 103.0)
    assert "left 4 min 35 s" in now
    assert "left 4 min 32 s" in later
    assert "left 0.0 s" in line_text(state(VALUES, 600), 80, 200.0)


def test_what_is_done_between_steps_is_said_and_stops_the_clock() -> None:
    evaluating = state(VALUES)
    evaluating.doing = "evaluating"
    assert line_text(evaluating, 80, 500.0).endswith("left 4 min 35 s  evaluating")


def test_before_the_first_figures() -> None:
    assert line_text(state({}, 0, 600, None), 80, 112.0).endswith(" 0/600  starting, 12.0 s")
    assert line_text(state({}, 3, 600, 2.0), 80, 100.0).endswith(" 3/600  left 19 min 54 s")


def test_the_first_step_is_not_taken_for_the_rate_of_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    line = LiveLine(Console(quiet=True), LineState(100, 0))
    for step, seconds in ((1, 60.0), (2, 62.0), (3, 64.0)):
        clock[0] = seconds
        line.reached(step)
    assert line.state.seconds_per_step == 2.0


def test_a_narrow_terminal_gets_no_bar_and_no_second_line_of_the_same() -> None:
    screen = io.StringIO()
    console = Console(file=screen, width=40)
    console.print(LiveLine(console, state(VALUES)))
    assert len(screen.getvalue().splitlines()) == 1


def drawn(seconds: float) -> str:
    screen = io.StringIO()
    console = Console(file=screen, width=80, force_terminal=True)
    line = LiveLine(console, state(VALUES))
    line.start()
    time.sleep(seconds)
    line.stop()
    return screen.getvalue()


def test_it_moves_every_second_without_a_step() -> None:
    assert drawn(1.7).count("50/600") >= 3


def no_thread(_thread: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def test_a_system_without_threads_draws_at_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading.Thread, "start", no_thread)
    screen = io.StringIO()
    line = LiveLine(Console(file=screen, width=80, force_terminal=True), state(VALUES))
    line.start()
    line.reached(51)
    line.stop()
    assert "51/600" in screen.getvalue()


def test_nothing_is_drawn_where_nobody_looks() -> None:
    screen = io.StringIO()
    line = LiveLine(Console(file=screen), state(VALUES))
    line.start()
    line.reached(51)
    line.stop()
    assert screen.getvalue() == ""


def test_what_takes_long_before_training_is_said_with_its_time() -> None:
    screen = io.StringIO()
    with busy(Console(file=screen, width=60, force_terminal=True), f"Reading the index of {'faces/' * 20}"):
        time.sleep(0.7)
    text = screen.getvalue()
    assert "Reading the index of faces/" in text
    assert "…  0." in text, "the name gives way, not the time"


def test_how_far_it_is_stands_before_the_time() -> None:
    """Catches a name so long that the figure is cut off, and a listener that stays after the work."""
    screen = io.StringIO()
    with busy(Console(file=screen, width=60, force_terminal=True), f"Reading the index of {'faces/' * 20}"):
        tell("looking at images", 25, 100)
        time.sleep(0.7)
    assert "…  looking at images 25%  0." in screen.getvalue()
    before = screen.getvalue()
    tell("looking at images", 50, 100)
    assert screen.getvalue() == before


def test_nobody_is_told_off_a_terminal() -> None:
    screen = io.StringIO()
    with busy(Console(file=screen), "Reading"):
        pass
    assert screen.getvalue() == ""


def test_work_goes_on_without_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading.Thread, "start", no_thread)
    screen = io.StringIO()
    with busy(Console(file=screen, width=60, force_terminal=True), "Reading"):
        pass
    assert "Reading  0.0 s" in screen.getvalue()
