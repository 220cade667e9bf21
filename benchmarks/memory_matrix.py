"""The proof of the memory model: what it predicts beside what real train steps take, over a matrix of cases.

    python -m benchmarks.memory_matrix --minutes 9   # on a GPU; call it again until it says that nothing is left
    python -m benchmarks.memory_matrix --cpu         # small cases against real allocations on the CPU
    python -m benchmarks.memory_matrix --report      # table and plot of what is on file

On a GPU every case runs freely, then with no more free than is predicted, where it must live, and on cards just above and
just below the prediction, which a ballast in another process plays (`benchmarks.memory_gpu`). On a CPU the fake trace is held
against the allocations of the same steps run for real, and the prediction against the process's peak (`benchmarks.memory_cpu`).

Every case is a line of ``results/memory_matrix.jsonl``; a case whose line is there, for this device and this very code, is
not measured again. A calibration of the card is left out unless ``--calibrated``, so that the figures hold for a card that
nobody has measured.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from attfc_planner.gpu.detect import find_gpu
from attfc_planner.gpu.profile import GpuProfile
from benchmarks.memory_cases import MATRIX, Case
from benchmarks.memory_lines import append_line, key_of, read_lines
from benchmarks.provenance import RESULTS, provenance

LINES = RESULTS / "memory_matrix.jsonl"
FIRST_CASE_SECONDS = 60.0
"""Time for a case when none has been measured in this call."""
SLACK = 1.3
"""A case may take so many times as long as the longest."""
MOST_FAILURES = 3
"""Failures in a row by another error than memory's: then something else is wrong."""

Clock = Callable[[], float]


class Measurer(Protocol):
    """The measurer of one kind of device."""

    gpu: GpuProfile

    def prepare(self, cases: list[Case]) -> None:
        """Make at once what many cases need."""
        ...

    def measure(self, case: Case, seconds_left: float) -> dict[str, Any]:
        """Return the case's part of a line."""
        ...

    def close(self) -> None:
        """End: nothing more will be measured."""
        ...


def pending(cases: list[Case], gpu: GpuProfile, path: Path) -> dict[str, Case]:
    """Return the cases that are not on file, or failed by another error than memory's, by key."""
    done = {line["key"] for line in read_lines(path) if line["measured"]["outcome"] != "failed"}
    keys = {key_of(case.profile(gpu), gpu): case for case in cases}
    return {key: case for key, case in keys.items() if key not in done}


def run(cases: list[Case], measurer: Measurer, path: Path, seconds: float, clock: Clock = time.monotonic) -> int:
    """Measure pending cases while the next one still fits into `seconds`.

    Returns:
        How many are left.
    """
    begin = clock()
    longest = FIRST_CASE_SECONDS / SLACK
    failures = 0
    waiting = pending(cases, measurer.gpu, path)
    measurer.prepare(list(waiting.values()))
    for number, (key, case) in enumerate(list(waiting.items())):
        left = seconds - (clock() - begin)
        started = clock()
        if left < SLACK * longest:
            break
        fields = measurer.measure(case, left)
        took = clock() - started
        if took >= left:
            break  # cut off by the end of this call, which says nothing about the case
        longest = took if number == 0 else max(longest, took)
        append_line(path, _line(key, case, measurer.gpu, fields, took))
        print(f"{took:5.1f} s  {case.name}: {fields['measured']['outcome']}", flush=True)
        failures = failures + 1 if fields["measured"]["outcome"] == "failed" else 0
        if failures == MOST_FAILURES:
            raise SystemExit(f"{failures} cases failed in a row; the last: {fields['measured'].get('reason')}")
        del waiting[key]
    return len(waiting)


def _line(key: str, case: Case, gpu: GpuProfile, fields: dict[str, Any], seconds: float) -> dict[str, Any]:
    return {
        "key": key,
        "kind": gpu.kind,
        "device": gpu.name,
        "calibrated": gpu.calibration is not None,
        "name": case.name,
        "case": vars(case),
        **fields,
        "seconds": round(seconds, 1),
        "provenance": {**provenance(), "gpu": gpu.name if gpu.kind == "cuda" else None},  # without starting CUDA here
    }


def measurer_for(cpu: bool, calibrated: bool) -> Measurer:
    """Return the measurer of this machine's GPU, or of its CPU.

    Raises:
        SystemExit: there is no GPU.
    """
    gpu, _ = find_gpu("cpu" if cpu else "auto")
    if not cpu and gpu.kind != "cuda":
        raise SystemExit("benchmarks.memory_matrix needs a CUDA device; --cpu measures on the CPU")
    if calibrated and gpu.calibration is None:
        raise SystemExit("--calibrated needs a calibration of this device: run attfc-plan calibrate first")
    gpu = gpu if calibrated else gpu.model_copy(update={"measured": None, "calibration": None})
    if cpu:
        from benchmarks.memory_cpu import CpuMatrix

        return CpuMatrix(gpu)
    from benchmarks.memory_gpu import GpuMatrix

    return GpuMatrix(gpu)


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cpu", action="store_true", help="the small cases, on the CPU")
    parser.add_argument("--report", action="store_true", help="only table and plot of what is on file")
    parser.add_argument("--minutes", type=float, default=9.0, help="stop before a case would end later than this")
    parser.add_argument("--calibrated", action="store_true", help="use what a calibration of this card has found")
    parser.add_argument("--lines", type=Path, default=LINES)
    options = parser.parse_args()
    started = time.monotonic()  # a card that is new is probed first
    if not options.report:
        measurer = measurer_for(options.cpu, options.calibrated)
        try:
            seconds = 60 * options.minutes - (time.monotonic() - started)
            left = run(MATRIX[measurer.gpu.kind], measurer, options.lines, seconds)
        finally:
            measurer.close()
        print(f"{left} cases are left; call again" if left else "nothing is left")
    from benchmarks.memory_report import report

    report(read_lines(options.lines), options.lines.parent)


if __name__ == "__main__":
    main()
