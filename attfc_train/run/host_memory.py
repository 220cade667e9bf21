"""The host's memory that a checkpoint of a GPU's state takes.

One process has every tensor copied there, whole, just before it is written. Of several processes the first collects all their
parts (`attfc_train.ranks.tables`), and writes when it has them all.
"""

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
    """Return a line where what a checkpoint copies does not fit the host's free memory; None: it does.

    A process that takes more than there is, is killed without a word: better that its user knows before an hour of training.

    Args:
        tensors: of the head on this device; the encoders' are small.
        processes: that hold a part each, all of which one collects.
        free: asks for the free memory of a device.
    """
    sizes = [tensor.nbytes for tensor in tensors]
    needed = processes * sum(sizes) if processes > 1 else max(sizes, default=0)
    available = free(_CPU)
    if available is None or needed <= available:
        return None
    what = f"the head's parts of {processes} processes" if processes > 1 else "the head's largest tensor"
    return (
        f"A checkpoint copies {what}, {format_bytes(needed)}, through the host's memory, of which {format_bytes(available)} "
        "are free: the run may be killed when it saves. Give the host more memory, or the head fewer or narrower centers."
    )
