"""Memory of steps with compiled encoders beside the same steps as written, on torch's real allocator.

    python -m benchmarks.compiled_memory    # some minutes of compiling; writes results/compiled_memory.json

It needs a CUDA build of torch and the stand-in's libraries (`tests/standin`), as `benchmarks.real_allocator` does, whose runs
and workspaces these are. Peaks are those after the first step, in which kernels are tried on buffers of their own.
"""

from __future__ import annotations

import argparse
import json
from typing import Any, Final

from attfc_train.cuda_environment import PLANNED_ALLOCATOR
from attfc_train.units import MIB
from benchmarks.allocator_cases import CARDS, AllocatorCase
from benchmarks.provenance import provenance, save
from benchmarks.real_allocator import Bench

CASES: Final = (
    AllocatorCase("tiny", 256, "attfc 30 %", "bf16", checkpointing=True, accumulation=1),
    AllocatorCase("mbf", 64, "attfc 30 %", "bf16", checkpointing=False, accumulation=1),
    AllocatorCase("r18", 64, "attfc 30 %", "bf16", checkpointing=False, accumulation=1),
    AllocatorCase("r50", 32, "attfc 30 %", "bf16", checkpointing=False, accumulation=1),
)
RESULT: Final = "compiled_memory.json"


def measured(bench: Bench, case: AllocatorCase) -> dict[str, Any]:
    """Return the bytes of one case, as predicted, as written and compiled.

    Raises:
        AssertionError: a run did not end well.
    """
    written = case.profile()
    compiled = written.model_copy(update={"run": written.run.model_copy(update={"compile": True})})
    row: dict[str, Any] = {"case": case.name}
    for name, profile in (("written", written), ("compiled", compiled)):
        real = bench.peak(profile, CARDS[-1])
        row[name] = {"allocated_bytes": real.allocated_bytes, "reserved_bytes": real.reserved_bytes}
    return {**row, "predicted_bytes": bench.predict(written, CARDS[-1], PLANNED_ALLOCATOR)["allocated"]}


def table(rows: list[dict[str, Any]]) -> str:
    """Return a Markdown table, in MiB."""
    lines = ["| setting | predicted | as written | compiled |", "|---|---|---|---|"]
    for row in rows:
        peaks = (row["predicted_bytes"], row["written"]["allocated_bytes"], row["compiled"]["allocated_bytes"])
        lines.append(f"| {row['case']} | {' | '.join(f'{peak / MIB:,.0f}' for peak in peaks)} |")
    return "\n".join(lines)


def main() -> None:
    """Run the benchmark from the command line."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    bench = Bench()
    rows = [measured(bench, case) for case in CASES]
    print(table(rows))
    print(save(RESULT, json.dumps({"provenance": provenance(), "rows": rows}, indent=1) + "\n"))


if __name__ == "__main__":
    main()
