"""Bytes of remote objects by place, from the cache of blocks; what is not there is fetched, several blocks at a time."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from attfc_train.cache_folder import cache_folder, make_private
from attfc_train.data.pool import DecodePool, result_of
from attfc_train.data.progress import tell
from attfc_train.data.remote.block_cache import BlockCache
from attfc_train.data.remote.file_systems import open_store
from attfc_train.data.remote.places import mark_of, remote_folder, url_of
from attfc_train.data.remote.stores import Store, WithoutPartsError, attempted
from attfc_train.data.unreadable import LostError
from attfc_train.errors import UsageError
from attfc_train.units import GIB, KIB, MIB, Bytes

BLOCK: Final[Bytes] = 4 * MIB
"""Bytes of a request: what a network gives in the time that one answer takes."""
AT_ONCE: Final = 8
"""Requests that wait for answers at the same time."""
LIMIT: Final = "ATTFC_REMOTE_CACHE"
"""Environment variable: bytes that blocks may take on the disk, such as ``200GiB``."""
_ALL: Final = -1
"""In the place of a block's number: all of them, from a server that gives no parts."""
_LEAST: Final[Bytes] = 2 * AT_ONCE * BLOCK
_MOST: Final[Bytes] = 100 * GIB
_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?", re.IGNORECASE)
_POWERS: Final = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


@dataclass(frozen=True, slots=True)
class _Object:
    """An object in one version."""

    url: str
    size: Bytes
    mark: int
    """What stands for its version; see `mark_of`."""
    key: str
    """Names its blocks in the cache."""

    def length(self, number: int) -> Bytes:
        """Return how many bytes a block has."""
        return min(BLOCK, self.size - number * BLOCK)


class RemoteFile:
    """The bytes of one version of an object, for any number of threads; see `attfc_train.data.reading.ByteSource`."""

    def __init__(self, url: str, size: Bytes, mark: int) -> None:
        """Name an object by its URL without secrets."""
        self.size = size
        key = hashlib.blake2b(f"{url}\0{size}\0{mark}".encode(), digest_size=16).hexdigest()
        self._object = _Object(url, size, mark, key)
        self._last = -2

    @classmethod
    def of_place(cls, path: Path) -> RemoteFile:
        """Return the object that a path stands for.

        Raises:
            OSError: there is no file at `path`.
        """
        url = url_of(path)
        assert url is not None, "a path in the remote folder"
        status = os.stat(path)
        return cls(url, status.st_size, status.st_mtime_ns)

    def read(self, offset: int, length: Bytes) -> bytes:
        """Return `length` bytes, or those up to the end.

        Raises:
            LostError: the server does not give them, or has another version of the object by now.
        """
        end = min(offset + length, self.size)
        if end <= offset:
            return b""
        first, last = offset // BLOCK, (end - 1) // BLOCK
        if first == last:
            return self._part(first, offset - first * BLOCK, end - first * BLOCK)
        parts = []
        for number in range(first, last + 1):
            if (number - first) % AT_ONCE == 0:
                self._ask_for(range(number, min(number + AT_ONCE, last + 1)))
            base = number * BLOCK
            parts.append(self._part(number, max(0, offset - base), min(BLOCK, end - base)))
        return b"".join(parts)

    def pieces(self, offsets: NDArray[np.int64], length: Bytes, _: Callable[[int, Bytes], bytes] | None = None) -> bytearray:
        """Return the `length` bytes behind each offset, one behind the other; zeros behind the object's end.

        Args:
            offsets: int64 [n], in [0, size). Every block that they lie in is asked for once, several at a time.
        """
        content = bytearray(offsets.size * length)
        if not offsets.size:
            return content
        rows = np.frombuffer(content, dtype=np.uint8).reshape(-1, length)
        order = np.argsort(offsets, kind="stable")
        blocks = offsets[order] // BLOCK
        starts = np.flatnonzero(np.diff(blocks, prepend=-1))
        numbers = blocks[starts].tolist()
        for done, (number, places) in enumerate(zip(numbers, np.split(order, starts[1:]), strict=True)):
            if done % AT_ONCE == 0 and len(numbers) > 1:
                self._ask_for(numbers[done : done + AT_ONCE])
                tell("fetching what is not in the cache", done, len(numbers))
            begins = offsets[places] - number * BLOCK
            width = int(begins.max()) + length  # into the next block only where a piece leads there
            window = np.frombuffer(self.read(number * BLOCK, width).ljust(width, b"\0"), dtype=np.uint8)
            rows[places] = window[begins[:, None] + np.arange(length)]
        return content

    def read_ahead(self, offset: int, length: Bytes) -> None:
        """Fetch a part of the object soon, as far as the cache holds it beside others."""
        first = offset // BLOCK
        last = (min(offset + length, self.size) - 1) // BLOCK
        most = _reader().cache.limit // (4 * BLOCK)
        self._ask_for(range(first, min(last + 1, first + most)))

    def _part(self, number: int, begin: int, end: int) -> bytes:
        """Return a part of a block."""
        wanted = self._object
        content = _reader().cache.read(wanted.key, number, begin, end, wanted.length(number))
        if content is not None:
            return content
        if number == self._last + 1:  # read one after the other: those behind it will be wanted, too
            last = (self.size - 1) // BLOCK
            self._ask_for(range(number, min(number + AT_ONCE, last + 1)))
        self._last = number
        return result_of(_reader().asked(wanted, number))[begin:end]

    def _ask_for(self, numbers: Iterable[int]) -> None:
        """Begin to fetch those blocks that are not here."""
        reader = _reader()
        for number in numbers:
            if not reader.cache.has(self._object.key, number):
                reader.asked(self._object, number)


class _Reader:
    """What fetches blocks for one process: a cache, threads, and a store a host."""

    def __init__(self, cache: BlockCache) -> None:
        self.cache = cache
        self._pool = DecodePool(AT_ONCE, "attfc-fetch")  # as long as the process: its threads wait for whoever asks next
        self._stores: dict[str, Store] = {}
        self._lock = threading.Lock()
        self._whole = threading.Lock()
        self._asked: dict[tuple[str, int], Future[bytes]] = {}

    def store(self, url: str) -> Store:
        """Return the store of a URL's host; one that was opened with other secrets is another one."""
        host = "/".join(url.split("/")[:3])
        with self._lock:
            if host not in self._stores:
                self._stores[host] = open_store(url)
            return self._stores[host]

    def asked(self, wanted: _Object, number: int) -> Future[bytes]:
        """Return the block that is being fetched; one that several threads want is fetched once."""
        name = (wanted.key, number)
        with self._lock:
            if name not in self._asked:
                self._asked[name] = self._pool.submit(self._fetch, wanted, number)
            return self._asked[name]

    def _fetch(self, wanted: _Object, number: int) -> bytes:
        """Return a block from the store, once it is in the cache."""
        try:
            length = wanted.length(number)
            with self.cache.turn(wanted.key, number):
                kept = self.cache.read(wanted.key, number, 0, length, length)
                if kept is not None:  # it has come since whoever asks looked for it
                    return kept
                content = attempted(wanted.url, partial(self._get, wanted, number))
                self._keep(wanted, number, content)
                return content
        except WithoutPartsError:
            return self._fetch_all(wanted, number)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise _changed(wanted, "no such object any more") from None
        finally:
            with self._lock:
                self._asked.pop((wanted.key, number), None)

    def _get(self, wanted: _Object, number: int) -> bytes:
        """Return a block by one request.

        Raises:
            LostError: it is of another version.
            ConnectionError: it is shorter than it must be.
        """
        begin = number * BLOCK
        length = wanted.length(number)
        content, version = self.store(wanted.url).read(wanted.url, begin, begin + length)
        if mark_of(version, wanted.size) != wanted.mark:
            raise _changed(wanted, "another version of it")
        if len(content) != length:
            raise ConnectionError(f"{len(content):,} of {length:,} bytes")
        return content

    def _fetch_all(self, wanted: _Object, number: int) -> bytes:
        """Fetch an object whole, from a server that gives no parts; return one of its blocks."""
        blocks = -(-wanted.size // BLOCK)
        if blocks * (BLOCK + 4096) > self.cache.limit:
            rule = f"the server of '{wanted.url}' gives whole files only, which must fit into the cache ({LIMIT})"
            got = f"{wanted.size:,} bytes, and room for {self.cache.limit:,}"
            raise LostError(rule, got, "Raise the bound, use a server that answers Range requests, or copy the file here.")
        with self._whole, self.cache.turn(wanted.key, _ALL):
            kept = self.cache.read(wanted.key, number, 0, wanted.length(number), wanted.length(number))
            if kept is not None:  # another thread or process has fetched it meanwhile
                return kept
            return attempted(wanted.url, partial(self._get_all, wanted, number))

    def _get_all(self, wanted: _Object, number: int) -> bytes:
        """Keep all blocks of an object, received in one answer; return one of them."""
        received: list[int] = []
        result = b""

        def take(content: bytes) -> None:
            nonlocal result
            place = len(received)
            received.append(len(content))
            if place == number:
                result = content
            if sum(received) <= wanted.size and len(content) == wanted.length(place):
                self._keep(wanted, place, content)

        version = self.store(wanted.url).read_all(wanted.url, BLOCK, take)
        if mark_of(version, wanted.size) != wanted.mark:
            raise _changed(wanted, "another version of it")
        if sum(received) != wanted.size:
            raise ConnectionError(f"{sum(received):,} of {wanted.size:,} bytes")
        return result

    def _keep(self, wanted: _Object, number: int, content: bytes) -> None:
        """Put a block into the cache.

        Raises:
            LostError: the disk is full, or the folder not writable.
        """
        try:
            self.cache.write(wanted.key, number, content)
        except OSError as error:
            rule = f"the cache folder '{remote_folder()}' must take the blocks of remote data"
            remedy = f"Free disk space, or set {LIMIT} lower, or ATTFC_CACHE_DIR to a folder on another disk."
            raise LostError(rule, error.strerror or "an error", remedy) from error


def _changed(wanted: _Object, got: str) -> LostError:
    rule = f"'{wanted.url}' must not change while it is open"
    return LostError(rule, got, "Give the command again to open what is there now; a run resumes with the former data only.")


_readers: dict[tuple[int, str, str | None], _Reader] = {}
_readers_lock = threading.Lock()


def _reader() -> _Reader:
    """Return what fetches for this process: threads do not survive a fork."""
    name = (os.getpid(), str(cache_folder()), os.environ.get(LIMIT))
    reader = _readers.get(name)
    if reader is not None:
        return reader
    with _readers_lock:
        if name not in _readers:
            _readers[name] = _Reader(_opened_cache())
        return _readers[name]


def store_of(url: str) -> Store:
    """Return the store of a URL without secrets."""
    return _reader().store(url)


def _opened_cache() -> BlockCache:
    """Return the cache of all processes.

    Raises:
        UsageError: the bound is no size, or too small; LostError: the folder cannot be made.
    """
    folder = remote_folder() / ".blocks"
    try:
        make_private(cache_folder())
        make_private(folder)
        limit = cache_limit(os.environ.get(LIMIT), folder)
        return BlockCache(folder, limit)
    except OSError as error:
        rule = f"the cache folder '{folder}' must be writable"
        remedy = "Set ATTFC_CACHE_DIR to a folder that is."
        raise LostError(rule, error.strerror or "an error", remedy) from error


def cache_limit(text: str | None, folder: Path) -> Bytes:
    """Return the bound that `text` gives; without one half of what the disk of `folder` has free, at most 100 GiB.

    Raises:
        UsageError: it is no size, or too small to read with.
    """
    if not text:
        used = int.from_bytes((folder / "used").read_bytes(), "little") if (folder / "used").exists() else 0
        return max(_LEAST, min(_MOST, used + shutil.disk_usage(folder).free // 2))
    match = _SIZE.fullmatch(text.strip())
    limit = int(float(match[1]) * KIB ** _POWERS[match[2].lower()]) if match else 0
    if limit < _LEAST:
        raise UsageError(f"{LIMIT} must be a size of at least {_LEAST // MIB}MiB", f"'{text}'", f"Example: {LIMIT}=200GiB.")
    return limit
