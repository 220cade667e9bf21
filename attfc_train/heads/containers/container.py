"""The dynamic class container (DCC): the rotating set of class centers that AttFC has in place of the FC layer.

Two policies (docs/methods.md, "Containers"). `FifoContainer` is the paper's ring: every batch overwrites the oldest slots, an
identity may hold several. `IdentityContainer` gives an identity one slot, refreshes it in place as a running mean, and evicts
the slot that was updated longest ago. Both work on the device with static shapes: no host sync, no loop over samples.

Several processes share the centers, which are nearly all of the memory. Labels, ages and the map of slots are the same on all,
because all enqueue the same joined batch: what is where, and what is evicted, needs no exchange.

A batch larger than the container counts as its last C samples. Legend: B samples, C slots, D dimensions.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from attfc_train.heads.containers.slot_storage import SlotStorage
from attfc_train.heads.containers.writes import IndexCopy, IndexFill, Write, Writes, commit
from attfc_train.losses.slots import EMPTY, Slots
from attfc_train.ranks.ranks import ALONE, Ranks
from attfc_train.rounding import StorageType

RANDOM = -2
"""Label of a slot that holds a random unit vector: scored as a negative by everyone, the identity of nobody."""

_NEVER_EVICT = torch.iinfo(torch.int64).max


class DynamicClassContainer(nn.Module, ABC):
    """The common part of all containers: the buffers, and what a head and a log line ask."""

    slot_labels: Tensor
    """int64 [C]: identity, `EMPTY` (not scored) or `RANDOM` (scored, nobody's)."""
    last_update: Tensor
    """int32 [C]: the last optimiser step that wrote the slot; -1: none did."""

    def __init__(
        self,
        dcc_size: int,
        embedding_size: int,
        label: int,
        storage: StorageType,
        ranks: Ranks,
        device: torch.device | None,
    ) -> None:
        super().__init__()
        self.centers = SlotStorage(dcc_size, embedding_size, storage, ranks=ranks, device=device)
        self.register_buffer("slot_labels", torch.full((dcc_size,), label, device=device))
        self.register_buffer("last_update", torch.full((dcc_size,), -1, dtype=torch.int32, device=device))

    @property
    def slots(self) -> Slots:
        """The class centers as a loss scores them, of several processes this one's; views of the buffers."""
        if self.centers.ranks.size > 1:
            return self.slots_within(range(len(self.slot_labels)))
        return Slots(self.centers.values, self.centers.scales, self.slot_labels)

    def slots_within(self, span: range) -> Slots:
        """Return some of the slots as a loss scores them, of several processes this one's; views of the buffers.

        They are numbered from the beginning of `span` on.
        """
        shard = self.centers.shard
        own = shard.within(span)
        labels = self.slot_labels[shard.first + own.start : shard.first + own.stop]
        first = shard.first + own.start - span.start
        return Slots(*self.centers.part(span), labels, first=first, ranks=self.centers.ranks)

    @abstractmethod
    def find(self, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the slot of each label, int64 [B] (any valid one where there is none), and whether there is one, bool [B]."""

    def stands_for(self, labels: Tensor) -> Tensor:
        """Return whether each identity is scored by a slot, bool [B]: new centers beside it would count the identity twice."""
        return self.find(labels)[1]

    @abstractmethod
    def positive(self, query: Tensor, fresh: Tensor | None, labels: Tensor) -> Tensor:
        """Return the vectors that the samples are scored against as their own class.

        Args:
            query: unit vectors [B, D]. fresh: their new centers, unit [B, D]; None: only what is stored counts.

        Returns:
            unit [B, D]; any finite vector where nothing is stored and nothing is fresh.
        """

    def enqueue(self, centers: Tensor, labels: Tensor, step: int) -> None:
        """Store fp32 unit vectors [B, D] of identities [B] at optimiser step `step`."""
        commit(self.prepare_enqueue(centers, labels, step))

    @abstractmethod
    def prepare_enqueue(self, centers: Tensor, labels: Tensor, step: int) -> Writes:
        """Compute everything of `enqueue` that needs memory; the container changes when the writes are made."""


class FifoContainer(DynamicClassContainer):
    """The paper's ring buffer; starts full of random unit vectors, as the released code does."""

    def __init__(
        self,
        dcc_size: int,
        embedding_size: int,
        storage: StorageType = "fp32",
        *,
        ranks: Ranks = ALONE,
        device: torch.device | None = None,
    ) -> None:
        super().__init__(dcc_size, embedding_size, RANDOM, storage, ranks, device)
        self.centers.randomise()
        self.position = 0

    def get_extra_state(self) -> dict[str, int]:
        """Return the ring position, for ``state_dict``."""
        return {"position": self.position}

    def set_extra_state(self, state: dict[str, int]) -> None:
        """Restore the ring position."""
        self.position = state["position"]

    def find(self, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the newest slot of each label; searches all slots, and only the log asks for it."""
        size = self.slot_labels.shape[0]
        ordered = labels.sort().values
        # Where in the sorted batch each slot's identity is, or would be: of equal labels the first.
        place = torch.searchsorted(ordered, self.slot_labels).clamp_(max=labels.shape[0] - 1)
        # rank(slot) = (slot - position) mod C: 0 is the oldest slot, C - 1 the newest; -1: of no identity in the batch.
        rank = torch.arange(size, device=labels.device).sub_(self.position).remainder_(size)
        rank.masked_fill_(ordered[place] != self.slot_labels, -1)
        # Each label's highest rank, and from that its slot: slot = (rank + position) mod C.
        newest = torch.full_like(labels, -1).scatter_reduce_(0, place, rank, "amax")[torch.searchsorted(ordered, labels)]
        return (newest + self.position) % size, newest >= 0

    def stands_for(self, labels: Tensor) -> Tensor:
        """Return False for all: a slot is what an identity once was, and its new center joins it."""
        return torch.zeros_like(labels, dtype=torch.bool)

    def positive(self, query: Tensor, fresh: Tensor | None, labels: Tensor) -> Tensor:  # noqa: ARG002  # nothing else counts
        """Return the fresh centers."""
        assert fresh is not None, "the fifo policy needs references"
        return fresh

    def prepare_enqueue(self, centers: Tensor, labels: Tensor, step: int) -> Writes:
        """Compute the writes that overwrite the oldest slots, wrapping around."""
        size = self.slot_labels.shape[0]
        centers = centers[-size:]
        labels = labels[-size:]
        index = (torch.arange(labels.shape[0], device=labels.device) + self.position) % size
        return [
            *self.centers.writes(index, self.centers.rounded(index, centers)),
            IndexCopy(self.slot_labels, index, labels),
            IndexFill(self.last_update, index, step),
            _Turn(self, (self.position + labels.shape[0]) % size),
        ]


@dataclass(frozen=True, slots=True)
class _Turn(Write):
    """Moves a ring on to its next slot."""

    ring: FifoContainer
    position: int

    def make(self) -> None:
        """See `Write.make`."""
        self.ring.position = self.position


class IdentityContainer(DynamicClassContainer):
    """One slot per identity with a running mean of its centers: ``center <- normalise((L - 1) / L center + 1 / L new)``.

    With C >= identities the slot *is* the label. Otherwise a map identity -> slot (int32 per identity) finds it, and new
    identities take empty slots first, then those updated longest ago (ties: the lower slot). Several samples of one
    identity in a batch are averaged and refresh its slot once.

    Args:
        num_ids: identities. dcc_size: C. queue_length: L >= 1; 1 keeps only the newest center.
    """

    def __init__(
        self,
        num_ids: int,
        dcc_size: int,
        embedding_size: int,
        queue_length: float,
        storage: StorageType = "fp32",
        *,
        ranks: Ranks = ALONE,
        device: torch.device | None = None,
    ) -> None:
        super().__init__(dcc_size, embedding_size, EMPTY, storage, ranks, device)
        self.blend = 1.0 / queue_length
        # The last entry belongs to nobody: static shapes cannot leave a write out, so one that must not happen goes there.
        self.slot_of: Tensor | None
        mapped = dcc_size < num_ids
        self.register_buffer("slot_of", torch.full((num_ids + 1,), -1, dtype=torch.int32, device=device) if mapped else None)

    def find(self, labels: Tensor) -> tuple[Tensor, Tensor]:
        """See `DynamicClassContainer.find`."""
        if self.slot_of is None:
            return labels, self.slot_labels[labels] == labels
        slot = self.slot_of[labels].long()
        return slot.clamp_min(0), slot >= 0

    def positive(self, query: Tensor, fresh: Tensor | None, labels: Tensor) -> Tensor:  # noqa: ARG002  # see the subclass
        """Return what the slot will hold; without fresh centers, what it holds."""
        slot, resident = self.find(labels)
        stored = self.centers.read_for_each(slot)
        return stored if fresh is None else self._blended(stored, resident, fresh)

    def prepare_enqueue(self, centers: Tensor, labels: Tensor, step: int) -> Writes:
        """See `DynamicClassContainer.prepare_enqueue`."""
        size = self.slot_labels.shape[0]
        identities, means, first = _mean_per_identity(centers[-size:], labels[-size:])
        slot, resident = self.find(identities)
        claims: Writes = []
        if self.slot_of is not None:
            slot, claims = self._claim(identities, slot, resident, first)
        return [
            *claims,
            *self._refresh(slot, resident, means, step),
            IndexCopy(self.slot_labels, slot, identities),
            IndexFill(self.last_update, slot, step),
        ]

    def _refresh(self, slot: Tensor, resident: Tensor, means: Tensor, step: int) -> Writes:
        """Compute the writes of a batch's centers [B, D]; `resident`: the slot already held this identity."""
        # A running mean may move by less than a quantum, which only stochastic rounding keeps; a replaced center does not move.
        noise_step = step if self.blend < 1 else None
        blended = self._blended(self.centers.read(slot), resident, means)
        return self.centers.writes(slot, self.centers.rounded(slot, blended, noise_step))

    def _blended(self, stored: Tensor, resident: Tensor, fresh: Tensor) -> Tensor:
        """Return the running means [B, D] after one more center each, unit [B, D]."""
        # center + (new - center) / L = (L - 1) / L center + 1 / L new.
        means = torch.lerp(stored, fresh, self.blend)
        return normalize(torch.where(resident[:, None], means, fresh), dim=1)

    def _claim(self, identities: Tensor, slot: Tensor, resident: Tensor, first: Tensor) -> tuple[Tensor, Writes]:
        """Return a slot for every identity, and the writes to the map; new identities evict.

        Args:
            identities, slot, resident: [B], as `find` gives them. first: int64 [B], see `_mean_per_identity`.
        """
        assert self.slot_of is not None
        size = self.slot_labels.shape[0]
        nobody = self.slot_of.shape[0] - 1
        # A row that repeats another one must not claim a second slot.
        new = ~resident & (first == torch.arange(first.shape[0], device=first.device))
        victims = self._oldest(torch.where(resident, slot, size), identities.shape[0])
        # The n-th new identity takes the n-th victim, n = cumsum(new) - 1; repeated rows take the slot of the row they repeat.
        slot = torch.where(new, victims[(new.cumsum(0) - 1).clamp_min(0)], slot)[first]
        # Forget the evicted, then enter the batch. Who takes an empty slot evicts nobody: that write goes to the last entry.
        evicted = self.slot_labels[slot]
        return slot, [
            IndexFill(self.slot_of, torch.where(new & (evicted >= 0), evicted, nobody), -1),
            IndexCopy(self.slot_of, identities, slot.int()),
        ]

    def _oldest(self, refreshed: Tensor, count: int) -> Tensor:
        """Return the `count` slots updated longest ago, oldest first, those in `refreshed` (C = none) last."""
        size = self.slot_labels.shape[0]
        # key = C last_update + slot; empty slots (last update -1) come first, those that this batch refreshes last.
        # Unique keys make the order, and so the whole run, reproducible: topk does not say how it breaks ties.
        key = torch.arange(size + 1, device=refreshed.device)
        key[:size].add_(self.last_update, alpha=size)
        key.index_fill_(0, refreshed, _NEVER_EVICT)
        return key[:size].topk(count, largest=False, sorted=True).indices


def _mean_per_identity(centers: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Group a batch by identity with static shapes.

    Returns:
        identities [B], unit mean centers [B, D], and `first` int64 [B]: rows past the number of groups repeat row 0
        (their `first` is 0), every other row is its own.
    """
    num = labels.shape[0]
    ordered, order = labels.sort(stable=True)
    # A group starts where a label differs from the one before: labels 3 3 5 9 9 -> starts 1 0 1 1 0 -> groups 0 0 1 2 2.
    starts = torch.ones_like(ordered, dtype=torch.bool)
    torch.ne(ordered[1:], ordered[:-1], out=starts[1:])
    group = starts.cumsum(0) - 1
    # The mean as a direction: normalise(sum of the group's centers).
    sums = torch.zeros_like(centers).index_add_(0, group, centers[order])
    identities = torch.zeros_like(ordered).scatter_(0, group, ordered)
    # B rows for G <= B groups: the last B - G rows write what row 0 writes, which changes nothing.
    rows = torch.arange(num, device=labels.device)
    first = torch.where(rows <= group[-1], rows, 0)
    return identities[first], normalize(sums, dim=1)[first], first
