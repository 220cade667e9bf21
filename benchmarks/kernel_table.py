"""Registers, shared memory, spills and occupancy of both Triton kernels on every generation of cards, as a page.

    python -m benchmarks.kernel_table    # compiles the learning kernel (minutes, no GPU); the loss's rows are on file

The loss's rows are those of ``python -m benchmarks.loss_configurations``, where each setting has several tiles, of which a run
measures the fastest. Occupancy is the share of a processor's warps that can be on it at a time: what registers, shared memory
and threads leave room for. These kernels hold tiles of a matrix product in registers, and hide latency by that, not by warps.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import product
from typing import Any, Final

from attfc_train.losses.card import Card
from attfc_train.losses.learning_triton import WARPS, supports
from benchmarks.loss_configurations import CARDS, KIB, RESULT, STORAGES, compiled_learning
from benchmarks.provenance import RESULTS, provenance, save

DIM: Final = 512
_REGISTERS: Final = 65536
"""Of a processor."""
_REGISTERS_AT_A_TIME: Final = 256
"""A warp takes them in such pieces."""
_THREADS: Final = {75: 1024, 80: 2048, 86: 1536, 89: 1536, 90: 2048, 100: 2048, 120: 1536}
"""Most threads of a processor: CUDA C++ Programming Guide, technical specifications per compute capability."""
_RESERVED: Final = 1 * KIB
"""Shared memory that a block takes beside its own, since compute capability 8.0."""
_WARP: Final = 32

Row = dict[str, Any]


def occupancy(row: Row, card: Card, warps: int) -> float:
    """Return the share of a processor's warps that programs of so many warps can fill."""
    reserved = _RESERVED if card.capability >= 80 else 0
    registers = -(-row["registers"] * _WARP // _REGISTERS_AT_A_TIME) * _REGISTERS_AT_A_TIME * warps
    most = _THREADS[card.capability] // _WARP
    # A processor has as much shared memory as one block may ask for, and what is reserved for it.
    blocks: int = min(
        _REGISTERS // registers, (card.shared_memory + reserved) // (row["shared_bytes"] + reserved), most // warps
    )
    return blocks * warps / most


def learning_rows() -> Iterator[Row]:
    """Compile the learning kernel for every card, storage and use; yield a row each."""
    for of_slots, card, storage in product((True, False), CARDS, STORAGES):
        if supports(DIM, STORAGES[storage], card):
            setting = {"capability": card.capability, "storage": storage, "dim": DIM, "warps": WARPS, "of_slots": of_slots}
            yield {**setting, **compiled_learning(card, storage, DIM, of_slots=of_slots)}


def table(rows: Sequence[Row]) -> str:
    """Return a Markdown table of rows of one kernel: a line a card and storage."""
    lines = ["| card | storage | ways | registers | shared KiB | spilled bytes | occupancy |", "|---|---|---|---|---|---|---|"]
    for card, storage in product(CARDS, STORAGES):
        own = [row for row in rows if (row["capability"], row["storage"], row["dim"]) == (card.capability, storage, DIM)]
        if own:
            cells = (
                _span(row["registers"] for row in own),
                _span(round(row["shared_bytes"] / KIB) for row in own),
                _span(row["stack_bytes"] for row in own),
                _span((round(100 * occupancy(row, card, row["warps"])) for row in own), " %"),
            )
            lines.append(f"| sm_{card.capability} | {storage} | {len(own)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _span(values: Iterable[int], unit: str = "") -> str:
    ordered = sorted(values)
    low, high = ordered[0], ordered[-1]
    return f"{low}{unit}" if low == high else f"{low} to {high}{unit}"


def page(scoring: Sequence[Row], learning: Sequence[Row]) -> str:
    """Return the whole page."""
    slots, layers = ([row for row in learning if row["of_slots"] == of_slots] for of_slots in (True, False))
    return (
        f"# The Triton kernels as compiled, D = {DIM}\n\n"
        "Compiled for each card without one; registers are of a thread, shared memory of a program of eight warps. "
        "`python -m benchmarks.kernel_table` makes this page.\n\n"
        f"## The loss, forward and gradient\n\n{table(scoring)}\n\n"
        f"## The pass in which a container's slots learn\n\n{table(slots)}\n\n"
        f"## The pass in which a layer's rows learn: momentum, sampled, CurricularFace\n\n{table(layers)}\n"
    )


def main() -> None:
    """Run the benchmark from the command line."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    import triton

    scoring = json.loads((RESULTS / RESULT).read_text())["rows"]
    learning = list(learning_rows())
    document = {"provenance": {**provenance(), "triton": triton.__version__}, "rows": learning}
    print(save("learning_kernel.json", json.dumps(document, indent=1) + "\n"))
    print(save("kernels.md", page(scoring, learning)))


if __name__ == "__main__":
    main()
