"""The tables in a checkpoint, which are whole: rank 0 writes the parts of all, and a process that loads it takes its own part.

So a checkpoint is the same whatever the number of processes that wrote it, and any number can go on from it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from attfc_train.ranks.ranks import Ranks
from attfc_train.ranks.shard import Shard

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

PIECE_BYTES = 64 * 2**20
"""That pass through a process at a time: of a table on its way into a file, or of tensors that are summed."""


@dataclass(frozen=True, slots=True)
class Table:
    """A whole table, of which each process holds a part: there is no place where it is one tensor.

    Args:
        rows: this process's [shard.num, ...].
    """

    rows: Tensor
    shard: Shard
    ranks: Ranks

    @property
    def shape(self) -> tuple[int, ...]:
        """All rows, [total, ...]."""
        return self.shard.total, *self.rows.shape[1:]

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of all rows."""
        return self.rows.dtype

    @property
    def num_bytes(self) -> int:
        """Bytes of all rows."""
        return math.prod(self.shape) * self.dtype.itemsize

    def pieces(self) -> Iterator[Tensor]:
        """Yield all rows in order on rank 0, some at a time, on the CPU; a collective (`Ranks.collected`)."""
        return self.ranks.collected(self.rows, self.shard)


@runtime_checkable
class HoldsShards(Protocol):
    """A module some of whose tensors are parts of tables."""

    @property
    def shards(self) -> Mapping[str, Shard]:
        """The parts by the names of its own tensors; rows behind ``num`` belong to nobody. Empty where tables are whole."""
        ...


def shards_of(module: nn.Module) -> Iterator[tuple[str, Shard]]:
    """Yield the parts in a module and its children, by the names of its ``state_dict``."""
    for name, child in module.named_modules():
        if isinstance(child, HoldsShards):
            yield from ((f"{name}.{tensor}" if name else tensor, shard) for tensor, shard in child.shards.items())


def whole_state(module: nn.Module, ranks: Ranks) -> dict[str, Any]:
    """Return the ``state_dict`` that the module would have in one process, with a `Table` for what several hold."""
    state: dict[str, Any] = module.state_dict()
    for name, shard in shards_of(module):
        state[name] = Table(state[name][: shard.num], shard, ranks)
    return state


def load_whole_state(module: nn.Module, saved: Mapping[str, Any]) -> None:
    """Load a saved `whole_state`, of however many processes, in place.

    Raises:
        KeyError, RuntimeError: the module has other tensors.
    """
    state = dict(saved)
    own = module.state_dict()
    for name, shard in shards_of(module):
        table = state[name]
        if len(table) != shard.total:
            raise RuntimeError(f"size mismatch for {name}: {len(table)} rows in place of {shard.total}")
        own[name][: shard.num].copy_(table[shard.first : shard.stop])
        state[name] = own[name]
    module.load_state_dict(state)
