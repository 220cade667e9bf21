"""The dynamic class container (DCC): the rotating set of class centers that stands in for the FC layer (DESIGN 5).

Two policies. `FifoContainer` is the paper's ring: every batch overwrites the oldest slots, an identity may hold several.
`IdentityContainer` gives an identity one slot, refreshes it in place as a running mean, and evicts the slot that was updated
longest ago. Both work on the device with static shapes: no host sync, no loop over samples, nothing that depends on values.

A batch larger than the container counts as its last C samples. Legend: B samples, C slots, D dimensions.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from attfc_train.losses import EMPTY

RANDOM = -2
"""Label of a slot that holds a random unit vector: scored as a negative by everyone, the identity of nobody."""

_NEVER_EVICT = torch.iinfo(torch.int64).max


class DynamicClassContainer(Protocol):
    """What a head needs of a container."""

    slots: Tensor
    """[C, D]; unit vectors, or unit vectors once multiplied with `slot_scales`."""
    slot_scales: Tensor | None
    """fp32 [C]: slot c's center is slots[c] * slot_scales[c]; None: the slots are the centers."""
    slot_labels: Tensor
    """int64 [C]: identity, `EMPTY` (not scored) or `RANDOM` (scored, nobody's)."""

    def lookup(self, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Each sample's stored center [B, D] (any vector where there is none) and whether there is one, bool [B]."""
        ...

    def blended(self, centers: Tensor, labels: Tensor) -> Tensor:
        """What the slots of `labels` would hold after `centers` [B, D] were enqueued, sample by sample: unit [B, D]."""
        ...

    def enqueue(self, centers: Tensor, labels: Tensor, step: int) -> None:
        """Stores unit vectors [B, D] of identities [B] at optimiser step `step`."""
        ...


class FifoContainer(nn.Module):
    """The paper's ring buffer; starts full of random unit vectors, as the released code does."""

    slots: Tensor
    slot_scales: Tensor | None
    slot_labels: Tensor

    def __init__(self, dcc_size: int, embedding_size: int, *, device: torch.device | None = None) -> None:
        super().__init__()
        slots = torch.randn(dcc_size, embedding_size, device=device)
        # In place: a second copy of a large container while building would be the peak of the whole run.
        self.register_buffer("slots", slots.div_(torch.linalg.vector_norm(slots, dim=1, keepdim=True)))
        self.register_buffer("slot_scales", None)
        self.register_buffer("slot_labels", torch.full((dcc_size,), RANDOM, device=device))
        self.position = 0

    def get_extra_state(self) -> dict[str, int]:
        """The ring position, for ``state_dict``."""
        return {"position": self.position}

    def set_extra_state(self, state: dict[str, int]) -> None:
        """Restores the ring position."""
        self.position = state["position"]

    def lookup(self, labels: Tensor) -> tuple[Tensor, Tensor]:
        """A ring has no place for an identity: nothing is ever found."""
        return self.slots.new_zeros(labels.shape[0], self.slots.shape[1]), torch.zeros_like(labels, dtype=torch.bool)

    def blended(self, centers: Tensor, labels: Tensor) -> Tensor:  # noqa: ARG002  # the protocol's signature
        """The new centers themselves."""
        return centers

    def enqueue(self, centers: Tensor, labels: Tensor, step: int) -> None:  # noqa: ARG002  # age is the position here
        """Overwrites the oldest slots, wrapping around."""
        size = self.slots.shape[0]
        centers, labels = centers[-size:], labels[-size:]
        index = (torch.arange(labels.shape[0], device=labels.device) + self.position) % size
        self.slots.index_copy_(0, index, centers.to(self.slots.dtype))
        self.slot_labels.index_copy_(0, index, labels)
        self.position = (self.position + labels.shape[0]) % size


class IdentityContainer(nn.Module):
    """One slot per identity with a running mean of its last centers: center <- normalise((L-1)/L center + 1/L new).

    With C >= identities the slot *is* the label. Otherwise a map identity -> slot (int32 per identity) finds it, and new
    identities take empty slots first, then those updated longest ago (ties: the lower slot). Several samples of one
    identity in a batch are averaged and refresh its slot once.

    Args:
        num_ids: identities. dcc_size: C. queue_length: L >= 1; 1 keeps only the newest center.
    """

    slots: Tensor
    slot_scales: Tensor | None
    slot_labels: Tensor

    def __init__(
        self, num_ids: int, dcc_size: int, embedding_size: int, queue_length: float, *, device: torch.device | None = None
    ) -> None:
        super().__init__()
        self.blend = 1.0 / queue_length
        self.register_buffer("slots", torch.zeros(dcc_size, embedding_size, device=device))
        self.register_buffer("slot_scales", None)
        self.register_buffer("slot_labels", torch.full((dcc_size,), EMPTY, device=device))
        # The last entry of slot_of belongs to nobody: writes that must not happen go there.
        self.slot_of: Tensor | None
        self.last_update: Tensor | None
        mapped = dcc_size < num_ids
        self.register_buffer("slot_of", torch.full((num_ids + 1,), -1, dtype=torch.int32, device=device) if mapped else None)
        self.register_buffer("last_update", torch.full((dcc_size,), -1, device=device) if mapped else None)

    def lookup(self, labels: Tensor) -> tuple[Tensor, Tensor]:
        """See `DynamicClassContainer.lookup`."""
        slot, resident = self._find(labels)
        return self.slots[slot], resident

    def blended(self, centers: Tensor, labels: Tensor) -> Tensor:
        """See `DynamicClassContainer.blended`."""
        old, resident = self.lookup(labels)
        mean = torch.lerp(old, centers.to(old.dtype), self.blend)
        return normalize(torch.where(resident[:, None], mean, centers), dim=1)

    def enqueue(self, centers: Tensor, labels: Tensor, step: int) -> None:
        """See `DynamicClassContainer.enqueue`."""
        size = self.slots.shape[0]
        identities, means, first = _mean_per_identity(centers[-size:], labels[-size:])
        fresh = self.blended(means, identities)
        slot = identities if self.slot_of is None else self._claim(identities, first, step)
        self.slots.index_copy_(0, slot, fresh)
        self.slot_labels.index_copy_(0, slot, identities)

    def _find(self, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Slot (0 where there is none) and residency of each label."""
        if self.slot_of is None:
            return labels, self.slot_labels[labels] == labels
        slot = self.slot_of[labels].long()
        return slot.clamp_min(0), slot >= 0

    def _claim(self, identities: Tensor, first: Tensor, step: int) -> Tensor:
        """A slot for every identity; new ones evict. `first` [B] maps repeated rows to the row they repeat."""
        assert self.slot_of is not None
        assert self.last_update is not None
        size, nobody = self.slots.shape[0], self.slot_of.shape[0] - 1
        slot, resident = self._find(identities)
        new = ~resident & (first == torch.arange(first.shape[0], device=first.device))
        victims = self._oldest(torch.where(resident, slot, size), identities.shape[0])
        slot = torch.where(new, victims[(new.cumsum(0) - 1).clamp_min(0)], slot)[first]
        evicted = self.slot_labels[slot]
        self.slot_of.index_fill_(0, torch.where(new & (evicted >= 0), evicted, nobody), -1)
        self.slot_of.index_copy_(0, identities, slot.int())
        self.last_update.index_fill_(0, slot, step)
        return slot

    def _oldest(self, refreshed: Tensor, count: int) -> Tensor:
        """The `count` slots updated longest ago, oldest first, those in `refreshed` (C = none) last."""
        assert self.last_update is not None
        size = self.slots.shape[0]
        # Unique keys make the order, and so the whole run, reproducible: topk does not say how it breaks ties.
        key = torch.cat([self.last_update * size, self.last_update.new_zeros(1)])
        key[:size].add_(torch.arange(size, device=key.device))
        key.index_fill_(0, refreshed, _NEVER_EVICT)
        return key[:size].topk(count, largest=False, sorted=True).indices


def _mean_per_identity(centers: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Groups a batch by identity with static shapes.

    Returns:
        identities [B], unit mean centers [B, D], and `first` int64 [B]: rows past the number of groups repeat row 0
        (their `first` is 0), every other row is its own.
    """
    num = labels.shape[0]
    ordered, order = labels.sort(stable=True)
    starts = torch.ones_like(ordered, dtype=torch.bool)
    torch.ne(ordered[1:], ordered[:-1], out=starts[1:])
    group = starts.cumsum(0) - 1
    sums = torch.zeros_like(centers).index_add_(0, group, centers[order])
    identities = torch.zeros_like(ordered).scatter_(0, group, ordered)
    rows = torch.arange(num, device=labels.device)
    first = torch.where(rows <= group[-1], rows, 0)
    return identities[first], normalize(sums, dim=1)[first], first
