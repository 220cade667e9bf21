"""The room that 100 million identities take on a card of 80 GB, on torch's real CUDA allocator.

    python -m benchmarks.capacity_standin    # a minute; writes results/capacity_standin.json

It needs what `benchmarks.compiled_memory` needs. The steps are the real ones, with kernels that do nothing: figures are of
memory alone. No checkpoint is written, since the host's memory would have to hold the centers too.
"""

from __future__ import annotations

import argparse
import json
from typing import Any, Final

from attfc_planner.gpu.catalog import get_card
from attfc_train.cuda_environment import PLANNED_ALLOCATOR
from attfc_train.units import GIB, Bytes
from benchmarks.capacity_run import HEADS, profile_of
from benchmarks.provenance import provenance, save
from benchmarks.real_allocator import Bench

IDS: Final = 100_000_000
DIM: Final = 512
CARD: Final[Bytes] = get_card("a100-80").capacity_bytes
RESULT: Final = "capacity_standin.json"


def measured(bench: Bench, name: str) -> dict[str, Any]:
    """Return the bytes of one head, predicted and allocated.

    Raises:
        AssertionError: the run did not end well.
    """
    profile = profile_of(HEADS[name], IDS, DIM)
    predicted = bench.model(CARD, PLANNED_ALLOCATOR).estimate(profile)  # an exact trace has 48,829 chunks of slots
    real = bench.run(profile, CARD, PLANNED_ALLOCATOR)
    assert real.outcome == "ran", f"{name}: {real.outcome}, {real.reason}"
    return {
        "head": name,
        "identities": IDS,
        "dim": DIM,
        "allocated_bytes": real.allocated_bytes,
        "reserved_bytes": real.reserved_bytes,
        "predicted_reserved_bytes": predicted.measured_bytes,
    }


def main() -> None:
    """Run the benchmark from the command line."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    bench = Bench()
    rows = [measured(bench, name) for name in HEADS]
    for row in rows:
        print(
            f"{row['head']}: {row['reserved_bytes'] / GIB:.2f} GiB, predicted {row['predicted_reserved_bytes'] / GIB:.2f} GiB"
        )
    print(save(RESULT, json.dumps({"provenance": provenance(), "rows": rows}, indent=1) + "\n"))


if __name__ == "__main__":
    main()
