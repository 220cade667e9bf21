"""The room that 100 million identities take on a card of 80 GB, and their checkpoints on its host.

    python -m benchmarks.capacity_standin    # a quarter of an hour; writes results/capacity_standin.json

It needs what `benchmarks.compiled_memory` needs. The steps are the real ones, with kernels that do nothing: figures are of
memory alone. The centers are zeros there, so a checkpoint of 50 GB is mostly holes and takes hardly any room on the disk; each
piece of it is copied to the host all the same (`benchmarks.capacity_saved`).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
from typing import Any, Final

from attfc_planner.gpu.catalog import get_card
from attfc_train.cuda_environment import PLANNED_ALLOCATOR
from attfc_train.processes import command
from attfc_train.units import GIB, MIB, Bytes
from benchmarks.capacity_run import HEADS, profile_of
from benchmarks.provenance import provenance, save
from benchmarks.real_allocator import Bench
from benchmarks.standin import environment, forget

IDS: Final = 100_000_000
DIM: Final = 512
CARD: Final[Bytes] = get_card("a100-80").capacity_bytes
GB: Final = 10**9
RESULT: Final = "capacity_standin.json"


def measured(bench: Bench, name: str) -> dict[str, Any]:
    """Return the bytes of one head, predicted and allocated.

    Raises:
        AssertionError: the run did not end well.
    """
    profile = profile_of(HEADS[name], IDS, DIM)
    predicted = bench.model(CARD, PLANNED_ALLOCATOR).estimate(profile)  # an exact trace has 48,829 chunks of slots
    real = bench.peak(profile, CARD)
    return {
        "head": name,
        "identities": IDS,
        "dim": DIM,
        "allocated_bytes": real.allocated_bytes,
        "reserved_bytes": real.reserved_bytes,
        "predicted_reserved_bytes": predicted.measured_bytes,
        **_saved(name),
    }


def _saved(name: str) -> dict[str, Any]:
    """Return what `benchmarks.capacity_saved` measures of a head.

    Raises:
        AssertionError: it did not end well.
    """
    options = ["--ids", str(IDS), "--dim", str(DIM), "--device", "cuda"]
    card_id = f"{os.getpid()}-saved"
    program = command("benchmarks.capacity_saved", name, *options)
    try:
        variables = {**os.environ, **environment(CARD, PLANNED_ALLOCATOR, card_id)}
        child = subprocess.run(program, env=variables, stdout=subprocess.PIPE, text=True, check=False)
    finally:
        forget(card_id)
    # What it printed counts: a process of the stand-in may end badly after its work.
    assert child.stdout, f"{name}: exit code {child.returncode}"
    row: dict[str, Any] = json.loads(child.stdout.splitlines()[-1])
    return row


def main() -> None:
    """Run the benchmark from the command line."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    bench = Bench()
    rows = [measured(bench, name) for name in HEADS]
    for row in rows:
        print(
            f"{row['head']}: {row['reserved_bytes'] / GIB:.2f} GiB, predicted {row['predicted_reserved_bytes'] / GIB:.2f} GiB; "
            f"checkpoint {row['checkpoint_bytes'] / GB:.1f} GB, saved with {row['saving_host_bytes'] / MIB:.0f} MiB of the host"
        )
    print(save(RESULT, json.dumps({"provenance": provenance(), "rows": rows}, indent=1) + "\n"))


if __name__ == "__main__":
    main()
