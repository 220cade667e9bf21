"""The host's memory that a checkpoint of a GPU's state takes: torch copies every tensor there, whole, before it writes it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from attfc_train.run.device_memory import free_memory
from attfc_train.units import Bytes, format_bytes

_CPU = torch.device("cpu")


def checkpoint_words(
    tensors: Iterable[Tensor], processes: int = 1, free: Callable[[torch.device], Bytes | None] = free_memory
) -> str | None:
    """Return a line where the largest tensor of a checkpoint does not fit the host's free memory; None: all do.

    A process that takes more than there is, is killed without a word: better that its user knows before an hour of training.

    Args:
        tensors: of the head on this device; the encoders' are small.
        processes: that hold a part each, which one collects.
        free: asks for the free memory of a device.
    """
    largest = processes * max((tensor.nbytes for tensor in tensors), default=0)
    available = free(_CPU)
    if available is None or largest <= available:
        return None
    return (
        f"A checkpoint copies the head's largest tensor, {format_bytes(largest)}, through the host's memory, of which "
        f"{format_bytes(available)} are free: the run may be killed when it saves. Take fewer slots, or head.storage=int8, or "
        "give the host more memory."
    )
