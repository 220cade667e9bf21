"""Writes tensors some at a time, into a file as ``torch.save`` makes it.

``torch.save`` copies every tensor of a device to the host whole, and a table whose rows lie in several processes must be whole
before it begins. Here `PIECE_BYTES` are on the host at a time, however large the file.

Such a file is a zip archive of members that are stored as they are: ``data.pkl``, in which tensors name their storages by
number; ``data/N``, the bytes of storage N; ``byteorder`` and ``version``. Any ``torch.load`` reads it. Storages begin at
multiples of `_ALIGNMENT` bytes, so that the file can be mapped. All are named as the CPU's: who loads them may have no GPU.
"""

from __future__ import annotations

import collections
import io
import os
import pickle
import sys
import zipfile
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from attfc_train.ranks.tables import PIECE_BYTES, Table

_FOLDER = "archive"
_VERSION = b"3\n"
"""Of torch's format; its readers refuse a file without."""
_ALIGNMENT = 64
_HEADER_BYTES = 30
"""Of a member's header in a zip archive, without its name."""
_ZIP64_BYTES = 20
"""Of that header's field for sizes of 4 GiB and more, which every member here has."""
_FIELD_BYTES = 4
"""Of a further field's own header: two bytes of name, two of length."""
_PADDING = b"FB"
"""The name under which torch, too, fills up a header."""
_SAMPLE_BYTES = 4096
_LEAST_HOLE = 2**20
_KINDS: dict[torch.dtype, type] = {
    torch.float64: torch.DoubleStorage,
    torch.float32: torch.FloatStorage,
    torch.float16: torch.HalfStorage,
    torch.bfloat16: torch.BFloat16Storage,
    torch.int64: torch.LongStorage,
    torch.int32: torch.IntStorage,
    torch.int16: torch.ShortStorage,
    torch.int8: torch.CharStorage,
    torch.uint8: torch.ByteStorage,
    torch.bool: torch.BoolStorage,
    torch.complex64: torch.ComplexFloatStorage,
    torch.complex128: torch.ComplexDoubleStorage,
}
"""The names of typed storages in a pickle; tensors of younger dtypes have bytes and name the dtype themselves."""


class Packed:
    """Content as its file has it: a pickle, and the storages of its tensors in the order in which they are written.

    Args:
        content: tensors, `Table`, numbers, strings and dicts of them; nothing of it may change before it is written.
    """

    def __init__(self, content: Any) -> None:
        file = io.BytesIO()
        pickler = _Pickler(file)
        pickler.dump(content)
        self._pickle = file.getvalue()
        self._storages = list(pickler.storages.values())

    def write(self, file: BinaryIO) -> None:
        """Write the content; of several processes rank 0 does, while the others `give`.

        Raises:
            OSError: the disk is full.
        """
        with zipfile.ZipFile(_WithHoles(file), "w") as archive:
            _write(archive, "data.pkl", [self._pickle])
            _write(archive, "byteorder", [sys.byteorder.encode()])
            for storage in self._storages:
                _write(archive, f"data/{storage.key}", (piece.numpy() for piece in storage.pieces()))
            _write(archive, "version", [_VERSION])

    def give(self) -> None:
        """Give rank 0 this process's rows of the tables, in the order in which it writes them."""
        for storage in self._storages:
            if isinstance(storage.source, Table):
                collections.deque(storage.pieces(), maxlen=0)


@dataclass(frozen=True, slots=True)
class _Storage:
    """The bytes of tensors in the file, and how the pickle names them."""

    key: str
    kind: type
    num: int
    """Elements of that kind."""
    source: Tensor | Table

    def pieces(self) -> Iterator[Tensor]:
        """Yield all bytes in order, uint8 [n] on the CPU; the next piece may take the place of the one before."""
        if isinstance(self.source, Table):
            return map(_bytes_of, self.source.pieces())
        return _pieces(self.source.untyped_storage())


class _Pickler(pickle.Pickler):
    """Pickles as ``torch.save`` does: in the place of its storage a tensor has the number of one."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file, protocol=2)  # the one that torch reads
        self.storages: dict[Hashable, _Storage] = {}

    def persistent_id(self, value: Any) -> Any:
        if isinstance(value, _Storage):
            return "storage", value.kind, value.key, "cpu", value.num
        return None

    def reducer_override(self, value: Any) -> Any:
        # A tensor tells how it is rebuilt: its storage, place in it, shape and stride, and what else there is. That these come
        # in this order is a part of the files' format, which stays.
        if isinstance(value, Table):
            rebuild, (own, _, _, _, *rest) = torch.empty(0, dtype=value.dtype).__reduce_ex__(2)
            stride = torch.empty(value.shape, device="meta").stride()
            return rebuild, (self._stored(id(value), own, value), 0, value.shape, stride, *rest)
        if type(value) is Tensor:
            rebuild, (own, *rest) = value.__reduce_ex__(2)
            storage = value.untyped_storage()
            # Views of one storage share it in the file. With two dtypes they cannot: a storage there has one.
            views = value.device, storage.data_ptr(), storage.nbytes(), value.dtype
            return rebuild, (self._stored(views, own, value), *rest)
        return NotImplemented

    def _stored(self, views: Hashable, own: Any, source: Tensor | Table) -> _Storage:
        """Return the storage in the file, a new one for the first of its views.

        Args:
            own: the storage as torch pickles it, typed or not.
        """
        if views not in self.storages:
            is_typed = not isinstance(own, torch.UntypedStorage)
            kind = _KINDS[source.dtype] if is_typed else torch.UntypedStorage
            num_bytes = source.num_bytes if isinstance(source, Table) else source.untyped_storage().nbytes()
            num = num_bytes // source.dtype.itemsize if is_typed else num_bytes
            self.storages[views] = _Storage(str(len(self.storages)), kind, num, source)
        return self.storages[views]


def _pieces(storage: torch.UntypedStorage) -> Iterator[Tensor]:
    """Yield the bytes of a storage on any device; those of the CPU are not copied."""
    flat = torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage)
    for piece in flat.split(PIECE_BYTES):
        yield piece.cpu()


def _bytes_of(rows: Tensor) -> Tensor:
    """Return the bytes of rows on the CPU, uint8 [n]."""
    return rows.contiguous().view(-1).view(torch.uint8)


def _write(archive: zipfile.ZipFile, name: str, pieces: Iterable[Any]) -> None:
    """Write a member: buffers of bytes, one after the other."""
    member = zipfile.ZipInfo(f"{_FOLDER}/{name}")
    assert archive.fp is not None
    begin = archive.fp.tell() + _HEADER_BYTES + len(member.filename) + _ZIP64_BYTES + _FIELD_BYTES
    fill = -begin % _ALIGNMENT
    member.extra = _PADDING + fill.to_bytes(2, "little") + bytes(fill)
    with archive.open(member, "w", force_zip64=True) as target:
        for piece in pieces:
            target.write(piece)
    member.extra = b""  # the archive's list of members has no use for it


class _WithHoles:
    """A new file that takes no room on the disk for long stretches of zeros, such as slots that are still empty.

    Args:
        file: seekable, at whose position nothing was written yet.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.seek = file.seek
        self.tell = file.tell
        self.flush = file.flush
        self.close = file.close

    def write(self, data: Any) -> int:
        """Write bytes, or skip them: what is written behind makes them zeros."""
        size = memoryview(data).nbytes
        if size < _LEAST_HOLE or _has_bits(np.frombuffer(data, np.uint8)):
            return self._file.write(data)
        self._file.seek(size, os.SEEK_CUR)
        return size


def _has_bits(values: np.ndarray[Any, Any]) -> bool:
    """Return whether any of uint8 [n] is not 0: mostly the first few tell."""
    return bool(values[:_SAMPLE_BYTES].any()) or bool(values.any())
