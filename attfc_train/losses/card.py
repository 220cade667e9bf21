"""What a GPU's kernels over the slots depend on, and how one program divides its work: data without torch, for plans."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from attfc_train.units import Bytes

if TYPE_CHECKING:
    import torch

MAX_DIM: Final = 1024
"""Most dimensions that the kernels take."""
MOST_QUERIES: Final = 128
LEAST: Final = 16
"""Fewest rows, columns and dimensions of a product on tensor cores."""
FP32_BYTES: Final = 4
_MOVED: Final = 16384
"""fp32 numbers of a block's gradient: with those of the rows themselves half of the registers that 8 warps have."""
SHARED_MEMORY_KIB: Final = {75: 64, 80: 163, 86: 99, 87: 163, 89: 99, 90: 227, 120: 99}
"""Lowest compute capability x 10 -> shared memory of a block: CUDA C++ Programming Guide, technical specifications."""


@dataclass(frozen=True, slots=True)
class Card:
    """What a GPU has, as far as tiles depend on it."""

    capability: int
    """Compute capability x 10: 89 is 8.9."""
    shared_memory: int
    """Bytes that one block can ask for."""

    @staticmethod
    def of(device: torch.device) -> Card:
        """Return a CUDA device's."""
        import torch

        properties = torch.cuda.get_device_properties(device)
        most: int = properties.shared_memory_per_block_optin  # type: ignore[attr-defined]  # missing in torch's stub
        return Card(10 * properties.major + properties.minor, most)

    @staticmethod
    def of_capability(capability: int) -> Card | None:
        """Return a card that is not here; None: torch's builds do not know it any more."""
        shared = {least: kib for least, kib in SHARED_MEMORY_KIB.items() if least <= capability}
        return Card(capability, 1024 * shared[max(shared)]) if shared else None

    @property
    def has_tensor_cores(self) -> bool:
        """Whether Triton uses its tensor cores: since 3.3 not those of Volta and Turing (triton-lang/triton#5066)."""
        return self.capability >= 80

    @property
    def multiplies_from_shared_memory(self) -> bool:
        """Whether tensor cores read operands there (wgmma, tcgen05): Hopper and the data centers' Blackwell, not GeForce's."""
        return self.capability // 10 in (9, 10, 11)

    @property
    def converts_fp8(self) -> bool:
        """Whether it has instructions for e4m3, without which Triton refuses the type."""
        return self.capability >= 89

    def operand_bytes(self, slot_bytes: Bytes) -> Bytes:
        """Return the bytes of a component of both products' operands, of slots with so many bytes a component.

        8-bit slots are multiplied in bf16, which holds them exactly; without tensor cores all are in fp32.
        """
        return max(2, slot_bytes) if self.has_tensor_cores else FP32_BYTES


def _padded(dim: int) -> int:
    """Return the power of two that D dimensions are padded to, for ``tl.arange``."""
    return max(LEAST, 1 << (dim - 1).bit_length())


@dataclass(frozen=True, slots=True)
class Shape:
    """The part of the work that one program does for all slots of its split."""

    block: int
    """Queries."""
    padded: int
    """D as a power of two."""
    width: int
    """Dimensions of the weighted sum. Where they are fewer than D several programs compute the same logits."""

    @staticmethod
    def of(card: Card, dim: int, slot_bytes: Bytes) -> Shape:
        """Return what one program does."""
        operand = card.operand_bytes(slot_bytes)
        padded = width = _padded(dim)
        # The smallest tile of the second product: slots, and as many queries' exponentials.
        while LEAST * (width + LEAST) * operand > card.shared_memory:
            width //= 2
        # The [block, width] fp32 accumulator takes half of a processor's 65,536 registers; with fp32 operands a quarter.
        accumulated = 16384 if operand == FP32_BYTES else 32768
        return Shape(max(LEAST, min(MOST_QUERIES, accumulated // width)), padded, width)


@dataclass(frozen=True, slots=True)
class LearningShape:
    """How one program of the pass in which slots learn cuts its work."""

    rows: int
    queries: int
    """At a time."""
    chunk: int
    """Dimensions at a time of the first product."""
    padded: int
    """D as a power of two."""
    shared_bytes: Bytes
    """About what it takes of shared memory."""

    @staticmethod
    def of(card: Card, dim: int, slot_bytes: Bytes) -> LearningShape:
        """Return what one program does."""
        operand = card.operand_bytes(slot_bytes)
        is_wide = operand == FP32_BYTES
        padded = _padded(dim)
        # Operands of three passes of TF32, or of none, stand in registers too: half of the rows.
        rows = max(LEAST, min(64, _MOVED // (2 if is_wide else 1) // padded))
        queries = 16 if is_wide else 32
        return LearningShape(rows, queries, min(64, padded), padded, queries * (padded + rows) * operand)


def can_learn(card: Card, dim: int, slot_bytes: Bytes) -> bool:
    """Return whether a card has the kernel in which slots learn: all but Turing's with more than 512 dimensions."""
    return dim <= MAX_DIM and LearningShape.of(card, dim, slot_bytes).shared_bytes <= card.shared_memory
