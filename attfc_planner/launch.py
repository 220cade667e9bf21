"""Starts the trainer with a plan, waits for it, and sets what it measured beside what was predicted."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from attfc_planner.gpu.profile import GpuProfile
from attfc_planner.plan import Plan
from attfc_train.profile import Prediction
from attfc_train.units import format_bytes

ALLOCATOR = "PYTORCH_ALLOC_CONF"
EXPANDABLE = "expandable_segments:True"
"""Without it the caching allocator reserves 11 to 18 % more than it uses in this workload; the prediction counts on it."""


def train_arguments(plan: Plan, profile_path: Path, data: str, run_folder: Path) -> list[str]:
    """``attfc-train``'s options; a plan for the CPU stays on the CPU."""
    device = ["--device", "cpu"] if plan.gpu.kind == "cpu" else []
    return ["--profile", str(profile_path), "--data", data, "--output", str(run_folder), *device]


def new_run_folder(name: str, parent: Path = Path("runs")) -> Path:
    """``runs/NAME``, or the first of ``runs/NAME-2``, ``-3`` ... that does not exist: a run never overwrites another."""
    names = (name if number == 1 else f"{name}-{number}" for number in itertools.count(1))
    return next(parent / one for one in names if not (parent / one).exists())


def launch(arguments: list[str], gpu: GpuProfile) -> int:
    """Runs the trainer as a child with its own memory; returns its exit code, 128 + n after signal n.

    Ctrl-C reaches the child too (one process group): the trainer saves its state, and this process waits for that.
    """
    environment = dict(os.environ)
    if gpu.kind == "cuda":
        environment.setdefault(ALLOCATOR, EXPANDABLE)
    with subprocess.Popen([sys.executable, "-m", "attfc_train.cli", *arguments], env=environment) as child:
        former = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            code = child.wait()
        finally:
            signal.signal(signal.SIGINT, former)
    return code if code >= 0 else 128 - code


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


def comparison(prediction: Prediction, end: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Rows of (figure, predicted, measured)."""
    speed, prior = prediction.images_per_second, prediction.accuracy
    rows = [("images/s", f"{speed.low:,.0f} to {speed.high:,.0f}", _number(end.get("images_per_second")))]
    peak = end.get("peak_memory_bytes")
    measured = format_bytes(int(peak)) if isinstance(peak, int | float) else "-"
    rows.append(("peak memory", f"{format_bytes(prediction.memory.total_bytes)} (with headroom)", measured))
    accuracy = end.get("accuracy")
    rows.append(("accuracy", f"prior {prior.low:+.2f} to {prior.high:+.2f} points against full FC", _accuracy(accuracy)))
    return rows


def _number(value: object) -> str:
    return f"{value:,.1f}" if isinstance(value, int | float) else "-"


def _accuracy(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_number(part)}" for name, part in value.items()) or "-"
    return _number(value) if isinstance(value, int | float) else "- (no --val)"
