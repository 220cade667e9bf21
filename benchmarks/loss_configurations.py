"""Shared memory and registers of the Triton kernel with all its tiles, as compiled for cards that need not be there.

    python -m benchmarks.loss_configurations    # about 20 minutes on one core

Triton brings the assembler, so this takes no GPU. One kernel is the forward and the backward pass: it gathers the gradient
while it scores. A program that asks for more shared memory than a block may have cannot start; bytes on the stack of a
thread are spilled registers, which cost time.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any

import torch

from attfc_train.losses.card import Card
from attfc_train.losses.configurations import Tiles, choices, operand_type, shared_bytes
from attfc_train.losses.learning import LearnedRows
from benchmarks.provenance import provenance, save

KIB = 1024
CARDS = [card for card in map(Card.of_capability, (75, 80, 86, 89, 90, 100, 120)) if card is not None]
STORAGES = {"fp32": torch.float32, "bf16": torch.bfloat16, "int8": torch.int8, "fp8": torch.float8_e4m3fn}
DIMS = (128, 256, 512, 1024)
SCALE = 64.0
RESULT = "loss_configurations.json"

_POINTERS = {
    torch.float32: "*fp32",
    torch.bfloat16: "*bf16",
    torch.int8: "*i8",
    torch.uint8: "*u8",
    torch.float8_e4m3fn: "*fp8e4nv",
}

Setting = tuple[Card, str, int]
"""A card, a storage and D."""


def settings() -> list[Setting]:
    """Return every setting of the table."""
    return list(product(CARDS, STORAGES, DIMS))


def rows(which: Iterable[Setting], most: int | None = None) -> Iterator[dict[str, Any]]:
    """Compile the tiles to choose from, the first `most` of each setting; yield a row each."""
    for card, storage, dim in which:
        for tiles in choices(card, dim, STORAGES[storage])[:most]:
            yield {
                "capability": card.capability,
                "storage": storage,
                "dim": dim,
                **asdict(tiles),
                "limit_bytes": card.shared_memory,
                "estimated_bytes": shared_bytes(tiles, card, dim, STORAGES[storage]),
                **compiled(card, storage, dim, tiles),
            }


def compiled(card: Card, storage: str, dim: int, tiles: Tiles, scale: float = SCALE) -> dict[str, Any]:
    """Compile the kernel; return its shared memory in bytes, registers and stack bytes of a thread, and kind of product."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from attfc_train.losses import triton as kernel

    slot_type = STORAGES[storage]
    fixed = kernel.constants(dim, slot_type, storage in ("int8", "fp8"), scale, card)
    configuration = kernel.configuration(tiles)
    constants = fixed | configuration.kwargs
    types = dict.fromkeys(kernel._score.fn.arg_names, "*fp32") | dict.fromkeys(constants, "constexpr")
    types |= {
        "query": _POINTERS[operand_type(slot_type, card)],
        "slots": _POINTERS[torch.uint8 if fixed["BITS"] else slot_type],
    }
    types |= {
        "slot_labels": "*i64",
        "labels": "*i64",
        "num": "i32",
        "size": "i32",
        "per_split": "i32",
        "factor": "fp32",
        "highest": "fp32",
    }
    # As the launcher finds them: pointers and the split's length are multiples of 16.
    aligned = {
        (at,): [["tt.divisibility", 16]]
        for at, (name, kind) in enumerate(types.items())
        if kind[0] == "*" or name == "per_split"
    }
    places = {(list(types).index(name),): value for name, value in constants.items()}
    source = ASTSource(kernel._score.fn, types, places, aligned)
    options = {"num_warps": tiles.warps, "num_stages": tiles.stages, "enable_fp_fusion": True}
    result = triton.compile(source, target=GPUTarget("cuda", card.capability, 32), options=options)
    return {"shared_bytes": result.metadata.shared, **_resources(result.asm["cubin"]), "product": _product(result.asm["ptx"])}


def compiled_learning(card: Card, storage: str, dim: int, *, of_slots: bool = False) -> dict[str, Any]:
    """Compile the pass in which rows learn; return what `compiled` does, and the limit.

    Args:
        of_slots: a container's, whose rows have labels and keep length 1; else a learned layer's, with all that it can have.
    """
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from attfc_train.losses import learning_triton as kernel

    row_type = STORAGES[storage]
    wide = torch.float32 if row_type == torch.float32 else torch.bfloat16
    values, nothing = torch.empty(0, dim, dtype=row_type), torch.empty(0, dtype=wide)
    layer, slots = LearnedRows(values, None, nothing), LearnedRows(values, None, None, nothing.long(), are_units=True)
    whole = not of_slots
    rows = layer if whole else slots
    constants = kernel.constants(dim, rows, indexed=whole, capped=whole, card=card, has_hard=whole)
    types = dict.fromkeys(kernel._learn.arg_names, "*fp32") | dict.fromkeys(constants, "constexpr")
    types |= {
        "values": _POINTERS[torch.uint8 if constants["BITS"] else row_type],
        "momentum": _POINTERS[wide],
        "query": _POINTERS[operand_type(row_type, card)],
    }
    types |= {
        "row_labels": "*i64",
        "index": "*i64",
        "labels": "*i64",
        "size": "i32",
        "num": "i32",
        "factor": "fp32",
        "ceiling": "fp32",
    }
    types |= {"key": "i32", "buffer_key": "i32"}
    aligned = {(at,): [["tt.divisibility", 16]] for at, kind in enumerate(types.values()) if kind[0] == "*"}
    places = {(list(types).index(name),): value for name, value in constants.items()}
    source = ASTSource(kernel._learn, types, places, aligned)
    options = {"num_warps": kernel.WARPS, "num_stages": 2}
    result = triton.compile(source, target=GPUTarget("cuda", card.capability, 32), options=options)
    return {
        "limit_bytes": card.shared_memory,
        "estimated_bytes": kernel.shared_bytes(dim, row_type, card),
        "shared_bytes": result.metadata.shared,
        **_resources(result.asm["cubin"]),
    }


def _resources(cubin: bytes) -> dict[str, int]:
    """Return registers and stack bytes of a thread."""
    from triton import knobs

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(cubin)
        command = [knobs.nvidia.cuobjdump.path, "--dump-resource-usage", str(path)]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = {name: int(value) for name, value in re.findall(r"(REG|STACK):(\d+)", text)}
    return {"registers": found["REG"], "stack_bytes": found["STACK"]}


def _product(ptx: str) -> str:
    """Return the instruction that multiplies."""
    return next((name for name in ("tcgen05.mma", "wgmma", "mma.sync") if name in ptx), "fma")


def summary(table: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return for each setting how many of its tiles fit, and the least shared memory among them."""
    result = []
    for card, storage, dim in settings():
        mine = [row for row in table if (row["capability"], row["storage"], row["dim"]) == (card.capability, storage, dim)]
        result.append(
            {
                "capability": card.capability,
                "storage": storage,
                "dim": dim,
                "tiles": len(mine),
                "fitting": sum(row["shared_bytes"] <= row["limit_bytes"] for row in mine),
                "least_bytes": min(row["shared_bytes"] for row in mine),
                "limit_bytes": card.shared_memory,
            }
        )
    return result


def document(table: list[dict[str, Any]], origin: dict[str, Any]) -> str:
    """Return the result as JSON, a row a line."""

    def lines(which: list[dict[str, Any]]) -> str:
        return ",\n  ".join(json.dumps(row) for row in which)

    return (
        f'{{\n "provenance": {json.dumps(origin)},\n "summary": [\n  {lines(summary(table))}\n ],\n'
        f' "rows": [\n  {lines(table)}\n ]\n}}\n'
    )


def main() -> None:
    """Run the benchmark from the command line."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    import triton

    table = list(rows(settings()))
    path = save(RESULT, document(table, {**provenance(), "triton": triton.__version__}))
    print(f"{len(table)} compiled, written to {path}")


if __name__ == "__main__":
    main()
