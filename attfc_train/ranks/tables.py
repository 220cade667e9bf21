"""The tables in a checkpoint, which are whole: rank 0 collects the parts, and a process that loads it takes its own part.

So a checkpoint is the same whatever the number of processes that wrote it, and any number can go on from it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from attfc_train.ranks.ranks import Ranks
from attfc_train.ranks.shard import Shard

if TYPE_CHECKING:
    from torch import nn


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
    """Return the ``state_dict`` that the module would have in one process; on other ranks than 0 tables are left out.

    All processes must call it.
    """
    state: dict[str, Any] = module.state_dict()
    for name, shard in shards_of(module):
        whole = ranks.collected(state.pop(name)[: shard.num], shard)
        if whole is not None:
            state[name] = whole
    return state


def load_whole_state(module: nn.Module, saved: Mapping[str, Any]) -> None:
    """Load what `whole_state` returned on rank 0, or one process alone saved, in place.

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
