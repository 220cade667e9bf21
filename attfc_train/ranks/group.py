"""Several processes that exchange tensors by torch.distributed: NCCL between GPUs, gloo between CPUs.

Each method is a collective: all processes call the same ones in the same order, with tensors of the same shape.

Legend: B rows of the joined batch, b = B / K of one process, K processes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from attfc_train.ranks.ranks import Ranks, StoppedElsewhereError, buckets
from attfc_train.ranks.shard import Shard
from attfc_train.ranks.tables import PIECE_BYTES
from attfc_train.ranks.tensor_group import TensorGroup
from attfc_train.ranks.watch import Watch

_Value = TypeVar("_Value")

# torch 2.13 calls them by new names, and warns of the old ones.
_all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
_reduce_scatter = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor


@dataclass(frozen=True, slots=True)
class ProcessRanks(Ranks):
    """A process of groups that exist.

    Args:
        hosts: a group of the same processes that exchanges what the hosts must know, by gloo; None: the default one.
        devices: one that exchanges tensors where they are.
        watch: by which the others hear that this process gives up a step; None: they do not.
    """

    hosts: dist.ProcessGroup | None = None
    devices: TensorGroup = field(default_factory=TensorGroup)
    watch: Watch | None = None

    def on(self, device: torch.device) -> Ranks:
        """See `Ranks.on`."""
        if device.type == "cuda":
            torch.cuda.set_device(device)  # before NCCL takes the one that is set
        devices = TensorGroup("gloo" if device.type == "cpu" else "nccl")
        if self.watch is not None:
            self.watch.when_broken_off(devices.abort)
        return replace(self, devices=devices)

    def told(self, value: _Value) -> _Value:
        """See `Ranks.told`."""
        values = [value if self.is_first else None]
        dist.broadcast_object_list(values, 0, self.hosts)
        result: _Value = values[0]  # type: ignore[assignment]  # rank 0's
        return result

    def everyones(self, value: _Value) -> list[_Value]:
        """See `Ranks.everyones`."""
        values: list[_Value] = [value] * self.size
        dist.all_gather_object(values, value, self.hosts)
        return values

    def agreed(self, number: int) -> int:
        """See `Ranks.agreed`."""
        value = torch.tensor(number)
        dist.all_reduce(value, dist.ReduceOp.MAX, self.hosts)
        return int(value)

    def all_ready(self) -> None:
        """See `Ranks.all_ready`."""
        if self.agreed(0):
            self.devices.drop()
            raise StoppedElsewhereError(next(reason for reason in self.everyones(None) if reason is not None))

    def hears_of_break(self, seconds: float) -> bool:
        """See `Ranks.hears_of_break`."""
        return self.watch is not None and self.watch.is_broken_off(seconds)

    def broken_off(self, reason: _Value | None) -> list[_Value | None]:
        """See `Ranks.broken_off`."""
        if self.watch is not None and reason is not None:
            self.watch.break_off()
        self.devices.drop()
        self.agreed(1)
        return self.everyones(reason)

    def begin_again(self) -> None:
        """See `Ranks.begin_again`."""
        if self.watch is not None:
            self.watch.begin_again()
        self.devices.renew()
        if self.watch is None:
            return
        self.watch.go_on()
        if self.watch.is_broken_off(0):  # by another one that was faster, before there was anything to abort
            self.devices.abort()

    def sum_in_place(self, tensors: Sequence[Tensor]) -> None:
        """See `Ranks.sum_in_place`."""
        with torch.no_grad():
            for bucket in buckets(tensors, PIECE_BYTES):
                flat = torch.cat([tensor.reshape(-1) for tensor in bucket])
                self._add_up(flat)
                parts = flat.split([tensor.numel() for tensor in bucket])
                for tensor, part in zip(bucket, parts, strict=True):
                    tensor.copy_(part.view_as(tensor))

    def begin_sum(self, values: Tensor) -> Callable[[], object]:
        """See `Ranks.begin_sum`."""
        work = dist.all_reduce(values, group=self.devices.group, async_op=True)
        assert work is not None, "this process is in the group"
        wait: Callable[[], object] = work.wait
        return wait

    def average_in_place(self, tensors: Sequence[Tensor]) -> None:
        """See `Ranks.average_in_place`."""
        self.sum_in_place(tensors)
        for tensor in tensors:
            tensor.mul_(1 / self.size)

    def gathered(self, rows: Tensor) -> Tensor:
        """See `Ranks.gathered`."""
        if rows.numel() == 0:  # a head that remembers nothing: all processes have as many
            return rows
        parts = torch.empty(self.size, *rows.shape, dtype=rows.dtype, device=rows.device)
        self._gather(parts, rows.contiguous())
        # Row i of rank r is row i K + r of the joined batch.
        return parts.transpose(0, 1).flatten(0, 1)

    def own(self, joined: Tensor) -> Tensor:
        """See `Ranks.own`."""
        return joined[self.rank :: self.size].contiguous()

    def share_of_sum(self, summands: Tensor) -> Tensor:
        """See `Ranks.share_of_sum`."""
        by_rank = summands.view(-1, self.size, *summands.shape[1:]).transpose(0, 1).contiguous()
        return self._share_of_sum(by_rank)

    def summed(self, summand: Tensor) -> Tensor:
        """See `Ranks.summed`."""
        total = summand.clone()
        self._add_up(total)
        return total

    def largest(self, value: Tensor) -> Tensor:
        """See `Ranks.largest`."""
        largest = value.clone()
        self._maximise(largest)
        return largest

    def collected(self, rows: Tensor, shard: Shard) -> Iterator[Tensor]:
        """See `Ranks.collected`; from host to host, so that no device needs memory for it, nor NCCL buffers."""
        row_bytes = math.prod(rows.shape[1:]) * rows.dtype.itemsize
        at_a_time = max(1, PIECE_BYTES // max(1, row_bytes))
        for first in range(0, len(rows), at_a_time):
            piece = rows[first : first + at_a_time].cpu()
            if self.rank == 0:
                yield piece
            else:
                dist.send(piece.contiguous().view(torch.uint8), 0, self.hosts)
        if self.rank == 0:
            yield from self._received(rows, shard, at_a_time)

    def _received(self, rows: Tensor, shard: Shard, at_a_time: int) -> Iterator[Tensor]:
        """Yield on rank 0 the rows of all others, by rank, which `collected` sends."""
        buffer = torch.empty(min(at_a_time, shard.total), *rows.shape[1:], dtype=rows.dtype)
        for rank in range(1, self.size):
            num = shard.of_rank(rank, self.size).num
            for first in range(0, num, at_a_time):
                piece = buffer[: num - first]
                dist.recv(piece.view(torch.uint8), rank, self.hosts)
                yield piece

    # What goes over the links of the devices. All else above is memory and arithmetic of one process: a trace of a step
    # (`attfc_planner.trace.ranks`) runs it as it is, with these four and `begin_sum` in which nothing is sent.

    def _add_up(self, values: Tensor) -> None:
        """Replace `values` by their sum over all processes."""
        dist.all_reduce(values, group=self.devices.group)

    def _maximise(self, values: Tensor) -> None:
        """Replace `values` by the largest of all processes', element by element."""
        dist.all_reduce(values, dist.ReduceOp.MAX, self.devices.group)

    def _gather(self, parts: Tensor, own: Tensor) -> None:
        """Fill `parts` [K, ...] with what every process gives as `own` [...]."""
        _all_gather(parts.flatten(0, 1), own, self.devices.group)

    def _share_of_sum(self, by_rank: Tensor) -> Tensor:
        """Return row `rank` of the sum over all processes of `by_rank` [K, ...], which may be written to."""
        if dist.get_backend(self.devices.group) == "gloo":  # which has no reduce-scatter of its own
            self._add_up(by_rank)
            return by_rank[self.rank]
        share = torch.empty_like(by_rank[0])
        _reduce_scatter(share, by_rank, group=self.devices.group)
        return share
