"""The slots that a step scores: some at first, all at last (the order of LVFace, ICCV 2025: sub-sampled classes, then all).

Early steps gain little from many negatives, and scoring them is the container's whole cost. The slots of a step lie in one
piece, a view; which piece is a hash of the step, so that a resumed run scores the same. All of them stay in memory.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from attfc_train.device_hash import STEP_STRIDE, mixed_key

STAGES = 16
"""Sizes between the first and all: each is a size of scratch memory of its own, which an allocator keeps."""


@dataclass(frozen=True, slots=True)
class ScoredSlots:
    """The growth from a share of the slots to all of them.

    Args:
        size: slots in all, C.
        first_share: of the slots that the first step scores, in (0, 1].
        growing_steps: steps until all are scored; the number grows geometrically.
    """

    size: int
    first_share: float
    growing_steps: int

    def at(self, step: int) -> range:
        """Return the slots that optimiser step `step` scores."""
        count = self._count(step)
        # The container is cut into pieces of `count`; the last one reaches back to be as long as the others.
        pieces = -(-self.size // count)
        first = min(mixed_key((step + 1) * STEP_STRIDE) % pieces * count, self.size - count)
        return range(first, first + count)

    def _count(self, step: int) -> int:
        # share(t) = first^(1 - t) for t = 0, 1/16 .. 1
        stage = min(STAGES, STAGES * step // self.growing_steps) if self.growing_steps else STAGES
        share = math.pow(self.first_share, 1 - stage / STAGES)
        return max(1, min(self.size, round(share * self.size)))
