"""Memory and speed that the planner predicts for the device that is present, beside what real train steps take.

    python -m benchmarks.predicted_and_measured [--steps 6] [--ids 2059906]

Every case is the shipped recipe of a backbone at one batch size; its real steps run in a fresh process, on random images that
lie in memory already (the loader has figures of its own). Memory is compared without the terms that are not this process's or
are meant to stay free (`foreign`, `headroom`), and on a GPU also without the context, which the allocator does not count.
"""

from __future__ import annotations

import argparse
import json
from itertools import product

import torch

from attfc_planner.gpu.detect import find_gpu
from attfc_planner.memory import MemoryModel
from attfc_planner.plan import PlanRequest, base_profile
from attfc_planner.real_steps import run_real_steps
from attfc_planner.search.space import Setting
from attfc_planner.speed import predict_speed
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


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--ids", type=int, default=20_000)
    options = parser.parse_args()
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
        real = run_real_steps(profile, gpu.kind, steps=options.steps)
        row = {
            "backbone": backbone,
            "image_size": image_size,
            "batch_size": batch_size,
            "gradient_checkpointing": checkpointing,
            "references": references,
            "predicted_bytes": sum(size for name, size in terms.items() if name not in left_out),
            "predicted_images_per_second": [rate.low, rate.high],
            "outcome": real.outcome,
            "peak_bytes": real.process_bytes if gpu.kind == "cpu" else real.reserved_bytes,
            "step_seconds": quantiles(real.seconds) if real.seconds else None,
        }
        rows.append(row)
        print(json.dumps(row), flush=True)
    result = {"ids": options.ids, "rows": rows, "gpu": gpu.name, "provenance": provenance(torch.device(gpu.kind))}
    print(save(f"predicted_and_measured_{gpu.kind}.json", json.dumps(result, indent=2) + "\n"))


if __name__ == "__main__":
    main()
