"""Copies many short pieces of a file at once, without the danger of a mapped file.

Reading a mapped file is as fast as memory, but where the file has shrunk meanwhile, or the disk fails, the process is ended by
SIGBUS. A system call that is given such an address answers with an error instead. So the pieces are copied out of the mapping
by ``process_vm_readv``, from this process to itself, a thousand in a call. Where there is none, they are read one by one.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from attfc_train.data.pool import DecodePool
from attfc_train.units import Bytes

_MOST: Final = 1024
"""Pieces in a call: IOV_MAX of Linux."""
_THREADS: Final = 16
"""That wait for the disk at once: one alone would get no more than one page in each of its answers."""
_PIECE: Final = np.dtype([("address", np.uintp), ("length", np.uintp)])
"""C's ``struct iovec``."""


class Gatherer:
    """A mapping of an open file, from which pieces are copied; it can be used by any number of threads."""

    def __init__(self, descriptor: int, size: Bytes) -> None:
        """Map `size` bytes of an open file."""
        self._size = size
        self._call = _system_call()
        self._mapping: mmap.mmap | None = None
        if self._call is not None and size:
            self._mapping = mmap.mmap(descriptor, size, prot=mmap.PROT_READ)
            self._mapping.madvise(mmap.MADV_RANDOM)  # else a look at 48 bytes would read what lies around them, 128 KiB
            self._address: int = np.frombuffer(self._mapping, dtype=np.uint8).ctypes.data

    def pieces(self, offsets: NDArray[np.int64], length: Bytes, read_one: Callable[[int, Bytes], bytes]) -> bytearray:
        """Return the `length` bytes behind each offset, one behind the other; zeros behind the end of the file.

        Args:
            offsets: int64 [n], in [0, size).
            read_one: reads the bytes at an offset, or raises what says why not; for what cannot be copied.
        """
        content = bytearray(offsets.size * length)

        def fill(start: int) -> None:
            part = offsets[start : start + _MOST]
            into = memoryview(content)[start * length : (start + part.size) * length]
            if int(part.max()) > self._size - length or not self._copy(part, length, into):
                into[:] = b"".join(read_one(offset, length).ljust(length, b"\0") for offset in part.tolist())

        starts = range(0, offsets.size, _MOST)
        if len(starts) > 1:
            with DecodePool(_THREADS) as pool:
                pool.map(fill, starts)
        else:
            for start in starts:
                fill(start)
        if self._mapping is not None:
            self._mapping.madvise(mmap.MADV_DONTNEED)  # what was looked at once need not count as this process's memory
        return content

    def _copy(self, offsets: NDArray[np.int64], length: Bytes, into: memoryview) -> bool:
        """Copy pieces from the mapping; return whether all could be copied."""
        if self._call is None or self._mapping is None:
            return False
        remote = np.empty(offsets.size, dtype=_PIECE)
        remote["address"] = offsets + self._address
        remote["length"] = length
        target = (ctypes.c_char * len(into)).from_buffer(into)
        local = np.array([(ctypes.addressof(target), len(into))], dtype=_PIECE)
        # A page that is gone ends the copy early, or answers -1: then the pieces are read one by one, which says why.
        copied = self._call(os.getpid(), local.ctypes.data, 1, remote.ctypes.data, remote.size, 0)
        return bool(copied == len(into))


def _system_call() -> Any:
    """Return ``process_vm_readv``, or None where the system's C library has none."""
    try:
        call = ctypes.CDLL(None).process_vm_readv
    except (OSError, TypeError, AttributeError):
        return None
    pieces = (ctypes.c_void_p, ctypes.c_ulong)
    call.argtypes = [ctypes.c_int, *pieces, *pieces, ctypes.c_ulong]
    call.restype = ctypes.c_ssize_t
    return call
