"""Maps the tensors of a file of ``torch.save`` into memory, of whatever size the file is.

``torch.load(mmap=True)`` maps as well, but the system promises as much memory as the file is long, because each page might be
written to, and refuses where the machine has less. Here it promises nothing.
"""

from __future__ import annotations

import mmap
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from attfc_train.optim.torch_internals import first_byte

# Linux's number for all common processors; Python has the name from 3.13 on.
_NO_RESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000 if sys.platform == "linux" else 0)


def mapped(path: Path) -> Any:
    """Return the content of a file, whose tensors are views of the file's bytes; who writes to them has a copy of the page.

    Raises:
        Exception: the system does not map it, its bytes are of another order, or a tensor is no plain one.
    """
    content = torch.load(path, map_location="meta", weights_only=True)  # shapes, and where the bytes are
    with path.open("rb") as file:
        flags = mmap.MAP_PRIVATE | _NO_RESERVE
        memory = mmap.mmap(file.fileno(), 0, flags=flags, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    return _Views(memory).of(content)


class _Views:
    """The tensors of one file.

    Args:
        memory: the mapped file, which is unmapped with its last tensor.
    """

    def __init__(self, memory: mmap.mmap) -> None:
        self._memory = memory
        self._made: dict[int, tuple[Any, Any]] = {}
        """By the identity of what stood there, which is kept so that nothing else gets it: a file may name one thing often."""

    def of(self, value: Any) -> Any:
        """Return `value` with views in the place of tensors on no device; dicts and lists stay the same objects.

        Raises:
            ValueError, RuntimeError: there is a tensor without bytes in the file.
        """
        if id(value) not in self._made:
            self._made[id(value)] = value, value  # one that holds itself ends here
            self._made[id(value)] = value, self._new(value)
        return self._made[id(value)][1]

    def _new(self, value: Any) -> Any:
        if isinstance(value, dict):
            for key, member in value.items():
                value[key] = self.of(member)
        elif isinstance(value, list):
            value[:] = [self.of(member) for member in value]
        elif type(value) is tuple:
            return tuple(self.of(member) for member in value)
        elif isinstance(value, Tensor):
            return self._view(value)
        return value

    def _view(self, value: Tensor) -> Tensor:
        begin = first_byte(value)
        if type(value) is not Tensor or begin is None or begin % value.element_size():
            raise ValueError(f"a {type(value).__name__} that is not mapped")
        size = value.untyped_storage().nbytes()
        flat = torch.frombuffer(self._memory, dtype=torch.uint8, count=size, offset=begin) if size else torch.empty(0)
        return flat.view(value.dtype).as_strided(value.shape, value.stride(), value.storage_offset())
