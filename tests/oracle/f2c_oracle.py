"""F2C's class pool as a dictionary and loops, and its loss with all cosines in memory: what the fast ones must equal."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Vectors = NDArray[np.float64]


class LruOracle:
    """identity -> slot, least recently used first; a full one gives the slot of its first identity to the next new one."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.held: dict[int, int] = {}

    def newest_first(self) -> list[tuple[int, int]]:
        return list(self.held.items())[::-1]

    def view(self, key: int) -> int:
        """Return a slot, or -1; changes nothing."""
        return self.held.get(key, -1)

    def get(self, key: int) -> tuple[int, bool]:
        """Return the key's slot, now the most recent one, and whether it had it before."""
        hit = key in self.held
        if hit:
            slot = self.held.pop(key)
        elif len(self.held) < self.capacity:
            slot = min(set(range(self.capacity)) - set(self.held.values()))
        else:
            slot = self.held.pop(next(iter(self.held)))
        self.held[key] = slot
        return slot, hit


class PoolOracle:
    """The pool of two rows a slot, and which of them is overwritten next."""

    def __init__(self, rows: Vectors) -> None:
        """Copy rows [2, K, D]."""
        self.rows = rows.copy()
        self.lru = LruOracle(rows.shape[1])
        self.next_row = [0] * rows.shape[1]

    def copy(self) -> PoolOracle:
        other = PoolOracle(self.rows)
        other.lru.held, other.next_row = dict(self.lru.held), list(self.next_row)
        return other

    def enqueue(self, vectors: Vectors, labels: Sequence[int]) -> set[int]:
        """Write one vector after the other; return the slots whose identity was touched again."""
        again: set[int] = set()
        for vector, label in zip(vectors, labels, strict=True):
            slot, hit = self.lru.get(label)
            again = again | {slot} if hit else again - {slot}
            row = self.next_row[slot] if hit else 0
            self.rows[row, slot] = vector
            self.next_row[slot] = 1 - row
        return again

    def views(self, again: set[int]) -> tuple[Vectors, Vectors]:
        """Return what a query is scored against first and second, [K, D] each."""
        second = self.rows[0].copy()
        for slot in again:
            second[slot] = self.rows[1, slot]
        return self.rows[0], second


def margin_logits(cosines: Tensor, target: int, kind: str, margin: float, factor: float) -> Tensor:
    """Return one query's logits [K] without the scale."""
    own = cosines[target]
    others = cosines
    if kind == "am":
        own = own - margin
    elif kind == "arc":
        own = torch.cos(torch.arccos(own) + margin)
    else:
        others = torch.where(cosines > own - margin, factor * cosines + factor - 1, cosines)
        own = own - margin if own > margin else own
    return torch.where(torch.arange(len(cosines)) == target, own, others)


def pass_loss(
    queries: Tensor,
    slots: Sequence[int],
    views: Sequence[Vectors],
    kind: str,
    margin: float,
    scale: float,
    num_hardest: int,
    factor: float = 1.2,
) -> Tensor:
    """Return the loss of unit queries, fp64 [b, D], whose identities have these slots, -1: none; autograd differentiates it."""
    total = queries.new_zeros(())
    for view in views:
        inside, outside = [], []
        for cosines, slot in zip(queries @ torch.from_numpy(view).T, slots, strict=True):
            if slot < 0:
                outside.append(cosines.sort(descending=True).values[:num_hardest].clamp_min(0).mean())
                continue
            logits = scale * margin_logits(cosines, slot, kind, margin, factor)
            inside.append(torch.logsumexp(logits, 0) - logits[slot])
        total = total + sum(torch.stack(each).mean() for each in (inside, outside) if each)
    return total
