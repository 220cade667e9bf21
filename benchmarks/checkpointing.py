"""Seconds and memory of the real train step without gradient checkpointing, of wide maps and of all, beside what is predicted.

    python -m benchmarks.checkpointing    # some minutes; writes results/checkpointing.json

On this machine's CPU each way is a process of its own; they take turns, a step each, so that what disturbs the machine disturbs
all. Seconds are told as a ratio to the step without checkpointing in the same turn. Memory is what steps add to the process's
peak, beside the predicted terms of the same tensors. Then the same networks' memory on torch's real CUDA allocator, which needs
what `benchmarks.compiled_memory` needs.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from contextlib import ExitStack
from functools import partial
from typing import Any, Final

import torch

from attfc_planner.accuracy.prior import midpoint
from attfc_planner.gpu.detect import find_gpu
from attfc_planner.gpu.profile import GpuProfile
from attfc_planner.memory.model import MemoryModel
from attfc_planner.speed.model import predict_speed
from attfc_train.backbones.kinds import Checkpointing
from attfc_train.cuda_environment import PLANNED_ALLOCATOR
from attfc_train.profile.profile import TrainProfile
from attfc_train.units import MIB
from benchmarks.allocator_cases import CARDS, AllocatorCase
from benchmarks.provenance import provenance, quantiles, save
from benchmarks.real_allocator import Bench
from benchmarks.step.served import ended, served
from benchmarks.step.sides import Case, ours

WAYS: Final[dict[str, Checkpointing]] = {"none": False, "wide": "wide", "all": True}
CASES: Final = (Case("r18", 112, 16, 6_000), Case("mbf", 112, 16, 6_000))
GPU_BATCH: Final = 64
RESULT: Final = "checkpointing.json"
_NO_BUDGET: Final = 2**60
_NOT_OF_STEPS: Final = ("context", "data", "foreign", "headroom")
"""Terms of a prediction that are there before the first step, or are no memory."""


def measured(case: Case, rounds: int, threads: int) -> dict[str, dict[str, Any]]:
    """Return way -> seconds, their ratio to those without checkpointing, and bytes that steps add.

    Raises:
        AssertionError: the ways do not compute the same.
    """
    with ExitStack() as stack:
        sides = {
            name: stack.enter_context(served(partial(ours, checkpointing=way), case, threads)) for name, way in WAYS.items()
        }
        losses = {name: side.recv() for name, side in sides.items()}
        assert len(set(losses.values())) == 1, f"other losses: {losses}"
        seconds: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(rounds):
            for name, side in sides.items():
                side.send(True)
                seconds[name].append(side.recv())
        memory = {name: ended(side) for name, side in sides.items()}
    plain = seconds["none"]
    return {
        name: {
            "seconds": quantiles(each),
            "times_the_seconds": quantiles([mine / its for mine, its in zip(each, plain, strict=True)]),
            "bytes": memory[name],
        }
        for name, each in seconds.items()
    }


def predicted(case: Case, cpu: GpuProfile) -> dict[str, dict[str, float]]:
    """Return way -> predicted ratio of seconds, and bytes that steps add on the CPU."""
    profiles = {name: case.profile(checkpointing=way) for name, way in WAYS.items()}
    model = MemoryModel(profiles["none"], cpu, _NO_BUDGET)
    rates = {name: _images_per_second(model, profile) for name, profile in profiles.items()}
    return {
        name: {
            "times_the_seconds": rates["none"] / rates[name],
            "bytes": model.exact(profile).without(*_NOT_OF_STEPS),
        }
        for name, profile in profiles.items()
    }


def _images_per_second(model: MemoryModel, profile: TrainProfile) -> float:
    return midpoint(predict_speed(profile, model.gpu, model.op_costs(profile)).images_per_second)


def on_real_allocator(bench: Bench, backbone: str) -> dict[str, dict[str, int]]:
    """Return way -> bytes allocated on a GPU's allocator, and as predicted.

    Raises:
        AssertionError: a run did not end well.
    """
    rows = {}
    for name, way in WAYS.items():
        profile = AllocatorCase(backbone, GPU_BATCH, "attfc 30 %", "bf16", way, 1).profile()
        real = bench.peak(profile, CARDS[-1])
        assert real.allocated_bytes is not None
        allocated = bench.predict(profile, CARDS[-1], PLANNED_ALLOCATOR)["allocated"]
        rows[name] = {"allocated_bytes": real.allocated_bytes, "predicted_bytes": allocated}
    return rows


def table(rows: Iterable[dict[str, Any]]) -> str:
    """Return a Markdown table: times the seconds, and MiB, each measured and predicted."""
    heads = (
        "network",
        "recomputed",
        "times the seconds (p20 to p80)",
        "predicted",
        "MiB on the CPU",
        "predicted",
        "MiB allocated on a GPU",
        "predicted",
    )
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    for row in rows:
        for way in WAYS:
            time = row["measured"][way]["times_the_seconds"]
            cells = (
                row["backbone"],
                way,
                f"{time['p50']:.2f} ({time['p20']:.2f} to {time['p80']:.2f})",
                f"{row['predicted'][way]['times_the_seconds']:.2f}",
                *(f"{row[side][way]['bytes'] / MIB:,.0f}" for side in ("measured", "predicted")),
                *(f"{row['gpu'][way][name] / MIB:,.0f}" for name in ("allocated_bytes", "predicted_bytes")),
            )
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=11, help="timed steps of each way")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    cpu, _ = find_gpu("cpu")
    bench = Bench()
    rows = []
    for case in CASES:
        row = {
            "case": case.label,
            "backbone": case.backbone,
            "measured": measured(case, options.rounds, options.threads),
            "predicted": predicted(case, cpu),
            "gpu": on_real_allocator(bench, case.backbone),
        }
        print(json.dumps(row), flush=True)
        rows.append(row)
    print(table(rows))
    document = {"rows": rows, "provenance": {**provenance(), "threads": options.threads}}
    print(save(RESULT, json.dumps(document, indent=1) + "\n"))


if __name__ == "__main__":
    main()
