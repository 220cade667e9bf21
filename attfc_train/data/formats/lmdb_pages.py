"""The entries of an LMDB database, read page by page without the library.

The library maps the file, so that one that was cut off ends the process, and believes what it finds there. Here every number is
checked against the file before it is followed, and an image, whose bytes lie together, can be read at its place ever after.

A file is pages; those with entries are the leaves of a B-tree. Format of version 1, 64 bit, little-endian (``mdb.c``):

    page    number u64 | unused u16 | flags u16 | end of the entries' places u16 | unused u16 | places of entries u16 ...
    entry   low and high half of the value's length u16, u16 | flags u16 | length of the key u16 | key | value
    meta    (after its page's 16 bytes) magic u32 | version u32 | address u64 | map's size u64 | free list's tree | tree
            | last page u64 | transaction u64
    tree    page size, in the free list's u32 | flags u16 | depth u16 | pages u64, u64, u64 | entries u64 | root page u64

A long value stands on pages of its own, behind the first one's 16 bytes, and the entry has that page's number instead. Of the
two meta pages the one with the later transaction counts.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from attfc_train.data.formats.data_files import DataFiles
from attfc_train.data.report import DataReport, shown
from attfc_train.errors import DataError
from attfc_train.units import Bytes

MAGIC: Final = 0xBEEFC0DE
_VERSION: Final = 1
_META: Final = struct.Struct("<II16x48x48x8xQ")
_TREE: Final = struct.Struct("<IHHQQQQQ")
_FREE_AT, _TREE_AT = 40, 88
"""Bytes of a meta page at which the trees stand."""
_PAGE: Final = struct.Struct("<QHHHH")
PAGE_BYTES: Final[Bytes] = _PAGE.size
_ENTRY: Final = struct.Struct("<HHHH")
_BRANCH, _LEAF = 1, 2
_LONG, _TREE_WITHIN, _SEVERAL = 1, 2, 4
"""Flags of an entry: the value has pages of its own, is a tree, is several values."""
_NO_ROOT: Final = 2**64 - 1
_PAGE_SIZES: Final = frozenset(2**power for power in range(9, 17))
_MOST_DEPTH: Final = 32
_SHOWN: Final = 80

_TREES: Final = "named databases within the LMDB file passed over"
_VALUES: Final = "LMDB entries of several values passed over"


class Entry(NamedTuple):
    """A key and where its value is."""

    key: bytes
    key_at: int
    """Byte of the length of the key, which is followed by the key."""
    offset: int
    """Byte of the value."""
    length: Bytes


class Tree(NamedTuple):
    """The database's tree."""

    page_size: Bytes
    root: int
    num_entries: int
    """As its writer counted them."""


def read_tree(files: DataFiles) -> Tree:
    """Return what the meta pages of the first file say.

    Raises:
        UnreadableError: the file cannot be read.
        DataError: it is no LMDB file of a kind that is read, or its end is missing.
    """
    path = files.paths[0]
    found = [meta for size in (0, *sorted(_PAGE_SIZES)) if (meta := _meta(files, size)) is not None]
    if not found:
        raise damaged(path, "other content" if files.sizes[0] else "an empty file")
    _, tree = max(found, key=lambda meta: meta[0])
    if tree.page_size not in _PAGE_SIZES:
        raise damaged(path, f"pages of {tree.page_size} bytes")
    return tree


def entries(files: DataFiles, tree: Tree, report: DataReport) -> Iterator[Entry]:
    """Yield the entries of a database in the order of their keys.

    Args:
        report: receives what is no plain entry.

    Raises:
        UnreadableError: the file cannot be read.
        DataError: a page is damaged, or the entries are not as many as their writer counted.
    """
    path = files.paths[0]
    num_entries = 0
    for number, page, places in _leaves(files, tree):
        num_entries += len(places)
        if num_entries > tree.num_entries:
            raise damaged(path, f"more than the {tree.num_entries:,} entries that its writer counted")
        for place in places:
            entry = _leaf_entry(files, tree, number, page, place, report)
            if entry is not None:
                yield entry
    if num_entries < tree.num_entries:
        raise damaged(path, f"{num_entries:,} of the {tree.num_entries:,} entries that its writer counted")


def _leaves(files: DataFiles, tree: Tree) -> Iterator[tuple[int, bytes, tuple[int, ...]]]:
    """Yield number, content and entries' places of the pages with entries, in the order of the keys."""
    path = files.paths[0]
    num_pages = files.sizes[0] // tree.page_size
    waiting = [] if tree.root == _NO_ROOT else [(tree.root, 1)]
    num_visited = 0
    while waiting:
        number, depth = waiting.pop()
        num_visited += 1
        if number >= num_pages:
            raise damaged(path, f"an end before page {number:,}: it was cut off")
        # A page has one way to it. Where several pages lead to one, or to themselves, the ways would be too many to walk.
        if depth > _MOST_DEPTH or num_visited > num_pages:
            raise damaged(path, f"a tree that leads to page {number:,} again and again")
        page = files.read(0, number * tree.page_size, tree.page_size)
        own_number, _, flags, end, _ = _PAGE.unpack_from(page)
        if own_number != number or not PAGE_BYTES <= end <= tree.page_size or not flags & (_LEAF | _BRANCH):
            raise damaged(path, f"a damaged page {number:,}")
        places = struct.unpack_from(f"<{(end - PAGE_BYTES) // 2}H", page, PAGE_BYTES)
        if flags & _LEAF:
            yield number, page, places
        else:
            waiting += [(_branch_target(path, page, place), depth + 1) for place in reversed(places)]


def _meta(files: DataFiles, place: int) -> tuple[int, Tree] | None:
    """Return the transaction and the tree of the meta page at a byte of the file; None where there is none."""
    page = files.read(0, place, _META.size + PAGE_BYTES)
    if len(page) < _META.size + PAGE_BYTES:
        return None
    magic, version, transaction = _META.unpack_from(page, PAGE_BYTES)
    if magic != MAGIC or version != _VERSION:
        return None
    page_size = _TREE.unpack_from(page, _FREE_AT)[0]
    if place and place != page_size:
        return None
    return transaction, _tree(page_size, page)


def _tree(page_size: Bytes, page: bytes) -> Tree:
    """Return the tree that a meta page describes."""
    *_, num_entries, root = _TREE.unpack_from(page, _TREE_AT)
    return Tree(page_size, root, num_entries)


def _leaf_entry(files: DataFiles, tree: Tree, number: int, page: bytes, place: int, report: DataReport) -> Entry | None:
    """Return an entry of a leaf page; None for one that is no plain value."""
    path = files.paths[0]
    if place + _ENTRY.size > len(page):
        raise damaged(path, f"a damaged page {number:,}")
    low, high, flags, key_length = _ENTRY.unpack_from(page, place)
    key_end = place + _ENTRY.size + key_length
    length = low | high << 16
    key = page[place + _ENTRY.size : key_end]
    key_at = number * tree.page_size + place + _ENTRY.size - 2
    if flags & (_TREE_WITHIN | _SEVERAL):
        report.count(_TREES if flags & _TREE_WITHIN else _VALUES, 1, shown_key(key))
        return None
    if flags & _LONG:
        if key_end + 8 > len(page):
            raise damaged(path, f"a damaged page {number:,}")
        offset = int.from_bytes(page[key_end : key_end + 8], "little") * tree.page_size + PAGE_BYTES
        if offset + length > files.sizes[0]:
            raise damaged(path, f"an end before the value of '{shown_key(key)}': it was cut off")
        return Entry(key, key_at, offset, length)
    if key_end + length > len(page):
        raise damaged(path, f"a damaged page {number:,}")
    return Entry(key, key_at, number * tree.page_size + key_end, length)


def _branch_target(path: Path, page: bytes, place: int) -> int:
    """Return the page that an entry of a branch page leads to."""
    if place + _ENTRY.size > len(page):
        raise damaged(path, "a damaged branch page")
    low, high, top, _ = _ENTRY.unpack_from(page, place)
    return int(low | high << 16 | top << 32)


def shown_key(key: bytes) -> str:
    """Return a key for messages, of a long one its beginning."""
    return shown(key[:_SHOWN].decode(errors="replace"))


def damaged(path: Path, got: str) -> DataError:
    """Return the error for a file that is no whole database."""
    rule = f"'{shown(str(path))}' must be a whole LMDB database of version 1"
    return DataError(rule, got, "Copy it again, or write it again with attfc-train data convert.")
