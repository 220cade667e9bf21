"""F2C's dynamic class pool: two rows a slot, of which the least recently used slot is given to a new identity.

A batch of labelled rows edits the pool as if it came one by one. A new identity takes a slot and writes row 0; one that has a
slot writes the row that was written longer ago. `ClassPool.edits` says what changes and changes nothing: a pass of the step is
scored against the pool as it would be (`ClassPool.views`), and one of them is made to stay (`ClassPool.prepare_enqueue`).

Legend: b labels, K slots, D dimensions, N identities.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from attfc_train.heads.containers.container import RANDOM
from attfc_train.heads.containers.slot_storage import SlotStorage
from attfc_train.heads.containers.writes import IndexCopy, IndexFill, Writes
from attfc_train.heads.f2c.lru import MOST_LABEL_BITS, touched
from attfc_train.losses.slots import EMPTY, Slots
from attfc_train.rounding import StorageType

_TURN_BITS = MOST_LABEL_BITS
"""Bits of a recency that count the labels of a step."""


@dataclass(frozen=True, slots=True)
class Edits:
    """What enqueueing b labelled rows changes, row by row."""

    labels: Tensor
    """int64 [b]."""
    slot: Tensor
    """int64 [b]: where each of them goes."""
    row: Tensor
    """int64 [b]: 0 or 1, the row of the slot that it writes."""
    last: Tensor
    """int64 [b]: place in the batch of the last one that goes to the same slot."""
    writer: Tensor
    """int64 [2, b]: place of the last one that writes row 0, and row 1, of the same slot; -1: that row stays."""
    second: Tensor
    """bool [b]: the slot's identity had it before its last turn, so the second view shows its row 1."""

    @property
    def stays(self) -> Tensor:
        """Whether each is the last one in its slot, bool [b]."""
        return self.last == torch.arange(self.last.shape[0], device=self.last.device)


@dataclass(frozen=True, slots=True)
class Located:
    """Where identities are once edits are made."""

    inside: Tensor
    """bool [b]: it has a slot."""
    slot: Tensor
    """int64 [b]; any valid one where it has none."""
    edit: Tensor
    """int64 [b]: place of the edit that put it there; -1: none did."""


class ClassPool(nn.Module):
    """The pool and, for its eviction, who was used last; starts full of random vectors that everyone is scored against.

    Args:
        num_ids: N. size: K. dim: D. storage: type of the rows.
    """

    slot_labels: Tensor
    """int64 [K]: identity, or `RANDOM`."""
    recency: Tensor
    """int64 [K]: step x 2^15 + turn of the slot's last use; slot - K while nobody has used it."""
    next_row: Tensor
    """int8 [K]: the row that the slot's identity overwrites next."""
    slot_of: Tensor
    """int32 [N + 1]: slot of each identity, or -1; the last entry belongs to nobody."""

    def __init__(
        self, num_ids: int, size: int, dim: int, storage: StorageType = "fp32", *, device: torch.device | None = None
    ) -> None:
        super().__init__()
        # Row r of slot c is row r K + c: what everyone is scored against, row 0, lies together.
        self.centers = SlotStorage(2 * size, dim, storage, device=device)
        self.centers.randomise()
        self.register_buffer("slot_labels", torch.full((size,), RANDOM, device=device))
        self.register_buffer("recency", torch.arange(size, device=device) - size)
        self.register_buffer("next_row", torch.zeros(size, dtype=torch.int8, device=device))
        self.register_buffer("slot_of", torch.full((num_ids + 1,), -1, dtype=torch.int32, device=device))

    @property
    def size(self) -> int:
        """K."""
        return self.slot_labels.shape[0]

    @property
    def last_update(self) -> Tensor:
        """int64 [K]: the last optimiser step that used the slot; -1: none did."""
        return (self.recency >> _TURN_BITS).clamp_min(-1)

    def find(self, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the slot of each label, int64 [b] (any valid one where there is none), and whether there is one, bool [b]."""
        slot = self.slot_of[labels].long()
        return slot.clamp_min(0), slot >= 0

    def edits(self, labels: Tensor) -> Edits:
        """Return what enqueueing rows of identities int64 [b] changes."""
        touches = touched(labels, *self.find(labels), self.recency)
        slot = touches.slot
        places = torch.arange(slot.shape[0], device=slot.device)
        same = slot[:, None] == slot
        # The turn in which the slot's present identity came, -1: before the batch; and its turns since. From row 0, or from
        # `next_row` where it has been there, turn by turn the other row.
        came = torch.where(same & ~touches.hit & (places <= places[:, None]), places, -1).amax(1)
        turns = (same & (places >= came[:, None]) & (places < places[:, None])).sum(1)
        row = (turns + torch.where(came < 0, self.next_row[slot].long(), 0)) % 2
        last = torch.where(same, places, -1).amax(1)
        writer = torch.stack([torch.where(same & (row == each), places, -1).amax(1) for each in (0, 1)])
        second = (same & touches.hit & (places >= came[last][:, None])).any(1)
        return Edits(labels, slot, row, last, writer, second)

    def views(self, edits: Edits, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the edited slots show first and second, fp32 [b, D] each: row 0; row 1 where it is `Edits.second`.

        Args:
            vectors: unit [b, D], the rows to enqueue.
        """
        rows = []
        for row, writer in enumerate(edits.writer):
            stored = self.centers.read(row * self.size + edits.slot)
            rows.append(torch.where((writer >= 0)[:, None], vectors[writer.clamp_min(0)], stored))
        return rows[0], torch.where(edits.second[:, None], rows[1], rows[0])

    def locate(self, labels: Tensor, edits: Edits) -> Located:
        """Return where identities int64 [n] are once the edits are made."""
        places = torch.arange(edits.slot.shape[0], device=labels.device)
        own = (labels[:, None] == edits.labels) & edits.stays
        edit = torch.where(own, places, -1).amax(1)
        slot, resident = self.find(labels)
        left_alone = resident & ~(slot[:, None] == edits.slot).any(1)
        return Located((edit >= 0) | left_alone, torch.where(edit >= 0, edits.slot[edit], slot), edit)

    def unedited(self, edits: Edits) -> Slots:
        """Return row 0 of all slots, the edited ones as empty."""
        scales = self.centers.scales
        labels = self.slot_labels.index_fill(0, edits.slot, EMPTY)
        return Slots(self.centers.values[: self.size], None if scales is None else scales[: self.size], labels)

    def prepare_enqueue(self, vectors: Tensor, edits: Edits, step: int) -> Writes:
        """Compute the writes that make the edits of unit vectors [b, D] at optimiser step `step`."""
        labels = edits.labels
        last = edits.last
        rows = edits.row * self.size + edits.slot
        # Static shapes: who is overwritten within the batch writes what its successor writes.
        writer = edits.writer.gather(0, edits.row[None])[0]
        return [
            *self.centers.writes(rows, self.centers.rounded(rows, vectors[writer])),
            *self._map(edits),
            IndexCopy(self.slot_labels, edits.slot, labels[last]),
            IndexCopy(self.recency, edits.slot, last + (step << _TURN_BITS)),
            IndexCopy(self.next_row, edits.slot, (1 - edits.row[last]).to(torch.int8)),
        ]

    def _map(self, edits: Edits) -> Writes:
        """Compute the writes to the map of identities: forget who had the slots, then enter who has them."""
        nobody = self.slot_of.shape[0] - 1
        former = self.slot_labels[edits.slot]
        located = self.locate(edits.labels, edits)
        return [
            IndexFill(self.slot_of, torch.where(former >= 0, former, nobody), -1),
            IndexCopy(self.slot_of, edits.labels, torch.where(located.inside, located.slot, -1).int()),
        ]
