"""Provenance of measurements, and the summary of a set of timings."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from attfc_train.files import write_text_atomically

RESULTS = Path(__file__).parent / "results"


def provenance(device: torch.device | None = None) -> dict[str, Any]:
    """Return machine, versions, date and commit."""
    gpu = torch.cuda.get_device_name(device) if device is not None and device.type == "cuda" else None
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": gpu,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "commit": _commit(),
    }


def quantiles(seconds: Sequence[float]) -> dict[str, float]:
    """Return p20, p50 and p80 of timings."""
    low, middle, high = np.quantile(np.asarray(seconds), [0.2, 0.5, 0.8])
    return {"p20": float(low), "p50": float(middle), "p80": float(high)}


def save(name: str, text: str) -> Path:
    """Write a result file atomically; return its path."""
    path = RESULTS / name
    write_text_atomically(path, text)
    return path


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _commit() -> str:
    result = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return result.stdout.strip() or "unknown"
