"""The program that `attfc_planner.calibrate.real_steps` starts: a few train steps of the profile on stdin, measured.

It prints times and bytes as JSON. Exit code 10: the steps do not fit into the device's memory.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any

import torch
from torch import nn

from attfc_planner.gpu.fingerprint import foreign_bytes
from attfc_train.data.batch import Batch
from attfc_train.errors import DeviceMemoryError
from attfc_train.evaluate.embed import embed_batches
from attfc_train.exits import run_and_exit
from attfc_train.export.teacher import open_teacher
from attfc_train.optim.precision import prepare_device
from attfc_train.profile.profile import TrainProfile
from attfc_train.run.device_memory import forget_peak, memory_use
from attfc_train.run.out_of_memory import observed
from attfc_train.run.segments import claim_segments
from attfc_train.run.teacher import opened_teacher
from attfc_train.step.build import build
from attfc_train.step.compiled import as_written, compile_encoders
from attfc_train.step.state import TrainState
from attfc_train.step.step import train_step
from attfc_train.units import Bytes

UNTIMED = 2
"""First steps: kernels are chosen, and momentum is born."""


def measure(profile: TrainProfile, device: torch.device, *, steps: int, evaluate: bool) -> dict[str, Any]:
    """Train, evaluate and return the fields of `attfc_planner.calibrate.real_steps.RealSteps`.

    Args:
        steps: timed ones, after `UNTIMED` others.
    """
    held_before = foreign_bytes("cuda") if device.type == "cuda" else None  # by the driver: there is no context yet
    base = memory_use(device).current if device.type == "cpu" else 0
    claim_segments(device)
    prepare_device(device, profile.run.precision)
    state = build(profile, device, teacher=_teacher(profile))
    compile_encoders(state)
    batch = Batch.random(profile, device)
    seconds = []
    for step in range(steps + UNTIMED):
        if step == 1:
            forget_peak(device)  # as the loop does: what choosing kernels took is given back
        begin = time.perf_counter()
        train_step(state, batch).loss.item()
        seconds.append(time.perf_counter() - begin)
    if evaluate:
        _evaluate(state, batch)
        train_step(state, batch)  # as after every evaluation but the last
    return {"seconds": seconds[UNTIMED:], **_memory(device, base, held_before)}


def _teacher(profile: TrainProfile) -> nn.Module | None:
    """Return the network of a teacher that has a file, as a training opens it; None: `build` makes one, or there is none."""
    if profile.teacher.path is None:
        return None
    teacher = opened_teacher(profile, open_teacher)
    return teacher.network if teacher else None


def _evaluate(state: TrainState, batch: Batch) -> None:
    device = state.device
    part = batch.query[: state.profile.optim.micro_batch_size]  # as many as the loop evaluates at a time
    images = (part.to(device, non_blocking=True) for _ in range(2))
    with as_written(state):
        sums, _ = embed_batches(state.exported_encoder, images, device, state.profile.run.precision)
    sums.sum().item()


def _memory(device: torch.device, base: Bytes, held_before: Bytes | None) -> dict[str, Bytes | None]:
    use = memory_use(device)
    if device.type == "cpu":
        return {"context_bytes": base, "process_bytes": use.peak}
    # context = what the driver counts now, less what others held before, less what torch's allocator holds.
    held_now = foreign_bytes("cuda")
    context = None
    if held_before is not None and held_now is not None:
        context = max(0, held_now - held_before - torch.cuda.memory_reserved(device))
    return {
        "allocated_bytes": use.peak_in_tensors,
        "reserved_bytes": use.peak,
        "context_bytes": context,
        "process_bytes": None if context is None else use.peak + context,
    }


def main() -> None:
    """Read a profile from stdin, measure it and print the result."""
    parser = argparse.ArgumentParser(prog="python -m attfc_planner.calibrate.step_probe", description=__doc__)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cpu")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--no-evaluation", action="store_true")
    options = parser.parse_args()
    profile = TrainProfile.model_validate_json(sys.stdin.read())
    device = torch.device(options.device)
    try:
        measured = measure(profile, device, steps=options.steps, evaluate=not options.no_evaluation)
    except RuntimeError as error:
        failure = observed(error, device)
        where = f"{failure.message} in phase '{failure.phase}'" if failure.phase else failure.message
        raise DeviceMemoryError("the steps must fit into the device's memory", where, "Take less.") from error
    sys.stdout.write(json.dumps(measured) + "\n")


if __name__ == "__main__":
    run_and_exit(main)
