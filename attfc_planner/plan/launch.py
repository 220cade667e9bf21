"""Starts the trainer with a plan, waits for it, and sets what it measured beside what was predicted."""

from __future__ import annotations

import contextlib
import itertools
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

from attfc_planner.gpu.profile import GpuProfile
from attfc_planner.plan.plan import Plan
from attfc_train.profile.prediction import Prediction
from attfc_train.units import Bytes, format_bytes


def train_arguments(plan: Plan, profile_path: Path, data: str, run_folder: Path) -> list[str]:
    """``attfc-train``'s options; what was planned for a GPU does not quietly train on the CPU, nor the other way round."""
    return ["--profile", str(profile_path), "--data", data, "--output", str(run_folder), "--device", plan.gpu.kind]


def missing_bytes(plan: Plan, foreign_bytes: Bytes) -> Bytes:
    """What the plan needs beyond what is there, now that others hold `foreign_bytes` of the device; 0: it fits."""
    assert plan.profile.prediction is not None
    needed = plan.profile.prediction.memory.without("foreign")
    return max(0, needed + foreign_bytes - plan.gpu.capacity_bytes)


def held_by_others(gpu: GpuProfile, foreign_bytes: Bytes) -> GpuProfile:
    """The device as it is now."""
    sources = {**gpu.sources, "foreign_bytes": "measured again before the launch"}
    return gpu.model_copy(update={"foreign_bytes": foreign_bytes, "sources": sources})


def new_run_folder(name: str, parent: Path = Path("runs")) -> Path:
    """``runs/NAME``, or the first of ``runs/NAME-2``, ``-3`` ... that does not exist: a run never overwrites another."""
    names = (name if number == 1 else f"{name}-{number}" for number in itertools.count(1))
    return next(parent / one for one in names if not (parent / one).exists())


def launch(arguments: list[str]) -> int:
    """Runs the trainer as a child with its own memory; returns its exit code, 128 + n after signal n.

    The trainer saves its state when it is told to stop, and this process waits for that: Ctrl-C reaches the child by itself
    (one process group), SIGTERM goes to one process only and is passed on.
    """
    with subprocess.Popen([sys.executable, "-m", "attfc_train.cli", *arguments]) as child, _stopping(child):
        code = child.wait()
    return code if code >= 0 else 128 - code


@contextlib.contextmanager
def _stopping(child: subprocess.Popen[bytes]) -> Iterator[None]:
    """Meanwhile SIGINT is left to `child`, and SIGTERM is passed on to it."""
    handlers: dict[int, Any] = {signal.SIGINT: signal.SIG_IGN, signal.SIGTERM: lambda number, _: child.send_signal(number)}
    former = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def read_end(run_folder: Path) -> dict[str, Any] | None:
    """The ``end`` event of a run's record; None where the run did not finish."""
    try:
        lines = (run_folder / "log.jsonl").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    for line in reversed(lines):
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict) and event.get("event") == "end":
            return event
    return None


def comparison(prediction: Prediction, end: dict[str, Any], kind: Literal["cuda", "cpu"]) -> list[tuple[str, str, str]]:
    """Rows of (figure, predicted, measured).

    The record's memory is what the trainer's process took: the resident set on a CPU, what the allocator reserved on a GPU. So
    the terms that lie outside are left out of the prediction.
    """
    speed, prior, expected = prediction.images_per_second, prediction.accuracy, prediction.memory.measured_bytes
    without = "without context and headroom" if kind == "cuda" else "without headroom"
    prior_text = f"prior {prior.low:+.2f} to {prior.high:+.2f} points against full FC"
    return [
        ("images/s", f"{speed.low:,.0f} to {speed.high:,.0f}", _shown(end.get("images_per_second"), "{:,.1f}".format)),
        (f"peak memory ({without})", format_bytes(expected), _shown(end.get("peak_memory_bytes"), format_bytes)),
        ("accuracy", prior_text, _shown(end.get("accuracy"), lambda share: f"{100 * share:.1f} %", "- (no --val)")),
    ]


def _shown(value: object, show: Callable[[Any], str], otherwise: str = "-") -> str:
    """A figure of the record, which may lack it."""
    return show(value) if isinstance(value, int | float) else otherwise
