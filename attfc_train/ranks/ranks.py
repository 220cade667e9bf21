"""The processes of a run as a train step sees them; here the one process that trains alone.

Everything that processes exchange goes through a `Ranks`. For one process each method returns what it got: it dispatches no
operator, and torch.distributed is not loaded (`attfc_train.ranks.group` is the other implementation).

A step's *joined batch* is what one process alone would train on. Of K processes, rank r has its rows r, r + K, r + 2 K ... So a
part of the joined batch is made of the same part of every process's share, whatever their number.

Legend: B rows of the joined batch, b = B / K of one process, D dimensions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from attfc_train.ranks.shard import Shard

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_Value = TypeVar("_Value")


class StoppedElsewhereError(RuntimeError):
    """A step cannot be ended, because another process gave it up.

    Args:
        reason: what that one gave for it (`Ranks.broken_off`).
    """

    def __init__(self, reason: object) -> None:
        super().__init__("another process gave up the step")
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Ranks:
    """A process among equal ones.

    Args:
        rank: number of this process, from 0 on.
        size: K, number of processes.
    """

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process speaks for all: it writes, evaluates and prints."""
        return self.rank == 0

    @property
    def is_alone(self) -> bool:
        """Whether there is nobody to exchange with."""
        return self.size == 1

    def on(self, device: torch.device) -> Ranks:
        """Return the same process, which exchanges tensors on its own `device` from now on; all processes must call it."""
        del device
        return self

    def told(self, value: _Value) -> _Value:
        """Return rank 0's value, which must pickle; on the host, and all processes wait for each other."""
        return value

    def everyones(self, value: _Value) -> list[_Value]:
        """Return what each process gives, which must pickle, by rank; on the host, and all processes wait for each other."""
        return [value]

    def agreed(self, number: int) -> int:
        """Return the largest number that a process gives; on the host, and all processes wait for each other."""
        return number

    def all_ready(self) -> None:
        """Wait, on the host, until every process has computed its step up to what cannot be undone.

        Raises:
            StoppedElsewhereError: one of them gave it up, so none can go on.
        """

    def hears_of_break(self, seconds: float) -> bool:
        """Return whether another process gave up the step under way, waiting for such news; none comes to one process alone."""
        del seconds
        return False

    def broken_off(self, reason: _Value | None) -> list[_Value | None]:
        """Give up the step under way, which ends the exchanges that the others are in; return everyone's reason, by rank.

        Every process must call it that did not get a `StoppedElsewhereError`.

        Args:
            reason: must pickle. None: another process has one (`hears_of_break`).
        """
        return [reason]

    def begin_again(self) -> None:
        """Be ready for exchanges again after a step that was given up; all processes must call it."""

    def shard(self, total: int, unit: int = 1) -> Shard:
        """Return which of `total` rows of a table this process holds; `unit` rows are not torn apart."""
        return Shard.of(total, self.rank, self.size, unit)

    def sum_in_place(self, tensors: Sequence[Tensor]) -> None:
        """Replace each floating-point tensor by its sum over all processes."""
        del tensors

    def begin_sum(self, values: Tensor) -> Callable[[], object]:
        """Begin to replace floating-point `values` by their sum over all processes; return what waits for it."""
        del values
        return lambda: None

    def average_in_place(self, tensors: Sequence[Tensor]) -> None:
        """Replace each floating-point tensor by its mean over all processes."""
        del tensors

    def gathered(self, rows: Tensor) -> Tensor:
        """Return the rows [B, ...] of the joined batch, of which this process gives [b, ...]."""
        return rows

    def own(self, joined: Tensor) -> Tensor:
        """Return this process's rows [b, ...] of the joined batch's [B, ...]."""
        return joined

    def share_of_sum(self, summands: Tensor) -> Tensor:
        """Return this process's rows [b, ...] of the sum over all processes of summands [B, ...]."""
        return summands

    def summed(self, summand: Tensor) -> Tensor:
        """Return the sum over all processes."""
        return summand

    def largest(self, value: Tensor) -> Tensor:
        """Return the largest of all processes' values, element by element."""
        return value

    def collected(self, rows: Tensor, shard: Shard) -> Iterator[Tensor]:
        """Yield the rows of a whole table in order, some at a time, on the CPU of rank 0; on others nothing: they give theirs.

        All processes must iterate to the end. The next piece may take the place of the one before.

        Args:
            rows: this process's [shard.num, ...], of any dtype.
        """
        del shard
        yield rows


ALONE = Ranks()
"""The one process of a run."""


def buckets(tensors: Iterable[Tensor], num_bytes: int) -> Iterator[list[Tensor]]:
    """Yield the tensors in order, of one dtype and about `num_bytes` at a time, to be exchanged as one.

    Args:
        num_bytes: a bucket is full with so many; its last tensor may go beyond.
    """
    bucket: list[Tensor] = []
    for tensor in tensors:
        if bucket and (sum(each.nbytes for each in bucket) >= num_bytes or bucket[0].dtype != tensor.dtype):
            yield bucket
            bucket = []
        bucket.append(tensor)
    if bucket:
        yield bucket
