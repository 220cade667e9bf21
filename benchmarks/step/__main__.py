"""The train step beside the released code's way of it: images a second and memory, in one run.

    python -m benchmarks.step            # tiny, MobileFaceNet and r18 with 60,000 slots of 512 dimensions
    python -m benchmarks.step --quick    # the first of them, a few steps

All ways make the published method's step in fp32 with the same weights, centers and images: the released code's, and ours as
written, channels-last (``model.channels_last``), with compiled encoders (``run.compile``), and with both. Their first losses
must agree before anything is timed. Each is a process of its own; they take turns, a step each, so that what disturbs the
machine disturbs all. Memory is what steps add to the process's peak once its libraries are loaded: weights, container, images,
activations, and what the compiler takes.

Then the phases of our step are timed beside their FLOPs, their bytes and the machine's ceilings, as
``attfc-train profile-step`` does.
"""

from __future__ import annotations

import argparse
import json
from contextlib import ExitStack
from itertools import cycle
from pathlib import Path
from typing import Any, Final

import torch

from attfc_train.commands.profile_step_screen import show_report
from attfc_train.screen import Screen
from attfc_train.timing.ceilings import measured_ceilings
from attfc_train.timing.counting import counted_step
from attfc_train.timing.profiled import step_report
from attfc_train.timing.report import StepReport
from attfc_train.timing.steps import timed_steps, traced_steps
from benchmarks.provenance import provenance, quantiles, save
from benchmarks.step.served import ended, served
from benchmarks.step.sides import RELEASED, SIDES, Case, our_run
from benchmarks.step.table import table

CASES: Final = (Case("tiny", 64, 128, 60_000), Case("mbf", 112, 16, 60_000), Case("r18", 112, 16, 60_000))
LARGEST_DIFFERENCE: Final = 1e-3
"""Relative, between the first losses: fp32 sums of 60,000 terms in another order, at scale 64."""
_QUICK: Final = 3
_CPU: Final = torch.device("cpu")


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=9, help="timed steps of each way")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--quick", action="store_true", help=f"one case, {_QUICK} steps, no result file")
    parser.add_argument("--trace", type=Path, help="Chrome trace of our step, of the last case")
    options = parser.parse_args()
    steps = _QUICK if options.quick else options.steps
    rows = []
    for case in CASES[:1] if options.quick else CASES:
        row = compared(case, steps, options.threads)
        print(json.dumps(row, indent=2), flush=True)
        report = profiled(case, steps, options.threads, options.trace)
        show_report(report, Screen())
        rows.append({**row, "phases": report.model_dump(mode="json")})
    if not options.quick:
        print(table(rows))
        document = {"rows": rows, "provenance": {**provenance(), "threads": options.threads}}
        print(save("step_cpu.json", json.dumps(document, indent=2) + "\n"))


def compared(case: Case, steps: int, threads: int) -> dict[str, Any]:
    """Return times, memory and ratios of one case.

    Raises:
        AssertionError: the ways do not compute the same.
    """
    with ExitStack() as stack:
        sides = {name: stack.enter_context(served(way, case, threads)) for name, way in SIDES.items()}
        first = {name: side.recv() for name, side in sides.items()}
        differences = [abs(loss / first[RELEASED] - 1) for loss in first.values()]
        assert max(differences) < LARGEST_DIFFERENCE, f"other losses: {first}"
        seconds: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(steps):
            for name, side in sides.items():
                side.send(True)
                seconds[name].append(side.recv())
        memory = {name: ended(side) for name, side in sides.items()}
    own = [name for name in sides if name != RELEASED]
    ratios = {name: [theirs / each for theirs, each in zip(seconds[RELEASED], seconds[name], strict=True)] for name in own}
    return {
        "case": case.label,
        "first_loss": first,
        "seconds": {name: quantiles(each) for name, each in seconds.items()},
        "images_per_second": {name: case.batch_size / quantiles(each)["p50"] for name, each in seconds.items()},
        "times_as_fast": {name: quantiles(each) for name, each in ratios.items()},
        "memory_bytes": memory,
        "share_of_memory": {name: memory[name] / memory[RELEASED] for name in own},
    }


def profiled(case: Case, steps: int, threads: int, trace: Path | None = None) -> StepReport:
    """Return where the time of our step goes, measured in this process.

    Args:
        trace: receives a Chrome trace.
    """
    torch.set_num_threads(threads)
    costs = counted_step(case.profile())
    asked = case.profile().run.precision, {cost.kind for cost in costs if cost.flops}
    ceilings = measured_ceilings(_CPU, *asked)
    state, batches = our_run(case)
    turns = cycle(batches)
    times = timed_steps(state, turns, steps)
    if trace is not None:
        traced_steps(state, turns, trace)
    ceilings = ceilings.or_better(measured_ceilings(_CPU, *asked))
    return step_report(case.profile(), _CPU, steps, times, costs, ceilings)


if __name__ == "__main__":
    main()
