"""The rows of a table that one of several processes holds: a contiguous part of a container's slots, or a layer's rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Shard:
    """The rows `first` .. `first + num` of `total`."""

    first: int
    num: int
    total: int
    unit: int = 1
    """Rows that are not torn apart."""

    @staticmethod
    def of(total: int, rank: int, size: int, unit: int = 1) -> Shard:
        """Return the part of rank `rank` of `size`: parts differ by one unit at most."""
        units = total // unit
        first = units * rank // size
        return Shard(first * unit, (units * (rank + 1) // size - first) * unit, total, unit)

    def of_rank(self, rank: int, size: int) -> Shard:
        """Return the part of the same table that another process holds."""
        return Shard.of(self.total, rank, size, self.unit)

    @property
    def is_whole(self) -> bool:
        """Whether it is all rows."""
        return self.num == self.total

    @property
    def stop(self) -> int:
        """The row behind the last."""
        return self.first + self.num

    def within(self, span: range) -> range:
        """Return those rows of a contiguous `span` that are in the part, counted from the part's first."""
        start = min(max(span.start, self.first), self.stop)
        stop = max(start, min(span.stop, self.stop))
        return range(start - self.first, stop - self.first)

    def places(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return where rows int64 [n] of the table lie in the part, and whether they do, bool [n]; elsewhere the place is 0."""
        places = rows - self.first
        inside = (places >= 0) & (places < self.num)
        return places.masked_fill(~inside, 0), inside
