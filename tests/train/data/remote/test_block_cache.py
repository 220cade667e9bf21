"""The cache of blocks against a list that is obviously right, and between processes."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from attfc_train.data.remote import block_cache
from attfc_train.data.remote.block_cache import BlockCache

PAGE = 4096
KEY = "ab" * 16


class SlowCache:
    """Blocks in the order of their last use, the oldest first; each takes whole pages, with four bytes of checksum."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.blocks: list[tuple[int, bytes]] = []

    def taken(self) -> int:
        return sum(-(-(len(content) + 4) // PAGE) * PAGE for _, content in self.blocks)

    def read(self, number: int) -> bytes | None:
        for place, (other, content) in enumerate(self.blocks):
            if other == number:
                self.blocks.append(self.blocks.pop(place))
                return content
        return None

    def write(self, number: int, content: bytes) -> None:
        size = -(-(len(content) + 4) // PAGE) * PAGE
        if size > self.limit or number in dict(self.blocks):
            return
        if self.taken() + size > self.limit:
            while self.blocks and self.taken() > max(0, int(0.9 * self.limit) - size):
                self.blocks.pop(0)
        self.blocks.append((number, content))


CALLS = st.lists(st.tuples(st.sampled_from("rw"), st.integers(0, 7), st.sampled_from([1, 100, 4092, 4093, 9000])), max_size=40)


READ_AGAIN = [("w", 0, 1), ("w", 1, 1), ("w", 2, 1), ("r", 0, 1), ("w", 3, 1), ("w", 4, 1), ("r", 0, 1), ("r", 1, 1)]
"""Block 0 was written first, and used last but one."""


@example(calls=READ_AGAIN, pages=4)
@settings(max_examples=60, deadline=None)
@given(calls=CALLS, pages=st.integers(1, 8))
def test_it_holds_what_the_slow_cache_holds(tmp_path_factory, calls, pages) -> None:
    """Catches an order of eviction by writing instead of use, a bound that a block may pass, and sizes without checksum."""
    now = 1_000.0
    folder = tmp_path_factory.mktemp("blocks")
    slow = SlowCache(pages * PAGE)
    cache = BlockCache(folder, pages * PAGE, clock=lambda: now, exact_to=0)
    for kind, number, length in calls:
        now += 1
        content = bytes([number]) * length
        if kind == "w":
            cache.write(KEY, number, content)
            slow.write(number, content)
        held = slow.read(number)
        expected = None if held is None else held[1:]
        wanted = length if held is None else len(held)
        assert cache.read(KEY, number, 1, wanted, wanted) == expected
        on_disk = sum(-(-path.stat().st_size // PAGE) * PAGE for path in (folder / KEY[:2]).glob("*"))
        assert cache.used() == slow.taken() == on_disk <= slow.limit


def only_block(folder: Path) -> Path:
    (path,) = (folder / KEY[:2]).iterdir()
    return path


@pytest.mark.parametrize("damage", [lambda content: content[:-1], lambda content: content[:50] + b"x" + content[51:]])
def test_a_damaged_block_is_none(tmp_path, damage) -> None:
    """Cut off, or a byte that is another one: found by whoever did not write it."""
    BlockCache(tmp_path, 2**20).write(KEY, 0, bytes(100))
    path = only_block(tmp_path)
    path.write_bytes(damage(path.read_bytes()))
    cache = BlockCache(tmp_path, 2**20)
    assert cache.read(KEY, 0, 0, 10, 100) is None
    assert not path.exists()
    assert cache.used() == 0


def test_a_block_that_is_being_read_may_be_removed(tmp_path, monkeypatch) -> None:
    """The file is open: what another process does to its name changes nothing."""
    cache = BlockCache(tmp_path, 2**20)
    cache.write(KEY, 0, b"0123456789")
    pread = os.pread

    def removing(descriptor, *arguments):
        only_block(tmp_path).unlink(missing_ok=True) if list((tmp_path / KEY[:2]).iterdir()) else None
        return pread(descriptor, *arguments)

    monkeypatch.setattr(os, "pread", removing)
    assert cache.read(KEY, 0, 2, 6, 10) == b"2345"


def test_what_killed_processes_left_is_removed_and_counted(tmp_path) -> None:
    cache = BlockCache(tmp_path, 3 * PAGE)
    cache.write(KEY, 0, bytes(10))
    (tmp_path / "used").write_bytes(b"damaged")
    assert cache.used() == PAGE
    left = tmp_path / KEY[:2] / ".x.tmp"
    left.write_bytes(bytes(10))
    for number in range(1, 4):
        cache.write(KEY, number, bytes(10))
    assert left.exists(), "it may be of a process that lives"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("time.time", lambda: left.stat().st_ctime + 4000)
        for number in range(4, 8):
            cache.write(KEY, number, bytes(10))
    assert not left.exists()


WRITER = """
import sys
from pathlib import Path
from attfc_train.data.remote.block_cache import BlockCache
cache = BlockCache(Path(sys.argv[1]), 20 * 4096)
for number in range(60):
    cache.write("ab" * 16, number, bytes([number]) * 3000)
    content = cache.read("ab" * 16, number, 0, 3000, 3000)
    assert content in (None, bytes([number]) * 3000)
    assert cache.used() <= 20 * 4096
"""


def test_processes_share_it(tmp_path) -> None:
    """Four at once: no block is counted twice or half written, and the bound holds all the time."""
    command = [sys.executable, "-W", "error", "-c", WRITER, str(tmp_path)]
    for child in [subprocess.Popen(command) for _ in range(4)]:
        assert child.wait() == 0
    assert BlockCache(tmp_path, 20 * PAGE).used() == len(list((tmp_path / KEY[:2]).iterdir())) * PAGE


HOLDER = """
import sys, time
from pathlib import Path
from attfc_train.data.remote.block_cache import BlockCache
with BlockCache(Path(sys.argv[1]), 2**20).turn("ab" * 16, int(sys.argv[2])):
    print("mine", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path):
    """A process that fetches block 3, and does not come to an end."""
    command = [sys.executable, "-W", "error", "-c", HOLDER, str(tmp_path), "3"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "mine\n"
        yield child
        child.kill()


def test_a_turn_is_waited_for_and_given_back_by_who_dies(tmp_path, holder) -> None:
    """Catches a lock that outlives its process: the block could never be fetched again."""
    cache = BlockCache(tmp_path, 2**20)
    waited: list[float] = []

    def wait(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 5:
            holder.kill()
            holder.wait()

    with cache.turn(KEY, 4, wait), cache.turn("cd" * 16, 3, wait):
        assert waited == [], "another block"
    with cache.turn(KEY, 3, wait):
        assert len(waited) == 5
    with cache.turn(KEY, 3, wait):
        assert len(waited) == 5, "it was given back"


def test_a_process_that_hangs_keeps_nobody_for_ever(tmp_path, holder) -> None:
    waited: list[float] = []
    cache = BlockCache(tmp_path, 2**20)
    with cache.turn(KEY, 3, waited.append):
        assert sum(waited) == pytest.approx(block_cache._PATIENCE, abs=0.1)
    waited.clear()
    with cache.turn(KEY, 3, waited.append):
        assert waited, "a turn that was not had is not given back"


def test_a_folder_without_locks_keeps_nobody(tmp_path, holder, monkeypatch) -> None:
    def refused(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", refused)
    with BlockCache(tmp_path, 2**20).turn(KEY, 3, pytest.fail):
        pass
    monkeypatch.undo()
    (tmp_path / "turns").unlink()
    (tmp_path / "turns").mkdir()
    with BlockCache(tmp_path, 2**20).turn(KEY, 3, pytest.fail):
        pass
