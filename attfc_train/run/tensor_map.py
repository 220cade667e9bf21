"""Maps the tensors of a file of ``torch.save`` into memory, of whatever size the file is.

``torch.load(mmap=True)`` maps as well, but the system promises as much memory as the file is long, because each page might be
written to, and refuses where the machine has less. Here it promises nothing.
"""

from __future__ import annotations

import mmap
import struct
import sys
import zipfile
from typing import Any, BinaryIO

import torch
from torch import Tensor

from attfc_train.optim.torch_internals import first_byte

# Linux's number for all common processors; Python has the name from 3.13 on.
_NO_RESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000 if sys.platform == "linux" else 0)
_LENGTHS = 26
"""Where a member's header in a zip archive has the lengths of its name and of what follows that; the content is behind both."""
_LENGTHS_FORMAT = "<HH"


def mapped(file: BinaryIO) -> Any:
    """Return the content of an open file, whose tensors are views of its bytes; who writes to one has a copy of the page.

    Raises:
        Exception: the system does not map it, its bytes are of another order, or a tensor is no plain one of its own bytes.
    """
    places = _places(file)
    file.seek(0)
    content = torch.load(file, map_location="meta", weights_only=True)  # shapes, and where the bytes are
    memory = mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE | _NO_RESERVE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    return _Views(memory, places).of(content)


def _places(file: BinaryIO) -> set[tuple[int, int]]:
    """Return where the content of each member lies: its first byte, and how many there are.

    Torch may only reckon it, by the order in which it writes; an archive that was packed anew has another one.

    Raises:
        ValueError: numbers are of the other byte order.
    """
    places = set()
    with zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            if member.filename.endswith("/byteorder") and archive.read(member) != sys.byteorder.encode():
                raise ValueError("another byte order")
            file.seek(member.header_offset + _LENGTHS)
            lengths = struct.unpack(_LENGTHS_FORMAT, file.read(struct.calcsize(_LENGTHS_FORMAT)))
            places.add((file.tell() + sum(lengths), member.file_size))
    return places


class _Views:
    """The tensors of one file.

    Args:
        memory: the mapped file, which is unmapped with its last tensor.
        places: of its members.
    """

    def __init__(self, memory: mmap.mmap, places: set[tuple[int, int]]) -> None:
        self._memory = memory
        self._places = places
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
        if size and (begin, size) not in self._places:
            raise ValueError("a tensor in another place")
        flat = torch.frombuffer(self._memory, dtype=torch.uint8, count=size, offset=begin) if size else torch.empty(0)
        return flat.view(value.dtype).as_strided(value.shape, value.stride(), value.storage_offset())
