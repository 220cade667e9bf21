"""Memory of steps with channels-last encoders beside what is planned for them, on torch's real allocator.

    python -m benchmarks.channels_last_memory    # half a minute; writes results/channels_last_memory.json

It needs what `benchmarks.compiled_memory` needs.
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
    AllocatorCase("mbf", 64, "attfc 30 %", "bf16", checkpointing=True, accumulation=1),
    AllocatorCase("mbf", 64, "attfc 30 %", "fp16", checkpointing=False, accumulation=2),
    AllocatorCase("r18", 64, "attfc 30 %", "fp16", checkpointing=False, accumulation=1),
    AllocatorCase("r50", 64, "attfc 30 %", "bf16", checkpointing=False, accumulation=1),
    AllocatorCase("vargfacenet", 64, "attfc 30 %", "bf16", checkpointing=False, accumulation=1),
    AllocatorCase("mixfacenet_s", 64, "attfc 30 %", "bf16", checkpointing=False, accumulation=1),
    AllocatorCase("shufflemixfacenet_s", 64, "attfc 30 %", "bf16", checkpointing=True, accumulation=1),
)
RESULT: Final = "channels_last_memory.json"


def measured(bench: Bench, case: AllocatorCase) -> dict[str, Any]:
    """Return the bytes of one case, as predicted and as allocated.

    Raises:
        AssertionError: the run did not end well.
    """
    profile = case.profile()
    last = profile.model_copy(update={"model": profile.model.model_copy(update={"channels_last": True})})
    real = bench.peak(last, CARDS[-1])
    predicted = bench.predict(last, CARDS[-1], PLANNED_ALLOCATOR)["allocated"]
    return {"case": case.name, "allocated_bytes": real.allocated_bytes, "predicted_bytes": predicted}


def table(rows: list[dict[str, Any]]) -> str:
    """Return a Markdown table, in MiB."""
    lines = ["| setting, channels last | predicted | allocated |", "|---|---|---|"]
    for row in rows:
        lines.append(f"| {row['case']} | {row['predicted_bytes'] / MIB:,.0f} | {row['allocated_bytes'] / MIB:,.0f} |")
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
