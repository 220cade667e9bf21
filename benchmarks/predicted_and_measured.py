"""Memory and speed that the planner predicts for the device that is present, beside what real train steps take.

    python -m benchmarks.predicted_and_measured [--steps 6] [--ids 2059906]

Every case is the shipped recipe of a backbone at one batch size; its real steps run in a fresh process, on random images that
lie in memory already (the loader has figures of its own). Memory is compared without the terms that are not this process's or
are meant to stay free (`foreign`, `headroom`), and on a GPU also without the context, which the allocator does not count.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from itertools import product
from typing import Any

import torch

from attfc_planner.gpu.detect import find_gpu
from attfc_planner.memory import MemoryModel
from attfc_planner.plan import PlanRequest, base_profile
from attfc_planner.search.space import Setting
from attfc_planner.speed import predict_speed
from attfc_train.build import build
from attfc_train.data.batch import Batch
from attfc_train.memory_use import forget_peak, memory_use
from attfc_train.precision import prepare_device
from attfc_train.profile import TrainProfile
from attfc_train.step import train_step
from benchmarks.provenance import provenance, quantiles, save

CASES: dict[str, list[tuple[str, int, int, bool, int]]] = {
    "cpu": [("tiny", 64, batch, False, refs) for batch, refs in ((32, 1), (128, 0), (128, 1), (256, 1))]
    + [("mbf", 112, 16, False, 1), ("r18", 112, 8, False, 1), ("r18", 112, 8, True, 1)],
    "cuda": [
        (name, 112, batch, saving, 1) for name, batch, saving in product(("mbf", "r50", "r100"), (32, 128, 384), (False, True))
    ],
}
"""backbone, image size, batch size, gradient checkpointing, references."""

NOT_THIS_PROCESS = {"foreign", "headroom"}


def measure(profile: TrainProfile, device: torch.device, steps: int) -> dict[str, Any]:
    """Peak bytes and seconds of real steps; the first two are not timed."""
    prepare_device(device, profile.run.precision)
    state, seconds = build(profile, device), []
    batch = Batch.example(profile, device)
    batch.query.random_(0, 256)
    batch.references.random_(0, 256)
    for step in range(steps + 2):
        if step == 1:
            forget_peak(device)
        begin = time.perf_counter()
        train_step(state, batch).loss.item()
        seconds.append(time.perf_counter() - begin)
    return {"peak_bytes": memory_use(device).peak, "step_seconds": quantiles(seconds[2:])}


def in_a_fresh_process(profile: TrainProfile, device: torch.device, steps: int) -> dict[str, Any]:
    """`measure` with nothing else in the process; an error is part of the result."""
    command = [sys.executable, "-m", "benchmarks.predicted_and_measured", "--child", str(device), "--steps", str(steps)]
    environment = {"PYTORCH_ALLOC_CONF": "expandable_segments:True", **os.environ}
    child = subprocess.run(
        command, input=profile.model_dump_json(), capture_output=True, text=True, check=False, env=environment
    )
    if child.returncode:
        return {"error": child.stderr.strip().splitlines()[-1][:200] if child.stderr.strip() else f"exit {child.returncode}"}
    result: dict[str, Any] = json.loads(child.stdout.splitlines()[-1])
    return result


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--ids", type=int, default=20_000)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        profile = TrainProfile.model_validate_json(sys.stdin.read())
        print(json.dumps(measure(profile, torch.device(options.child), options.steps)))
        return
    gpu, _ = find_gpu("auto")
    rows = []
    for backbone, image_size, batch_size, checkpointing, references in CASES[gpu.kind]:
        request = PlanRequest(num_ids=options.ids, backbone=backbone, image_size=image_size, epochs=1)
        setting = Setting(0.3, 3.3, batch_size, references, checkpointing)
        profile = setting.applied_to(base_profile(request, gpu)).resolve(options.ids, options.ids * 10)
        model = MemoryModel(profile, gpu, gpu.capacity_bytes)
        terms = {term.name: term.bytes for term in model.exact(profile).terms}
        left_out = NOT_THIS_PROCESS | ({"context"} if gpu.kind == "cuda" else {"data"})
        rate = predict_speed(profile, gpu, model.op_costs(profile)).images_per_second
        row = {
            "backbone": backbone,
            "image_size": image_size,
            "batch_size": batch_size,
            "gradient_checkpointing": checkpointing,
            "references": references,
            "predicted_bytes": sum(size for name, size in terms.items() if name not in left_out),
            "predicted_images_per_second": [rate.low, rate.high],
            **in_a_fresh_process(profile, torch.device(gpu.kind), options.steps),
        }
        rows.append(row)
        print(json.dumps(row), flush=True)
    result = {"ids": options.ids, "rows": rows, "gpu": gpu.name, "provenance": provenance(torch.device(gpu.kind))}
    print(save(f"predicted_and_measured_{gpu.kind}.json", json.dumps(result, indent=2) + "\n"))


if __name__ == "__main__":
    main()
