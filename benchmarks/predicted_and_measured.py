"""Memory and speed that the planner predicts for the device that is present, beside what real train steps take.

    python -m benchmarks.predicted_and_measured [--steps 6] [--ids 20000] [--cases N] [--output FILE]

The device is calibrated first (`attfc_planner.calibrate.calibrate`), and judged on sizes that it was not calibrated on; the
predictions without the calibration stand beside those with it. Every case is the shipped recipe of a backbone at one batch
size; its real steps run in a fresh process, on random images that lie in memory already (the loader has figures of its own).
Memory is compared without the terms that are not this process's or are meant to stay free (`foreign`, `headroom`), and on a GPU
also without the context, which the allocator does not count.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from itertools import product
from pathlib import Path
from typing import Any

import torch

from attfc_planner.calibrate.calibrate import calibrate, without_data
from attfc_planner.calibrate.cases import CASES as CALIBRATION_CASES
from attfc_planner.calibrate.cases import Case
from attfc_planner.calibrate.real_steps import run_real_steps
from attfc_planner.gpu.detect import find_gpu
from attfc_planner.gpu.profile import GpuProfile
from attfc_planner.memory.model import MemoryModel
from attfc_planner.plan.request import choose_precision
from attfc_planner.speed.efficiency import calibrated_efficiencies, efficiencies
from attfc_planner.speed.model import input_copy, on_device, step_seconds
from attfc_train.files import write_text_atomically
from attfc_train.profile.profile import TrainProfile
from benchmarks.provenance import RESULTS, provenance, quantiles

_CPU_SIZES = {"tiny": (64, 96, 192, 256), "mbf": (112, 6, 12, 16), "r18": (112, 3, 6, 8), "r50": (112, 4, 6, 8)}
"""Backbone -> image size and batch sizes."""
SIZES: dict[str, list[tuple[str, int, int, bool]]] = {
    "cpu": [(name, size, batch, False) for name, (size, *batches) in _CPU_SIZES.items() for batch in batches]
    + [("r18", 112, 8, True)],
    "cuda": [
        (name, 112, batch, saving) for name, batch, saving in product(("mbf", "r50", "r100"), (32, 96, 384), (False, True))
    ],
}
"""Backbone, image size, batch size, gradient checkpointing; none is a size of the calibration."""


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--ids", type=int, default=20_000)
    parser.add_argument("--cases", type=int, help="only so many sizes")
    parser.add_argument("--output", type=Path, help="result file")
    options = parser.parse_args()
    gpu, _ = find_gpu("auto")
    result = calibrate(gpu, tell=lambda text: print(text, flush=True))
    rows = []
    for backbone, image_size, batch_size, saving in SIZES[gpu.kind][: options.cases]:
        case = Case(backbone, image_size, batch_size, options.ids, steps=options.steps)
        assert (backbone, image_size, batch_size) not in sizes_of_the_calibration(gpu)
        row = judged(case, saving, result.before, result.gpu)
        rows.append(row)
        print(json.dumps(row), flush=True)
    document = {
        "ids": options.ids,
        "gpu": gpu.name,
        "summary": summary(rows),
        "calibration": result.calibration.model_dump(mode="json"),
        "calibration_runs": [
            {
                "run": run.case.label,
                "predicted_bytes": run.predicted_bytes,
                "peak_bytes": run.measured_bytes,
                "predicted_step_seconds": run.predicted_seconds,
                "step_seconds": run.measured_seconds,
                "left_out_error": error,
            }
            for run, error in zip(result.runs, result.fit.errors, strict=True)
        ],
        "rows": rows,
        "provenance": {**provenance(torch.device(gpu.kind)), "scheduling": scheduling()},
    }
    print(json.dumps(document["summary"], indent=2))
    path = options.output or RESULTS / f"predicted_and_measured_{gpu.kind}.json"
    write_text_atomically(path, json.dumps(document, indent=2) + "\n")
    print(path)


def judged(case: Case, saving: bool, before: GpuProfile, after: GpuProfile) -> dict[str, Any]:
    """Return one case: predicted by the device without and with its calibration, and measured."""
    plain = case.profile(before, choose_precision(None, before))
    profile = plain.model_copy(update={"model": plain.model.model_copy(update={"gradient_checkpointing": saving})})
    model = MemoryModel(profile, before, before.capacity_bytes)
    real = run_real_steps(profile, before.kind, steps=case.steps)
    return {
        "backbone": case.backbone,
        "image_size": case.image_size,
        "batch_size": case.batch_size,
        "gradient_checkpointing": saving,
        "references": case.num_references,
        "uncalibrated": predicted(profile, model, before),
        "calibrated": predicted(profile, model, after),
        "outcome": real.outcome,
        "peak_bytes": real.process_bytes if before.kind == "cpu" else real.reserved_bytes,
        "step_seconds": quantiles(real.seconds) if real.seconds else None,
    }


def predicted(profile: TrainProfile, model: MemoryModel, gpu: GpuProfile) -> dict[str, Any]:
    """Return peak and headroom, and the step's seconds: the middle and the interval."""
    memory = model.on(gpu).exact(profile)
    known = gpu.calibration
    table = calibrated_efficiencies(known.speed, known.speed_error) if known else efficiencies(gpu, profile.run.precision)
    costs = on_device(model.history(profile).costs[-1], profile, gpu, table)
    step, _ = step_seconds(costs, gpu, profile.run.precision, table)
    copy = input_copy(profile, gpu)  # beside no step, as each measured one is waited for
    return {
        "bytes": without_data(memory),
        "headroom_bytes": next(term.bytes for term in memory.terms if term.name == "headroom"),
        "step_seconds": step.middle + copy.middle,
        "step_seconds_interval": [step.fast + copy.fast, step.slow + copy.slow],
    }


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return errors of step time and memory over all cases that ran, without and with the calibration."""
    ran = [row for row in rows if row["outcome"] == "ran"]
    result: dict[str, Any] = {"cases": len(ran)}
    for kind in ("uncalibrated", "calibrated"):
        pairs = [(row[kind], row["step_seconds"]["p50"], row["peak_bytes"]) for row in ran]
        time = [made["step_seconds"] / seconds - 1 for made, seconds, _ in pairs]
        memory = [made["bytes"] / peak - 1 for made, _, peak in pairs]
        result[kind] = {
            "step_time_median_error": statistics.median(map(abs, time)),
            "step_time_largest_error": max(time, key=abs),
            "step_times_inside_interval": sum(
                made["step_seconds_interval"][0] <= seconds <= made["step_seconds_interval"][1] for made, seconds, _ in pairs
            ),
            "memory_median_error": statistics.median(map(abs, memory)),
            "memory_errors": [min(memory), max(memory)],
            "under_with_headroom": sum(made["bytes"] + made["headroom_bytes"] < peak for made, _, peak in pairs),
        }
    return result


def sizes_of_the_calibration(gpu: GpuProfile) -> set[tuple[str, int, int]]:
    return {(case.backbone, case.image_size, case.batch_size) for case in CALIBRATION_CASES[gpu.kind]}


def scheduling() -> str:
    """Return whether the measuring processes went before all others, in words."""
    if os.sched_getscheduler(0) == os.SCHED_FIFO:
        return f"real-time (chrt -f {os.sched_getparam(0).sched_priority}): other work on the machine had to wait"
    return "ordinary: other work on the machine may have slowed the measurements"


if __name__ == "__main__":
    main()
