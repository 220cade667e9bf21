"""Bytes of remote objects against the file itself, with servers that fail in every way."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from attfc_train.data.reading import existing_path, persistently, read_blocks, read_file, remote_file
from attfc_train.data.remote import mirror, objects
from attfc_train.data.remote.block_cache import BlockCache
from attfc_train.data.remote.objects import cache_limit
from attfc_train.data.remote.places import remote_folder
from attfc_train.data.unreadable import LostError
from attfc_train.errors import UsageError
from attfc_train.units import GIB, MIB
from tests.train.data.remote import conftest

CONTENT = np.random.default_rng(7).integers(0, 256, 12_345, dtype=np.uint8).tobytes()

pytestmark = pytest.mark.usefixtures("small_blocks")


@pytest.fixture
def served(server):
    (server.folder / "a.bin").write_bytes(CONTENT)
    return server


def opened(served, name="a.bin"):
    path = existing_path(f"{served.url}/{name}")
    assert path is not None
    return remote_file(path)


PLACES = st.lists(st.tuples(st.integers(0, 12_400), st.integers(0, 4000)), min_size=1, max_size=8)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(places=PLACES)
def test_any_part_is_that_of_the_file(served, places) -> None:
    remote = opened(served)
    assert remote.size == len(CONTENT)
    for offset, length in places:
        assert remote.read(offset, length) == CONTENT[offset : offset + length]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(offsets=st.lists(st.integers(0, len(CONTENT) - 1), max_size=30), length=st.sampled_from([1, 48, 1500]))
def test_many_pieces_are_those_of_the_file(served, offsets, length) -> None:
    pieces = opened(served).pieces(np.array(offsets, dtype=np.int64), length)
    assert bytes(pieces) == b"".join(CONTENT[offset : offset + length].ljust(length, b"\0") for offset in offsets)


def test_headers_are_asked_for_by_the_block(served) -> None:
    """250 pieces in 13 blocks: one request a block. Catches a request a piece."""
    opened(served).pieces(np.arange(0, 12_300, 49, dtype=np.int64), 48)
    assert sorted(served.requests("GET")) == sorted(
        f"bytes={start}-{min(start + 999, 12_344)}" for start in range(0, 12_345, 1000)
    )


def test_what_was_read_once_is_not_asked_for_again(served) -> None:
    opened(served).read(0, 12_345)
    served.log.clear()
    mirror.forget()
    assert opened(served).read(500, 9000) == CONTENT[500:9500]
    assert served.requests("GET") == []


def test_an_image_costs_one_request(served) -> None:
    """Read at random: nothing is fetched that was not asked for."""
    remote = opened(served)
    for offset in (9_100, 4_100, 7_100):
        remote.read(offset, 100)
    assert len(served.requests("GET")) == 3


def test_a_block_that_comes_between_look_and_question_is_fetched_once(served, monkeypatch) -> None:
    """One thread finds no block; before it asks, another one has fetched it."""
    remote = opened(served)
    read = BlockCache.read
    looks = []

    def late(*arguments):
        content = read(*arguments)
        looks.append(content)
        if len(looks) == 1:
            other = threading.Thread(target=remote.read, args=(4_100, 100))
            other.start()
            other.join()
        return content

    monkeypatch.setattr(BlockCache, "read", late)
    assert remote.read(4_100, 100) == CONTENT[4_100:4_200]
    assert looks[0] is None
    assert len(served.requests("GET")) == 1


def test_threads_that_want_one_block_at_once_fetch_it_once(served, monkeypatch) -> None:
    """All eight have looked in vain before the first of them asks."""
    remote = opened(served)
    read = BlockCache.read
    looked = threading.Barrier(8)

    def together(*arguments):
        content = read(*arguments)
        if threading.current_thread().name.startswith("wants"):
            looked.wait(10)
        return content

    monkeypatch.setattr(BlockCache, "read", together)
    contents = []
    threads = [
        threading.Thread(target=lambda: contents.append(remote.read(4_100, 100)), name=f"wants {each}") for each in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert contents == [CONTENT[4_100:4_200]] * 8
    assert len(served.requests("GET")) == 1


READER = """
import hashlib, sys
from attfc_train.data.reading import existing_path, remote_file
remote = remote_file(existing_path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
print(hashlib.sha256(remote.read(0, remote.size)).hexdigest(), flush=True)
"""


def readers(url, number):
    """Processes that have opened an object and wait for a line."""
    command = [sys.executable, "-W", "error", "-c", READER, url]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    children = [subprocess.Popen(command, **pipes) for _ in range(number)]
    assert [child.stdout.readline() for child in children] == ["ready\n"] * number
    return children


def let_go(children):
    for child in children:
        child.stdin.write("\n")
        child.stdin.flush()


@pytest.mark.parametrize("ranges", [True, False])
def test_processes_that_want_the_same_blocks_at_once_fetch_them_once(served, ranges, monkeypatch) -> None:
    """Three blocks of 4 MiB, from a server that takes its time. Catches two processes that have both looked in vain."""
    content = np.random.default_rng(1).integers(0, 256, 9 * MIB, dtype=np.uint8).tobytes()
    (served.folder / "large.bin").write_bytes(content)
    served.ranges = ranges
    monkeypatch.setenv(objects.LIMIT, "64MiB")
    send = conftest.Handler._send

    def slow(*arguments, **named):
        time.sleep(0.5)
        send(*arguments, **named)

    monkeypatch.setattr(conftest.Handler, "_send", slow)
    children = readers(f"{served.url}/large.bin", 2)
    served.log.clear()
    let_go(children)
    digest = hashlib.sha256(content).hexdigest()
    assert [child.communicate(timeout=60)[0] for child in children] == [f"{digest}\n"] * 2
    asked = served.requests("GET")
    assert (len(asked) if ranges else asked.count(None)) == (3 if ranges else 1)


def test_a_block_that_a_dead_process_left_half_written_is_fetched_again(served, monkeypatch) -> None:
    """Beside its temporary file a block of the right length, whose last pages a power cut took: catches a look at lengths."""
    opened(served).read(4_100, 100)
    (block,) = [path for path in remote_folder().glob(".blocks/*/*") if not path.name.startswith(".")]
    whole = block.read_bytes()
    block.with_name(f".{block.name}.1.1.tmp").write_bytes(whole[:300])
    block.unlink()
    block.write_bytes(whole[:300] + bytes(len(whole) - 300))
    served.log.clear()
    monkeypatch.setattr(objects, "_readers", {})  # as in a process that begins now
    assert opened(served).read(4_000, 1_000) == CONTENT[4_000:5_000]
    assert len(served.requests("GET")) == 1
    assert block.read_bytes() == whole


def test_the_bound_holds(served, tmp_path) -> None:
    (served.folder / "b.bin").write_bytes(bytes(100_000))
    assert opened(served, "b.bin").read(0, 100_000) == bytes(100_000)
    blocks = list((tmp_path / "cache" / "remote" / ".blocks").glob("*/*"))
    assert 0 < len(blocks) * 4096 <= 160 * 1024


@pytest.mark.parametrize("faults", [["drop"], ["short"], ["500"], ["503", "drop", "short"], ["429"]])
def test_a_lost_connection_is_tried_again(served, faults) -> None:
    remote = opened(served)
    served.faults = list(faults)
    assert remote.read(3000, 500) == CONTENT[3000:3500]
    assert len(served.requests("GET")) == len(faults) + 1


@pytest.mark.parametrize("fault", ["drop", "short", "500"])
def test_after_all_attempts_it_is_lost_and_not_repeated_once_more(served, fault) -> None:
    """Four attempts, not four times five; and a text without the server's own words for the password."""
    remote = opened(served)
    served.always = fault
    with pytest.raises(
        LostError, match=r"'http://127.0.0.1:\d+/a.bin' must be readable, but got no answer in 4 attempts, last"
    ):
        persistently(lambda: remote.read(3000, 500))
    assert 4 <= len(served.requests("GET")) <= 8, "aiohttp itself repeats a request once whose connection was closed"
    served.always = ""
    assert remote.read(3000, 500) == CONTENT[3000:3500]


def test_a_refusal_is_not_repeated(served) -> None:
    remote = opened(served)
    served.always = "403"
    with pytest.raises(LostError, match=r"must be readable, but got '403 Forbidden'. Check the URL and who may read it"):
        remote.read(0, 10)
    assert len(served.requests("GET")) == 1


def test_a_changed_object_is_noticed(served) -> None:
    """Also where only its time has changed: blocks of two versions must not meet."""
    remote = opened(served)
    assert remote.read(0, 100) == CONTENT[:100]
    (served.folder / "a.bin").write_bytes(CONTENT[::-1])
    os.utime(served.folder / "a.bin", (1, 1))
    assert remote.read(0, 100) == CONTENT[:100], "its block is here"
    with pytest.raises(LostError, match="must not change while it is open, but got another version of it"):
        remote.read(5000, 100)
    mirror.forget()
    assert opened(served).read(0, 100) == CONTENT[::-1][:100]


def test_an_object_that_is_gone_is_said(served) -> None:
    remote = opened(served)
    (served.folder / "a.bin").unlink()
    with pytest.raises(LostError, match="no such object any more"):
        remote.read(0, 10)


def test_a_server_without_parts_gives_the_whole_file_once(served) -> None:
    served.ranges = False
    remote = opened(served)
    assert remote.read(3000, 5000) == CONTENT[3000:8000]
    assert remote.read(0, 12_345) == CONTENT
    assert served.requests("GET").count(None) == 1


def test_a_whole_file_larger_than_the_bound_is_refused(served) -> None:
    served.ranges = False
    (served.folder / "b.bin").write_bytes(bytes(100_000))
    with pytest.raises(LostError, match=r"gives whole files only, which must fit into the cache .*100,000 bytes, and room for"):
        opened(served, "b.bin").read(0, 10)
    assert None not in served.requests("GET")


def test_a_whole_file_that_is_cut_off_is_fetched_again(served) -> None:
    served.ranges = False
    served.faults = ["fine", "short", "drop"]
    assert opened(served).read(0, 12_345) == CONTENT


def test_a_full_disk_is_one_line(served, monkeypatch) -> None:
    remote = opened(served)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(objects.BlockCache, "write", full)
    with pytest.raises(
        LostError, match=r"must take the blocks .*No space left on device. Free disk space, or set ATTFC_REMOTE_CACHE"
    ):
        remote.read(0, 10)


def test_files_read_whole_or_in_blocks(served) -> None:
    path = existing_path(f"{served.url}/a.bin")
    assert read_file(path) == CONTENT
    assert read_file(path, 10) == CONTENT[:10]
    assert list(read_blocks(path, 5000)) == [CONTENT[:5000], CONTENT[5000:10_000], CONTENT[10_000:]]


def test_read_ahead_fetches(served) -> None:
    remote = opened(served)
    remote.read_ahead(2000, 3000)
    deadline = time.monotonic() + 10
    while len(list(remote_folder().glob(".blocks/*/[!.]*"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)  # a reader that comes earlier would ask for the blocks behind these, too
    assert remote.read(2000, 3000) == CONTENT[2000:5000]
    assert len(served.requests("GET")) == 3


@pytest.mark.parametrize(
    ("text", "limit"), [("200GiB", 200 * GIB), ("1.5G", 3 * GIB // 2), ("70000000", 70_000_000), ("64 MiB", 64 * MIB)]
)
def test_the_bound_can_be_given(tmp_path, text, limit) -> None:
    assert cache_limit(text, tmp_path) == limit


@pytest.mark.parametrize("text", ["much", "-1GiB", "1KiB", "0"])
def test_a_bound_that_is_none_is_refused(tmp_path, text) -> None:
    with pytest.raises(UsageError, match="ATTFC_REMOTE_CACHE must be a size of at least"):
        cache_limit(text, tmp_path)


def test_without_a_bound_it_is_half_of_what_is_free(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 60 * GIB})())
    assert cache_limit(None, tmp_path) == 30 * GIB
    (tmp_path / "used").write_bytes((20 * GIB).to_bytes(8, "little"))
    assert cache_limit(None, tmp_path) == 50 * GIB
