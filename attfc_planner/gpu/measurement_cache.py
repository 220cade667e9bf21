"""Measurements of the device that is here, on disk: the probes' rates, and the calibration that is about these very rates.

A file that is old, damaged (`read_kept`) or of other surroundings counts as missing, and everything in it is measured anew.
"""

from __future__ import annotations

import hashlib
import math
import os
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Literal

from attfc_planner.gpu.calibration import Calibration, left_aside
from attfc_planner.gpu.profile import TENSOR_FIELD
from attfc_planner.gpu.versions import cudnn_version, installed_version
from attfc_train.cache_folder import cache_folder, read_kept, write_kept
from attfc_train.cuda_environment import allocator_setting, use_planned_allocator
from attfc_train.document import Precision

EXPANDABLE = "expandable_segments"
"""Among the rates of a GPU: 1 where torch's allocator has expandable segments under the setting in force, else 0."""
MAX_AGE_DAYS = 30
"""Clocks, cooling and drivers change: older measurements are made again."""


@dataclass(frozen=True)
class Measured:
    """Measurements of a device: the probes' rates, and a calibration, which is about these very rates and ends with them."""

    rates: dict[str, float]
    """By `GpuProfile` field name; none where the probe cannot run."""
    date: str
    """The day on which the rates were probed (ISO 8601)."""
    calibration: Calibration | None = None
    left_aside: str | None = None
    """A line about a calibration that is there and does not count (`attfc_planner.gpu.calibration.left_aside`)."""

    @property
    def source(self) -> str:
        """Return the entry for `GpuProfile.sources`."""
        return f"probes on this machine, {self.date}"


def cache_path(kind: Literal["cuda", "cpu"], device_key: str, precisions: tuple[Precision, ...]) -> Path:
    """Return the file of a device's measurements: one for it, its driver, attfc, torch, cuDNN, allocator and threads."""
    environment = dict(os.environ)
    use_planned_allocator(environment)
    threads = os.environ.get("OMP_NUM_THREADS") or len(os.sched_getaffinity(0))
    allocator = allocator_setting(environment) if kind == "cuda" else ""
    versions = f"{installed_version('attfc')}|{installed_version('torch')}|{cudnn_version()}"
    key = f"{kind}|{device_key}|{versions}|{allocator}|{','.join(precisions)}|{threads}"
    return cache_folder() / f"gpu-{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"


def write_cached(path: Path, measured: Measured) -> None:
    """Replace what `path` holds.

    Raises:
        StorageError: the folder cannot be written.
    """
    document: dict[str, Any] = {"rates": measured.rates, "date": measured.date}
    if measured.calibration is not None:
        document["calibration"] = measured.calibration.model_dump(mode="json")
    write_kept(path, document)


def read_cached(path: Path, kind: Literal["cuda", "cpu"], precisions: tuple[Precision, ...]) -> Measured | None:
    """Return what `path` holds, if it is complete and not older than `MAX_AGE_DAYS`; a damaged calibration counts as none."""
    needed = {*(TENSOR_FIELD[precision] for precision in precisions), "memory_bandwidth_bytes_per_second"}
    if kind == "cuda":
        needed |= {"pcie_bytes_per_second", "capacity_bytes", EXPANDABLE}
    return read_kept(path, lambda document: _measured(document, needed))


def _measured(document: Any, needed: set[str]) -> Measured | None:
    rates = {str(name): float(rate) for name, rate in document["rates"].items()}
    age = datetime.now(UTC).date() - date.fromisoformat(document["date"])
    sound = needed <= set(rates) and all(0 < rate < math.inf for name, rate in rates.items() if name != EXPANDABLE)
    if not sound or abs(age.days) > MAX_AGE_DAYS:
        return None
    stored = document.get("calibration")
    return Measured(rates, document["date"], _read_calibration(stored), left_aside(stored))


def _read_calibration(node: object) -> Calibration | None:
    try:
        return None if node is None else Calibration.model_validate(node)
    except ValueError:
        return None
