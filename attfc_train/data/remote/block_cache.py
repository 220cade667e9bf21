"""A bounded folder of blocks of remote objects, shared by all processes of a user; what was used longest ago goes first.

A block is a file of its own, which appears in one step and never changes: whoever has opened it reads it to its end, also when
another process removes it meanwhile. Behind the content stand four bytes with its CRC-32, checked when a process first reads
the file. Blocks are counted and written under a lock, and room is made before, so that the bound always holds.

Who fetches a block has locked its byte, of some 2**62, in a file without any. The system gives these locks back when a process
ends, however it does.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from attfc_train.cache_folder import make_private
from attfc_train.units import Bytes, Seconds

_CRC: Final[Bytes] = 4
_PAGE: Final[Bytes] = 4096
"""Disks give whole pages to files."""
_KEPT_SHARE: Final = 0.9
"""Of the bound, once room had to be made: else every new block would look through the whole folder."""
_ABANDONED: Final[Seconds] = 3600.0
"""A temporary file as old as this is of a process that was killed."""
_MOST_CHECKED: Final = 2**16
"""Files that a process remembers to have looked at."""
_USED: Final = "used"
_LOCK: Final = "lock"
_TURNS: Final = "turns"
_PATIENCE: Final[Seconds] = 60.0
"""Of one process with another that fetches: one that was stopped, or waits for its server, keeps nobody longer."""
_LOOK: Final[Seconds] = 0.02
"""Between two looks whether the other one has done."""


class BlockCache:
    """Blocks by a key and a number."""

    def __init__(self, folder: Path, limit: Bytes, clock: Callable[[], Seconds] = time.time, exact_to: Seconds = 60.0) -> None:
        """Use a folder, which is made where there is none.

        Args:
            limit: bytes that all blocks together may take on the disk.
            clock: the time in seconds.
            exact_to: how exactly the time of a block's last use is known.
        """
        self.limit = limit
        self._folder = folder
        self._clock = clock
        self._exact_to = exact_to
        self._checked: dict[str, tuple[int, int]] = {}
        self._lock = threading.Lock()
        self._turns = -1
        make_private(folder)

    def read(self, key: str, number: int, begin: int, end: int, length: Bytes) -> bytes | None:
        """Return the bytes `begin` .. ``end - 1`` of a block of `length` bytes; None where it is not here, or damaged."""
        path = self._path(key, number)
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except OSError:
            return None
        try:
            status = os.fstat(descriptor)
            if status.st_size != length + _CRC or not self._is_whole(path, descriptor, status):
                self._drop(path)
                return None
            if abs(self._clock() - status.st_mtime) > self._exact_to:
                self._touch(descriptor)
            content = os.pread(descriptor, end - begin, begin)
            return content if len(content) == end - begin else None
        except OSError:
            return None
        finally:
            os.close(descriptor)

    def has(self, key: str, number: int) -> bool:
        """Return whether a block is here; it may be damaged."""
        return os.path.exists(self._path(key, number))

    def write(self, key: str, number: int, content: bytes) -> None:
        """Keep a block, and remove others until it fits; one that is larger than the bound is not kept.

        Raises:
            OSError: the disk is full, or the folder not writable.
        """
        size = _on_disk(len(content) + _CRC)
        path = self._path(key, number)
        if size > self.limit:
            return
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with self._locked():
            if os.path.exists(path):  # another process was faster
                return
            used = self._used()
            if used + size > self.limit:
                used = self._make_room(max(0, int(_KEPT_SHARE * self.limit) - size))
            self._set_used(used + size)
            try:
                self._put(path, content)
            except OSError:
                self._set_used(used)
                raise

    @contextmanager
    def turn(self, key: str, number: int, wait: Callable[[Seconds], object] = time.sleep) -> Iterator[None]:
        """Keep other processes from fetching a block, once those that are at it have done; threads are not kept.

        After `_PATIENCE` it is fetched twice rather than not at all, and also where the folder takes no locks.

        Args:
            wait: waits for so many seconds.
        """
        digest = hashlib.blake2b(f"{key}-{number}".encode(), digest_size=8).digest()
        place = int.from_bytes(digest, "little") >> 2  # files have at most 2**63 bytes
        descriptor = self._open_turns()
        waited = 0.0
        # Not by a lock that waits: threads of two processes that wait for each other's blocks look like a deadlock.
        while not _try_lock(descriptor, place) and waited < _PATIENCE:
            wait(_LOOK)
            waited += _LOOK
        try:
            yield
        finally:
            with suppress(OSError, ValueError):  # one that another process has is not given back by this one
                fcntl.lockf(descriptor, fcntl.LOCK_UN, 1, place)

    def used(self) -> Bytes:
        """Return how many bytes all blocks take on the disk."""
        with self._locked():
            return self._used()

    def _path(self, key: str, number: int) -> str:
        return f"{self._folder}/{key[:2]}/{key}-{number}"

    def _is_whole(self, path: str, descriptor: int, status: os.stat_result) -> bool:
        """Return whether a file holds what was written; looked at once a process."""
        if self._checked.get(path) == (status.st_ino, status.st_size):
            return True
        content = _all_of(descriptor, status.st_size)
        whole = zlib.crc32(content[:-_CRC]).to_bytes(_CRC, "little") == content[-_CRC:]
        if whole:
            self._note_whole(path, status)
        return whole

    def _note_whole(self, path: str, status: os.stat_result) -> None:
        """Note that a file need not be looked at again."""
        if len(self._checked) >= _MOST_CHECKED:
            self._checked.clear()
        self._checked[path] = (status.st_ino, status.st_size)

    def _touch(self, descriptor: int) -> None:
        """Note that a block is used now."""
        now = int(self._clock() * 1e9)
        with suppress(OSError):  # of another user: it then counts as older than it is
            os.utime(descriptor, ns=(now, now))

    def _put(self, path: str, content: bytes) -> None:
        """Write a file in one step; its time of writing is that of its first use."""
        folder, name = os.path.split(path)
        temporary = f"{folder}/.{name}.{os.getpid()}.{threading.get_ident()}.tmp"
        try:
            with open(temporary, "wb") as file:
                file.write(content)
                file.write(zlib.crc32(content).to_bytes(_CRC, "little"))
                file.flush()
                self._touch(file.fileno())
                self._note_whole(path, os.fstat(file.fileno()))
            os.replace(temporary, path)
        except OSError:
            with suppress(OSError):
                os.unlink(temporary)
            raise

    def _drop(self, path: str) -> None:
        """Remove a damaged block."""
        self._checked.pop(path, None)
        with self._locked(), suppress(OSError):
            size = _on_disk(os.stat(path).st_size)
            used = self._used()
            os.unlink(path)
            self._set_used(max(0, used - size))

    def _make_room(self, target: Bytes) -> Bytes:
        """Remove the blocks used longest ago until the others take at most `target` bytes; return what they take."""
        blocks = sorted(self._blocks())
        total = sum(size for _, size, _ in blocks)
        for _, size, path in blocks:
            if total <= target:
                break
            with suppress(FileNotFoundError):
                os.unlink(path)
            self._checked.pop(path, None)
            total -= size
        return total

    def _blocks(self) -> Iterator[tuple[int, Bytes, str]]:
        """Yield the time of last use, the size and the path of every block; abandoned temporary files are removed."""
        with os.scandir(self._folder) as folders:
            inner = [entry.path for entry in folders if entry.is_dir()]
        for folder in inner:
            with os.scandir(folder) as entries:
                for entry in entries:
                    with suppress(FileNotFoundError):
                        status = entry.stat()
                        if not entry.name.startswith("."):
                            yield status.st_mtime_ns, _on_disk(status.st_size), entry.path
                        elif time.time() - status.st_ctime > _ABANDONED:
                            os.unlink(entry.path)

    def _used(self) -> Bytes:
        """Return the count of all sizes; looked up where the file that has it is missing or damaged. The lock is held."""
        try:
            content = (self._folder / _USED).read_bytes()
            return int.from_bytes(content, "little") if len(content) == 8 else self._counted()
        except OSError:
            return self._counted()

    def _counted(self) -> Bytes:
        return sum(size for _, size, _ in self._blocks())

    def _set_used(self, used: Bytes) -> None:
        descriptor = os.open(self._folder / _USED, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            os.pwrite(descriptor, used.to_bytes(8, "little"), 0)
        finally:
            os.close(descriptor)

    def _open_turns(self) -> int:
        """Return the descriptor of the file of turns, which stays open: closing one gives back all turns of the process.

        One that cannot be opened is -1, which nothing can be locked in: what writes the block says what is wrong.
        """
        with self._lock:
            if self._turns < 0:
                with suppress(OSError):
                    self._turns = os.open(self._folder / _TURNS, os.O_RDWR | os.O_CREAT, 0o600)
            return self._turns

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep the other threads and processes out."""
        with self._lock:
            descriptor = os.open(self._folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                yield
            finally:
                os.close(descriptor)  # which gives the lock back


def _try_lock(descriptor: int, place: int) -> bool:
    """Lock a byte of a file for this process; return False where another one has it locked.

    True, too, where nothing can be locked: then nobody can be waited for.
    """
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
    except (OSError, ValueError) as error:
        return getattr(error, "errno", None) not in (errno.EACCES, errno.EAGAIN)
    return True


def _on_disk(size: Bytes) -> Bytes:
    """Return what a file of so many bytes takes."""
    return size + -size % _PAGE


def _all_of(descriptor: int, size: Bytes) -> bytes:
    """Return the content of an open file."""
    parts = []
    offset = 0
    while part := os.pread(descriptor, size - offset, offset):
        parts.append(part)
        offset += len(part)
    return b"".join(parts)
