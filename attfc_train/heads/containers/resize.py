"""Taking over a saved container into one of another size, storage, queue length or queue mode.

The most recently written slots are kept, as many as there is room for, and stay in the order in which they are overwritten or
evicted. A larger container starts its other slots as a new run does: empty (identity), random (fifo). Vectors are rounded to
the nearest of the new storage; the same storage keeps their values.

An averaged queue becomes a stored one that holds its center; a stored queue keeps its newest centers, and becomes an averaged
one that holds their mean. Legend: C slots, D dimensions, L the queue length, n slots kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from attfc_train.heads.containers.container import DynamicClassContainer, FifoContainer, IdentityContainer
from attfc_train.heads.containers.slot_storage import SlotStorage
from attfc_train.heads.containers.stored_queue import StoredQueueContainer

_ROWS_AT_A_TIME = 4096


@dataclass(frozen=True, slots=True)
class Kept:
    """The number of saved centers that a container took over."""

    kept: int
    saved: int
    """How many there were."""


def refill(container: DynamicClassContainer, saved: dict[str, Any]) -> Kept:
    """Put the saved container (a ``state_dict`` on the CPU, of the same policy and D) into a new, unused `container`.

    Raises:
        KeyError, RuntimeError, ValueError: `saved` is of another policy or embedding size.
    """
    if isinstance(container, FifoContainer) != ("_extra_state" in saved):
        raise ValueError("the saved container is of the other policy")
    source = _kept_slots(saved, container.slot_labels.shape[0])
    target = _places_for(container, saved["slot_labels"][source])
    copy_rows(SlotStorage.of(saved, "centers."), source, container.centers, target)
    put(container.slot_labels, target, saved["slot_labels"][source])
    put(container.last_update, target, saved["last_update"][source])
    if isinstance(container, FifoContainer):
        container.position = len(source) % container.slot_labels.shape[0]
    if isinstance(container, IdentityContainer) and container.slot_of is not None:
        put(container.slot_of, saved["slot_labels"][source], target.int())
    if isinstance(container, StoredQueueContainer):
        _refill_queues(container, saved, source, target)
    return Kept(len(source), int((saved["slot_labels"] >= 0).sum()))


def _kept_slots(saved: dict[str, Any], size: int) -> Tensor:
    """Return the newest `size` saved slots that hold an identity, int64 [n]: oldest first (fifo), or as they lie (identity)."""
    labels: Tensor = saved["slot_labels"]
    if "_extra_state" in saved:
        # The ring overwrites position, position + 1 .. position - 1, in this order.
        oldest_first = torch.arange(len(labels)).roll(-int(saved["_extra_state"]["position"]))
        return oldest_first[labels[oldest_first] >= 0][-size:]
    held = (labels >= 0).nonzero()[:, 0]
    # Of slots written in the same step the lower one is evicted first (`IdentityContainer`), so the higher one is kept.
    newest_last = held[saved["last_update"][held].sort(stable=True).indices]
    return newest_last[-size:].sort().values


def _places_for(container: DynamicClassContainer, labels: Tensor) -> Tensor:
    """Return slots for kept identities int64 [n]: the label where every identity has a slot, else the first ones."""
    direct = isinstance(container, IdentityContainer) and container.slot_of is None
    return labels if direct else torch.arange(len(labels))


def put(buffer: Tensor, places: Tensor, values: Tensor) -> None:
    """Put saved values [n] at places int64 [n] of a buffer on any device."""
    buffer.index_copy_(0, places.to(buffer.device), values.to(buffer.device))


def copy_rows(saved: SlotStorage, source: Tensor, storage: SlotStorage, target: Tensor) -> None:
    """Copy rows `source` int64 [n] of a saved storage to rows `target` int64 [n] of another, some at a time."""
    for start in range(0, len(source), _ROWS_AT_A_TIME):
        part = slice(start, start + _ROWS_AT_A_TIME)
        device = storage.values.device
        storage.write(target[part].to(device), saved.read(source[part]).to(device))


def _refill_queues(container: StoredQueueContainer, saved: dict[str, Any], source: Tensor, target: Tensor) -> None:
    """Fill each slot's queue with its newest centers, the oldest first; of an averaged queue with its center."""
    length = container.queue_length
    if "enqueued" not in saved:
        copy_rows(SlotStorage.of(saved, "centers."), source, container.queue, target * length)
        put(container.enqueued, target, torch.ones(len(target), dtype=torch.int32))
        return
    queue = SlotStorage.of(saved, "queue.")
    enqueued = saved["enqueued"][source].long()
    saved_length = queue.values.shape[0] // len(saved["slot_labels"])
    # Center number i of an identity lies at place i mod L. Of the `enqueued` ones the newest `kept` are taken over, numbers
    # enqueued - kept .. enqueued - 1; they become numbers 0 .. kept - 1, which the new queue holds at these places.
    kept = enqueued.clamp(max=min(saved_length, length))
    for place in range(length):
        taken = kept > place
        rows = source * saved_length + (enqueued - kept + place) % saved_length
        copy_rows(queue, rows[taken], container.queue, (target * length + place)[taken])
    put(container.enqueued, target, kept.int())
    # A shorter queue has another mean; elsewhere the saved center is it already.
    if length < saved_length:
        _average_queues(container, target)


def _average_queues(container: StoredQueueContainer, target: Tensor) -> None:
    for slots in target.to(container.slot_labels.device).split(_ROWS_AT_A_TIME):
        container.average_queues(slots)
