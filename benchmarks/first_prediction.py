"""Seconds to the first memory prediction: fresh processes, empty trace caches, an r50 on a card that is not here.

    python -m benchmarks.first_prediction --repeats 7

Seconds on the wall end with the prediction; those of the CPU are the process's with all that it started, its end included.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from typing import Any

from benchmarks.provenance import provenance, quantiles, save

PROMISED_SECONDS = 5.0
"""Most seconds of one cold prediction on two cores."""
_CHILD = """
import time
begin = time.perf_counter()
from attfc_planner.gpu.catalog import get_card
from attfc_planner.memory.model import MemoryModel
from attfc_planner.plan.request import PlanRequest
from attfc_planner.plan.problem import base_profile
gpu = get_card("rtx-4090")
base = base_profile(PlanRequest(num_ids=2_059_906), gpu)
profile = base.model_copy(update={"optim": base.optim.model_copy(update={"batch_size": 128})}).resolve(2_059_906)
prediction = MemoryModel(profile, gpu, gpu.capacity_bytes).exact(profile)
print(time.perf_counter() - begin, prediction.total_bytes)
"""


def main() -> None:
    """Measure, and write ``first_prediction.json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    runs = [_run() for _ in range(parser.parse_args().repeats)]
    result: dict[str, Any] = {
        "provenance": provenance(),
        "profile": "r50, 2,059,906 ids, B = 128, rtx-4090",
        "repeats": len(runs),
        "promised_seconds": PROMISED_SECONDS,
        "wall_seconds": quantiles([run["wall_seconds"] for run in runs]),
        "cpu_seconds": quantiles([run["cpu_seconds"] for run in runs]),
        "total_bytes": sorted({run["total_bytes"] for run in runs}),
    }
    save("first_prediction.json", json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


def _run() -> dict[str, Any]:
    """Make one prediction in a new interpreter with a cache folder of its own."""
    before = _children_cpu_seconds()
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "ATTFC_CACHE_DIR": folder}
        done = subprocess.run([sys.executable, "-c", _CHILD], env=environment, capture_output=True, text=True, check=True)
    seconds, total_bytes = done.stdout.split()
    cpu_seconds = _children_cpu_seconds() - before
    return {"wall_seconds": float(seconds), "cpu_seconds": cpu_seconds, "total_bytes": int(total_bytes)}


def _children_cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
