"""A step's operators as a GPU makes them: each pass over the slots is one kernel, whose logits never leave the chip.

Counted is a step of the CPU, whose passes go through the slots in chunks: every operator of a chunk reads and writes logits.
The kernels (`attfc_train.losses.triton`, `attfc_train.losses.learning_triton`) make the same products, read the slots once, and
write those that learn; of the logits nothing is left but arithmetic.

Legend: D dimensions, W of them that one program sums.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final

from attfc_train.document import STORAGES
from attfc_train.heads.settings import SlotKernel
from attfc_train.losses.card import FP32_BYTES, MAX_DIM, Card, Shape, can_learn
from attfc_train.profile.profile import TrainProfile
from attfc_train.timing.op_cost import OpCost

PHASES: Final = ("loss", "update")
"""The phases with a pass over the slots: that which scores them, and that in which they learn."""
_TF32_PASSES: Final = 3
"""Products of fp32 numbers on tensor cores: the three of their high and low halves that count."""
_LAUNCHES: Final = 12
"""Of a pass: its kernel, and what merges its splits or fills its scalars."""


@dataclass(frozen=True, slots=True)
class SlotKernels:
    """The kernels of one training on one card."""

    kernel: SlotKernel
    card: Card
    profile: TrainProfile

    @staticmethod
    def of(profile: TrainProfile, card: Card | None) -> SlotKernels | None:
        """Return those of a training; None: it has none there.

        Args:
            profile: resolved.
            card: None: one that triton does not know.
        """
        kernel = profile.head.slot_kernel
        if kernel is None or card is None or profile.model.embedding_size > MAX_DIM:
            return None
        return SlotKernels(kernel, card, profile)

    @property
    def choices(self) -> tuple[tuple[str, ...], ...]:
        """The phases whose ways are chosen at once, for each choice that a run makes (`attfc_train.losses.choose`)."""
        return (PHASES,) if self.kernel.is_joint else tuple((phase,) for phase in PHASES)

    def fused(self, costs: Iterable[OpCost], phases: Collection[str] = PHASES) -> tuple[OpCost, ...]:
        """Return the operators of a step with those over the slots in one kernel a pass; a pass that has none stays.

        Args:
            phases: those whose passes are kernels.
        """
        others: list[OpCost] = []
        flops: dict[str, int] = {}
        for cost in costs:
            if cost.is_over_slots and cost.phase in phases and (cost.phase != "update" or self._can_learn):
                flops[cost.phase] = flops.get(cost.phase, 0) + cost.flops
            else:
                others.append(cost)
        return (*others, *(self._learning(each) if phase == "update" else self._scoring(each) for phase, each in flops.items()))

    def _scoring(self, flops: int) -> OpCost:
        """Return the passes that score the slots: one a part of the batch."""
        # Logits and weighted sum are 2 D FLOPs each for a query and a slot. A program that sums W of the dimensions needs the
        # logits of all of them: padded / W programs compute the same ones.
        work = self._shape
        passes = self.profile.num_passes
        repeated = (work.padded / work.width + 1) / 2
        moved = self._slots(flops, self.profile.optim.batch_size // passes) * self._slot_bytes
        return self._made("scores", "loss", repeated * flops, moved, passes)

    def _learning(self, flops: int) -> OpCost:
        """Return the pass in which slots learn from all queries of the step."""
        row = self._slot_bytes + self._dim * self.kernel.momentum_bytes
        return self._made("learning", "update", flops, 2 * self._slots(flops, self.profile.optim.batch_size) * row, 1)

    def _made(self, name: str, phase: str, flops: float, moved: float, passes: int) -> OpCost:
        is_wide = self.card.operand_bytes(self._component_bytes) == FP32_BYTES
        times = _TF32_PASSES if is_wide and self.card.has_tensor_cores else 1
        padded = times * flops * self._shape.padded / self._dim
        return OpCost(name, "wide kernel" if is_wide else "narrow kernel", phase, int(padded), int(moved), _LAUNCHES * passes)

    def _slots(self, flops: int, queries: int) -> float:
        """Return how many slots a pass goes through, from the FLOPs of its two products."""
        return flops / (4 * queries * self._dim)

    @property
    def _dim(self) -> int:
        return self.profile.model.embedding_size

    @property
    def _component_bytes(self) -> int:
        return STORAGES[self.kernel.storage].component_bytes

    @property
    def _shape(self) -> Shape:
        return Shape.of(self.card, self._dim, self._component_bytes)

    @property
    def _can_learn(self) -> bool:
        return can_learn(self.card, self._dim, self._component_bytes)

    @property
    def _slot_bytes(self) -> int:
        return STORAGES[self.kernel.storage].row_bytes(self._dim)
