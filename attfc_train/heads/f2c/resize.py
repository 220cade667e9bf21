"""Taking over a saved class pool into one of another size or storage.

The most recently used identities are kept, as many as there is room for, with both rows and in their order of eviction; all
other slots start as in a new run. Rows are rounded to the nearest of the new storage; the same storage keeps their values.
Legend: K slots, n identities kept.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from attfc_train.heads.containers.resize import Kept, copy_rows, put
from attfc_train.heads.containers.slot_storage import SlotStorage
from attfc_train.heads.f2c.pool import ClassPool


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
        copy_rows(SlotStorage.of(saved, "centers."), source + row * len(labels), pool.centers, target + row * pool.size)
    for name in ("slot_labels", "recency", "next_row"):
        put(getattr(pool, name), target, saved[name][source])
    put(pool.slot_of, labels[source], target.int())
    return Kept(len(source), len(held))
