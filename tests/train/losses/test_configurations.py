"""Every card gets tiles that it can hold, as compiled for it: no GPU is needed, since Triton brings the assembler.

A few settings are compiled here; all of them by ``python -m benchmarks.loss_configurations``, whose table is checked.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import product
from typing import Any

import pytest
import torch

from attfc_train.losses.card import LEAST, MOST_QUERIES, Card
from attfc_train.losses.configurations import choices, operand_type, shape, shared_bytes
from benchmarks.loss_configurations import CARDS, DIMS, KIB, RESULT, STORAGES, settings, summary
from benchmarks.provenance import RESULTS

SLOT_TYPES = [*STORAGES.values(), torch.float16]
COMPILED = [
    *((card.capability, "fp32", 1024) for card in CARDS),
    (75, "fp8", 512),
    (80, "int8", 256),
    (86, "fp8", 512),
    (89, "fp32", 512),
    (90, "bf16", 512),
    (100, "bf16", 512),
    (120, "int8", 128),
]
"""The settings that need most; every card, storage, D and way of multiplying is among them."""

CHILD = """
import json, sys
from benchmarks.loss_configurations import CARDS, Tiles, compiled, rows
cards = {card.capability: card for card in CARDS}
table = list(rows(((cards[capability], storage, dim) for capability, storage, dim in json.loads(sys.argv[1])), most=1))
shifted = compiled(cards[86], "bf16", 128, Tiles(32, chunk=64), scale=100.0)
print(json.dumps([table, shifted]))
"""


@pytest.fixture(scope="module")
def table() -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Compile, in a process of its own where the kernel is not interpreted."""
    pytest.importorskip("triton", reason="needs triton, which CUDA builds of torch bring")
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    command = [sys.executable, "-c", CHILD, json.dumps(COMPILED)]
    child = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert child.returncode == 0, child.stderr[-2000:]
    rows, shifted = json.loads(child.stdout)
    return rows, shifted


def test_the_smallest_tiles_compile_and_fit(table: tuple[list[dict[str, Any]], dict[str, Any]]) -> None:
    """Catches queries that stay in shared memory with fp32 slots (132 KiB and more), and 8-bit slots that no card converts."""
    rows, shifted = table
    assert [(row["capability"], row["storage"], row["dim"]) for row in rows] == COMPILED
    for row in rows:
        assert row["shared_bytes"] <= row["limit_bytes"], row
        assert row["stack_bytes"] <= 64, row
    assert shifted["shared_bytes"] <= 99 * KIB


def test_products_use_what_the_card_has(table: tuple[list[dict[str, Any]], dict[str, Any]]) -> None:
    kinds = {(row["capability"], row["storage"]): row["product"] for row in table[0] if row["dim"] == 512}
    assert kinds[75, "fp8"] == "fma"
    assert kinds[86, "fp8"] == kinds[89, "fp32"] == "mma.sync"
    assert kinds[90, "bf16"] == "wgmma"
    assert kinds[100, "bf16"] == "tcgen05.mma"


@pytest.mark.parametrize("card", CARDS, ids=str)
def test_every_card_has_a_choice_of_what_fits(card: Card) -> None:
    for slot_type, dim in product(SLOT_TYPES, [1, 16, 17, 64, 100, *DIMS]):
        chosen = choices(card, dim, slot_type)
        work = shape(card, dim, slot_type)
        assert len(chosen) == len(set(chosen)) >= 2
        assert all(shared_bytes(tiles, card, dim, slot_type) <= card.shared_memory for tiles in chosen)
        assert work.padded >= dim
        assert LEAST <= work.block <= MOST_QUERIES
        assert all(work.padded % tiles.chunk == 0 for tiles in chosen if tiles.chunk)
        assert all(tiles.chunk or work.width == work.padded for tiles in chosen), "logits of some dimensions"


def test_more_shared_memory_leaves_no_less_to_choose_from() -> None:
    for slot_type, dim in product(SLOT_TYPES, DIMS):
        offered = [set(choices(Card(86, kib * KIB), dim, slot_type)) for kib in (99, 163, 227)]
        assert offered[0] <= offered[1] <= offered[2]


def test_turing_multiplies_in_fp32() -> None:
    """Its tensor cores are idle under Triton, and ptxas refuses bf16 for it."""
    assert {operand_type(slot_type, CARDS[0]) for slot_type in SLOT_TYPES} == {torch.float32}


def test_the_table_is_of_these_tiles_and_every_setting_fits() -> None:
    """Catches tiles that were changed without compiling them: ``python -m benchmarks.loss_configurations``."""
    result = json.loads((RESULTS / RESULT).read_text())
    offered = [
        (card.capability, storage, dim, tiles.tile, tiles.chunk, tiles.apart, tiles.warps, tiles.stages)
        for card, storage, dim in settings()
        for tiles in choices(card, dim, STORAGES[storage])
    ]
    names = ("capability", "storage", "dim", "tile", "chunk", "apart", "warps", "stages")
    assert [tuple(row[name] for name in names) for row in result["rows"]] == offered
    assert result["summary"] == summary(result["rows"])
    assert all(row["fitting"] == row["tiles"] for row in result["summary"])
    assert len(result["summary"]) == len(CARDS) * len(STORAGES) * len(DIMS)
