"""The record of the memory matrix: one JSON line a case, so that a stopped matrix goes on where it was."""

from __future__ import annotations

import hashlib
import json
import os
from functools import cache
from pathlib import Path
from typing import Any

import torch

import attfc_planner
import attfc_train
from attfc_planner.gpu.profile import GpuProfile
from attfc_train.profile.profile import TrainProfile

Line = dict[str, Any]

_PLANNER_SOURCES = ("trace/*", "memory/*", "calibrate/real_steps", "calibrate/step_probe", "gpu/fingerprint")
"""Modules that change what is predicted or how it is measured."""


def key_of(profile: TrainProfile, gpu: GpuProfile) -> str:
    """Return a digest of all that a case's line depends on: profile, device, calibration, torch, and the measured code."""
    calibrated = gpu.calibration.memory if gpu.calibration else None
    parts = [profile.model_dump(mode="json"), gpu.name, gpu.kind, calibrated, torch.__version__, _code_version()]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:24]


@cache
def _code_version() -> str:
    digest = hashlib.sha256()
    planner = Path(attfc_planner.__file__).parent
    for path in sorted(Path(attfc_train.__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    for name in _PLANNER_SOURCES:
        for path in sorted(planner.glob(f"{name}.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()


def read_lines(path: Path) -> list[Line]:
    """Return all whole lines; the last may have been cut off by a kill."""
    lines = []
    for text in path.read_text().splitlines() if path.exists() else []:
        try:
            lines.append(json.loads(text))
        except ValueError:
            continue
    return lines


def append_line(path: Path, line: Line) -> None:
    """Append a line, flushed to the disk: it is there when the machine is gone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cut_off = path.exists() and path.stat().st_size and not path.read_bytes().endswith(b"\n")
    with path.open("a") as file:
        file.write(("\n" if cut_off else "") + json.dumps(line) + "\n")
        file.flush()
        os.fsync(file.fileno())


def newest(lines: list[Line]) -> list[Line]:
    """Return the last line of every case on every device."""
    return list({(line["kind"], line["device"], line["name"], line["calibrated"]): line for line in lines}.values())
