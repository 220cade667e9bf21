"""Least recently used slots for a batch of labels, as if they came one after the other: on the device, without a loop.

LRU is a stack: an identity that was used before is still there if fewer than K distinct identities were used since. So which
labels hit depends on counts, and these are comparisons of the batch with itself. Misses evict in the order of last use. Let the
*uses* be the slots from the one used longest ago on (free ones before all others, the lower first), then the batch's labels in
order. A use that a later hit renews evicts nobody; of all others the n-th miss takes the n-th one's slot.

Only the b slots used longest ago can change hands in a batch of b labels, so nothing but their selection is larger than b x b.
Legend: b labels, K slots, W = min(b, K) slots used longest ago.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

MOST_LABEL_BITS = 15
"""A batch has at most 2^15 labels."""


@dataclass(frozen=True, slots=True)
class Touches:
    """The slots of a batch of labels."""

    slot: Tensor
    """int64 [b]: where each label is when its turn is over."""
    hit: Tensor
    """bool [b]: the label had this slot before its turn."""


@dataclass(frozen=True, slots=True)
class _Repeats:
    """Where else in the batch a label is."""

    before: Tensor
    """int64 [b]: place of the label's last use before this one; -1: none."""
    after: Tensor
    """int64 [b]: place of its next use; b: none."""


def touched(labels: Tensor, slot: Tensor, resident: Tensor, recency: Tensor) -> Touches:
    """Return the slots that labels take one after the other.

    Args:
        labels: int64 [b].
        slot, resident: [b], each label's slot before the batch, and whether it has one (else any valid slot).
        recency: int64 [K], unique: larger is more recent; free slots are below all others, the lower first.
    """
    num = labels.shape[0]
    oldest = recency.topk(min(num, recency.shape[0]), largest=False, sorted=True).indices
    place, among = _place_in(oldest, slot, resident)
    repeats = _repeats(labels)
    hit = _hits(repeats, place, resident, recency.shape[0])
    first_hit = hit & (repeats.before < 0)
    taken = _takers(_renewed(repeats, hit, first_hit & among, place, oldest.shape[0]), hit)
    return Touches(_slots(taken, repeats, hit, torch.where(first_hit, slot, -1), oldest), hit)


def _place_in(oldest: Tensor, slot: Tensor, resident: Tensor) -> tuple[Tensor, Tensor]:
    """Return the place of each label's slot among the W oldest (W: it is not there), int64 [b], and whether it is there."""
    same = (slot[:, None] == oldest) & resident[:, None]
    places = torch.arange(oldest.shape[0], device=slot.device)
    place = torch.where(same, places, oldest.shape[0]).amin(1)
    return place, place < oldest.shape[0]


def _repeats(labels: Tensor) -> _Repeats:
    num = labels.shape[0]
    places = torch.arange(num, device=labels.device)
    same = labels[:, None] == labels
    earlier = places < places[:, None]
    return _Repeats(
        torch.where(same & earlier, places, -1).amax(1),
        torch.where(same & earlier.t(), places, num).amin(1),
    )


def _hits(repeats: _Repeats, place: Tensor, resident: Tensor, size: int) -> Tensor:
    """Return which labels are still held when their turn comes, bool [b]."""
    num = place.shape[0]
    places = torch.arange(num, device=place.device)
    earlier = places < places[:, None]
    # Used since the label's last use in the batch: j is the last use of its identity before i, and comes after `before`.
    between = earlier & (places > repeats.before[:, None]) & (repeats.after >= places[:, None])
    # Used since its last use before the batch: the slots that were more recent, K - 1 - place, and of the batch's earlier
    # identities (each counted at its first use) those that were not among these.
    more_recent = resident & (place > place[:, None])
    others = earlier & (repeats.before < 0) & ~more_recent
    since_batch = (between.sum(1) < size) & (repeats.before >= 0)
    since_before = (size - 1 - place + others.sum(1) < size) & resident & (repeats.before < 0)
    return since_batch | since_before


def _renewed(repeats: _Repeats, hit: Tensor, first_hit: Tensor, place: Tensor, num_oldest: int) -> Tensor:
    """Return which uses a later hit renews, bool [W + b]: of the oldest slots, then of the batch."""
    num = hit.shape[0]
    # A slot's use is renewed by the first hit of its identity. What is no such hit adds 0, wherever it is.
    count = torch.zeros(num_oldest, dtype=torch.int64, device=hit.device)
    count.scatter_add_(0, place.clamp_max(num_oldest - 1), first_hit.long())
    batch = hit[repeats.after.clamp_max(num - 1)] & (repeats.after < num)
    return torch.cat([count > 0, batch])


def _takers(renewed: Tensor, hit: Tensor) -> Tensor:
    """Return the use whose slot each label takes if it misses, int64 [b]: the n-th miss that of the n-th use left over."""
    left = ~renewed
    # nth[rank of use u among those left over] = u. A renewed use adds 0.
    rank = (left.cumsum(0) - 1).clamp_min(0)
    uses = torch.arange(renewed.shape[0], device=renewed.device)
    nth = torch.zeros_like(uses).scatter_add_(0, rank, uses * left)
    return nth[((~hit).cumsum(0) - 1).clamp_min(0)]


def _slots(taken: Tensor, repeats: _Repeats, hit: Tensor, known: Tensor, oldest: Tensor) -> Tensor:
    """Return each label's slot.

    Args:
        taken: [b], the use that a miss evicts. known: [b], the slot of an identity's first hit; -1 elsewhere.
    """
    num = hit.shape[0]
    num_oldest = oldest.shape[0]
    from_slot = ~hit & (taken < num_oldest)
    slot = torch.where(from_slot, oldest[taken.clamp_max(num_oldest - 1)], known)
    # The others have the slot of an earlier label: a repeat that of its last use, a miss that of the use that it evicts. Such
    # links point back, link(i) < i, so following link <- link(link) ends after log2(b) rounds. As many rounds for every b: the
    # operators of a step must not depend on it.
    places = torch.arange(num, device=hit.device)
    link = torch.where(hit, repeats.before, taken - num_oldest)
    link = torch.where(slot >= 0, places, link)
    for _ in range(MOST_LABEL_BITS):
        link = link[link]
    return slot[link]
