"""Taking over a saved class pool into one of another size or storage.

The most recently used identities are kept, as many as there is room for, with both rows and in their order of eviction; all
other slots start as in a new run. Rows are rounded to the nearest of the new storage; the same storage keeps their values.
Legend: K slots, n identities kept.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from attfc_train.heads.containers.resize import Kept
from attfc_train.heads.containers.slot_storage import SlotStorage
from attfc_train.heads.f2c.pool import ClassPool

_ROWS_AT_A_TIME = 4096


def refill(pool: ClassPool, saved: dict[str, Any]) -> Kept:
    """Put the saved pool (a ``state_dict`` on the CPU, of the same D) into a new, unused `pool`.

    Raises:
        KeyError, RuntimeError: `saved` is of another kind or embedding size.
    """
    labels: Tensor = saved["slot_labels"]
    held = (labels >= 0).nonzero()[:, 0]
    oldest_first = held[saved["recency"][held].sort().indices]
    source = oldest_first[-pool.size :]
    target = torch.arange(len(source))
    for row in (0, 1):
        _copy_rows(SlotStorage.of(saved, "centers."), source + row * len(labels), pool.centers, target + row * pool.size)
    for name in ("slot_labels", "recency", "next_row"):
        _put(getattr(pool, name), target, saved[name][source])
    _put(pool.slot_of, labels[source], target.int())
    return Kept(len(source), len(held))


def _put(buffer: Tensor, places: Tensor, values: Tensor) -> None:
    buffer.index_copy_(0, places.to(buffer.device), values.to(buffer.device))


def _copy_rows(saved: SlotStorage, source: Tensor, storage: SlotStorage, target: Tensor) -> None:
    for start in range(0, len(source), _ROWS_AT_A_TIME):
        part = slice(start, start + _ROWS_AT_A_TIME)
        device = storage.values.device
        storage.write(target[part].to(device), saved.read(source[part]).to(device))
