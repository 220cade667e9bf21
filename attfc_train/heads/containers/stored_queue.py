"""The stored queue: a slot keeps its identity's last L class centers, and a sample's positive attends over them.

The center of a slot, which everyone else is scored against, is the mean of its queue. So scoring costs C x D whatever L is;
memory is C x (L + 1) x D (docs/methods.md, "Queue length and queue mode").

Legend: B samples, C slots, D dimensions, L the queue length.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import normalize

from attfc_train.heads.attention import generate_class_centers
from attfc_train.heads.containers.container import IdentityContainer
from attfc_train.heads.containers.slot_storage import SlotStorage
from attfc_train.heads.containers.writes import IndexCopy, Writes, commit
from attfc_train.ranks.ranks import ALONE, Ranks
from attfc_train.rounding import StorageType


class StoredQueueContainer(IdentityContainer):
    """An `IdentityContainer` whose slots remember the last L generated class centers (GCCs) one by one.

    A sample's positive is the attention of its query over what the queue will hold: the fresh GCC and the newest L - 1
    stored ones; without fresh ones, all that are stored. With L = 1 that is the averaged queue of length 1.

    Args:
        queue_length: L. temperature: of the attention. Others: see `IdentityContainer`.
    """

    enqueued: Tensor
    """int32 [C]: GCCs stored since the slot got its identity; the next one goes to place ``enqueued % L``."""

    def __init__(
        self,
        num_ids: int,
        dcc_size: int,
        embedding_size: int,
        queue_length: int,
        temperature: float,
        storage: StorageType = "fp32",
        *,
        ranks: Ranks = ALONE,
        device: torch.device | None = None,
    ) -> None:
        super().__init__(num_ids, dcc_size, embedding_size, queue_length, storage, ranks=ranks, device=device)
        self.queue_length = queue_length
        self.temperature = temperature
        rows = dcc_size * queue_length
        self.queue = SlotStorage(rows, embedding_size, storage, ranks=ranks, unit=queue_length, device=device)
        self.register_buffer("enqueued", torch.zeros(dcc_size, dtype=torch.int32, device=device))

    def positive(self, query: Tensor, fresh: Tensor | None, labels: Tensor) -> Tensor:
        """Return the attention of the queries over the queues as they will be."""
        slot, resident = self.find(labels)
        queue, present = self._queue_of(slot, resident, self.queue.read_for_each)
        if fresh is not None:
            self._put_fresh(queue, present, self._next_place(slot, resident), fresh)
        return normalize(generate_class_centers(query, queue, self.temperature, present), dim=1)

    def _refresh(self, slot: Tensor, resident: Tensor, means: Tensor, step: int) -> Writes:  # noqa: ARG002  # nothing is blended
        """Compute the writes of the new GCCs, in place of the oldest, and of the means of the queues, as centers."""
        # A slot that changes hands starts at place 0 with a count of 0: what it holds of the former identity is not present.
        enqueued = torch.where(resident, self.enqueued[slot], 0)
        place = self._next_place(slot, resident)
        # The queue of slot c is rows c L .. c L + L - 1.
        rows = slot * self.queue_length + place
        rounded = self.queue.rounded(rows, means)
        # The mean is of the GCCs as they will be read again, so it does not depend on when it is made.
        queue, present = self._queue_of(slot, resident, self.queue.read)
        self._put_fresh(queue, present, place, rounded.widened())
        return [
            *self.queue.writes(rows, rounded),
            IndexCopy(self.enqueued, slot, enqueued + 1),
            *self._average(slot, queue, present),
        ]

    def average_queues(self, slot: Tensor) -> None:
        """Make the centers of filled slots [B] the means of their queues."""
        commit(self._average(slot, *self._queue_of(slot, torch.ones_like(slot, dtype=torch.bool), self.queue.read)))

    def _average(self, slot: Tensor, queue: Tensor, present: Tensor) -> Writes:
        """Compute the writes that make the means of `queue` [L, B, D], where `present` [L, B], the centers of slots [B]."""
        means = normalize((queue * present[..., None]).sum(0), dim=1)
        return self.centers.writes(slot, self.centers.rounded(slot, means))

    def _put_fresh(self, queue: Tensor, present: Tensor, place: Tensor, fresh: Tensor) -> None:
        """Put fresh GCCs [B, D] at `place` [B] of copies of the queues, in place."""
        queue.scatter_(0, place[None, :, None].expand_as(queue[:1]), fresh[None])
        present.scatter_(0, place[None], True)

    def _next_place(self, slot: Tensor, resident: Tensor) -> Tensor:
        """Return where in its queue each identity's next GCC goes, int64 [B]."""
        return torch.where(resident, self.enqueued[slot].long() % self.queue_length, 0)

    def _queue_of(self, slot: Tensor, resident: Tensor, read: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """Return the queues of slots [B], unit fp32 [L, B, D], and which places hold something, bool [L, B].

        Args:
            read: reads rows of `queue`.
        """
        places = torch.arange(self.queue_length, device=slot.device)[:, None]
        rows = slot * self.queue_length + places
        queue = read(rows.flatten()).view(*rows.shape, -1)
        return queue, (places < self.enqueued[slot]) & resident
