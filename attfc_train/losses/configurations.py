"""Tiles for the Triton kernel: which a card can hold, and which its tensor cores multiply well.

A program makes two products with a tile of slots: their logits, and the sum of the slots weighted by the exponentials. The
second one always takes the tile with all its dimensions. The first one has two ways:

* in one piece: the queries stay on the chip, and the tile is read once for both products;
* in chunks: `Tiles.chunk` dimensions of queries and slots are read at a time, and the tile again for the second product. Then
  shared memory holds little more than one tile, and no warp computes another's logits (see `_ONE_PIECE`).

All figures of shared memory are checked against the compiler's: ``python -m benchmarks.loss_configurations``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from attfc_train.losses.card import Card, Shape

ROWS_FROM_SHARED_MEMORY = 64
"""Fewest rows of a product that reads them there."""


@dataclass(frozen=True, slots=True)
class Tiles:
    """How a program cuts its work."""

    tile: int
    """Slots at a time."""
    chunk: int = 0
    """Dimensions at a time of the first product; 0: in one piece."""
    apart: bool = False
    """Whether the first product stands in a branch and so is laid out for itself."""
    warps: int = 8
    stages: int = 2
    """Tiles on their way from memory, the one in use included."""


_FP32 = (Tiles(16, 32), Tiles(16, 64), Tiles(32, 64))
"""Three passes of TF32, or none: the operands stand in registers, and larger tiles only spill."""
_CHUNKED = (Tiles(16, 64), Tiles(32, 64), Tiles(64, 64))
_ONE_PIECE = (Tiles(32), Tiles(64))
"""Triton lays all warps along the rows of a product whose result enters another one: with fewer rows than warps x 16 several
warps compute the same logits. In chunks they do not."""
_FROM_SHARED_MEMORY = (
    Tiles(128),
    Tiles(32, stages=3),
    Tiles(64, apart=True),
    Tiles(128, apart=True, stages=1),
    Tiles(32, apart=True, stages=3),
)
"""More for products from shared memory. `Tiles.apart` avoids computing logits twice too, and moves the exponentials
through shared memory instead; on other cards it spills up to 30 KiB a thread."""


def operand_type(slot_type: torch.dtype, card: Card) -> torch.dtype:
    """Return the type of both products' operands (`Card.operand_bytes`)."""
    if card.operand_bytes(slot_type.itemsize) == torch.float32.itemsize:
        return torch.float32
    return torch.bfloat16 if slot_type.itemsize == 1 else slot_type


def shape(card: Card, dim: int, slot_type: torch.dtype) -> Shape:
    """Return what one program does."""
    return Shape.of(card, dim, slot_type.itemsize)


def choices(card: Card, dim: int, slot_type: torch.dtype) -> list[Tiles]:
    """Return the tiles to choose from by measuring: those that fit; the smallest stays in any case."""
    padded = shape(card, dim, slot_type).padded
    # A chunk of all dimensions is one piece. Where a program sums some dimensions only, one piece never fits.
    pieces = [replace(tiles, chunk=0) if tiles.chunk >= padded else tiles for tiles in _candidates(card, dim, slot_type)]
    different = list(dict.fromkeys(pieces))
    fitting = [tiles for tiles in different if shared_bytes(tiles, card, dim, slot_type) <= card.shared_memory]
    return fitting or different[:1]


def _candidates(card: Card, dim: int, slot_type: torch.dtype) -> tuple[Tiles, ...]:
    if operand_type(slot_type, card) == torch.float32:
        return _FP32
    from_shared_memory = card.multiplies_from_shared_memory and shape(card, dim, slot_type).block >= ROWS_FROM_SHARED_MEMORY
    return _CHUNKED + _ONE_PIECE + (_FROM_SHARED_MEMORY if from_shared_memory else ())


def shared_bytes(tiles: Tiles, card: Card, dim: int, slot_type: torch.dtype) -> int:
    """Return about the bytes of shared memory that a program takes while it walks over its tiles."""
    operand = operand_type(slot_type, card)
    work = shape(card, dim, slot_type)
    query = work.block * operand.itemsize
    row = work.width * operand.itemsize
    if tiles.chunk:
        # Either product's operands, the exponentials among them; the first one's next chunk is on its way meanwhile.
        return max((query + tiles.tile * slot_type.itemsize) * tiles.chunk * (tiles.stages - 1), tiles.tile * (row + query))
    # The queries, the tiles on their way, and one in the operands' type where it is another. tcgen05 wants both orders.
    both = card.capability // 10 in (10, 11) and not tiles.apart
    converted = row if operand != slot_type or both else 0
    return work.width * query + tiles.tile * (tiles.stages * work.width * slot_type.itemsize + converted)
