"""The table of kernels: occupancy by hand, and a page that is of what is on file."""

from __future__ import annotations

import json

import pytest

from benchmarks.loss_configurations import CARDS, KIB, RESULT
from benchmarks.provenance import RESULTS

pytest.importorskip("triton", reason="needs triton, which CUDA builds of torch bring")

from benchmarks.kernel_table import occupancy, page

CARD = {card.capability: card for card in CARDS}


@pytest.mark.parametrize(
    ("capability", "registers", "kib", "blocks"),
    [
        (90, 255, 1, 1),  # 8 warps x 8,192 registers are all there are
        (90, 128, 1, 2),
        (90, 129, 1, 1),  # 129 x 32 take 4,352, of which a processor has 15 warps' worth
        (90, 32, 1, 8),  # 64 warps
        (90, 32, 113, 2),  # 228 KiB, a KiB of them beside each program's own
        (90, 32, 114, 1),
        (75, 32, 32, 2),  # nothing is reserved
        (75, 32, 1, 4),  # 1,024 threads
    ],
)
def test_occupancy_is_what_the_scarcest_leaves(capability: int, registers: int, kib: int, blocks: int) -> None:
    row = {"registers": registers, "shared_bytes": kib * KIB}
    most = {75: 32, 90: 64}[capability]
    assert occupancy(row, CARD[capability], 8) == blocks * 8 / most


def test_the_page_is_of_what_is_on_file() -> None:
    rows = [json.loads((RESULTS / name).read_text())["rows"] for name in (RESULT, "learning_kernel.json")]
    assert (RESULTS / "kernels.md").read_text() == page(*rows)
    assert {row["capability"] for row in rows[1]} == {card.capability for card in CARDS}
    assert all(row["shared_bytes"] <= row["limit_bytes"] for kernel in rows for row in kernel)
