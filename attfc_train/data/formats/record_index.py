"""The text index of a ``.rec`` file: reads it, or makes it from the records where it is missing or wrong."""

from __future__ import annotations

import codecs
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

from attfc_train.data.formats.record_frames import FIRST, FRAME_BYTES, MAGIC, MAX_LENGTH, WHOLE, RecordFile, damaged
from attfc_train.data.progress import tell
from attfc_train.data.reading import read_blocks, read_file, refuse_foreign
from attfc_train.data.remote.places import is_place
from attfc_train.data.report import DataReport
from attfc_train.errors import DataError, StorageError
from attfc_train.files import write_atomically
from attfc_train.units import Bytes

Int64s = NDArray[np.int64]

REPEATED: Final = (
    "records left out because a later line of the .idx has the same key (attfc-train data make-index gives each its own)"
)
_IDX_BLOCK: Final[Bytes] = 2**24
_START: Final[Bytes] = 512
_NONE: Final = np.zeros(0, dtype=np.int64)
_IDX_BYTES: Final = np.array([chr(code) in "0123456789\t\r\n " for code in range(256)])
"""bool [256]: bytes that an index may contain."""
_SCAN_BLOCK: Final[Bytes] = 2**26
_LINES: Final = 2**18
"""Lines of an index that are written at once."""
_ID, _ID_HIGH = 4, 5
"""Words of a record's own number, counted from its frame."""


def index_path(record_path: Path) -> Path:
    """Return where the index of ``X.rec`` is: ``X.idx`` in any case of the ending, or where it would be written."""
    expected = record_path.with_suffix(".idx")
    if not expected.exists():
        for path in (record_path.with_suffix(ending) for ending in (".IDX", ".Idx")):
            if path.exists():
                return path
    return expected


def make_index_command(record_path: Path) -> str:
    """Return the command that writes an index, for remedies."""
    return f"attfc-train data make-index '{record_path}'"


def rest_remedy(file: RecordFile) -> str:
    """Return what keeps the whole records of a file that was cut off, as the end of a remedy."""
    return f"Or keep what is whole: attfc-train data check '{file.path}' --repair clean/train.rec"


def read_or_make_index(file: RecordFile, report: DataReport, now: DataReport) -> tuple[Int64s, Int64s]:
    """Return what `read_idx` does; where there is no index it is made, and written beside the records if that can be done.

    Args:
        report: see `read_idx`.
        now: receives a line that an index has been made.

    Raises:
        DataError: the index cannot be read, or none can be made.
    """
    path = index_path(file.path)
    if os.path.lexists(path):
        return read_idx(path, report, make_index_command(file.path))
    keys, offsets = made_index(file)
    try:
        write_idx(path, keys, offsets)
        where = "kept in the cache folder" if is_place(path) else "written"
        now.say(f"'{path}' was missing: it has been made from the {keys.size:,} records, and {where}")
    except StorageError as error:
        now.say(f"'{path}' was missing: it has been made from the {keys.size:,} records, but not written ({error.got})")
    return by_key(keys, offsets, report)


def read_idx(path: Path, report: DataReport | None = None, remedy: str = "") -> tuple[Int64s, Int64s]:
    """Return keys, ascending and unique, and their byte offsets; of a repeated key the last line counts, as in MXNet.

    Args:
        report: receives how many repeated keys were passed over.
        remedy: the command that makes the index anew.

    Raises:
        DataError: the file is missing, empty, or not lines of ``key<tab>offset``.
    """
    rule = "must hold lines of key<tab>offset"
    advice = f"Copy it from the same place as the .rec file, or make it anew: {remedy or 'attfc-train data make-index'}."
    blocks = []
    size = path.stat().st_size if path.is_file() else 0
    for done, text in enumerate(_blocks_of_text(path)):
        tell("reading the index", min(done * _IDX_BLOCK, size), size)
        numbers = np.fromstring(text, dtype=np.int64, sep=" ") if _IDX_BYTES[np.frombuffer(text, np.uint8)].all() else _NONE
        if not numbers.size and text.strip():  # fromstring is fast, but stops without an error at what is no number
            refuse_foreign(path, rule, read_file(path, _START))
            raise DataError(f"'{path}' {rule}", "other text", advice)
        if (numbers == np.iinfo(np.int64).max).any():  # what does not fit becomes this, so that different keys would be one
            raise DataError(f"'{path}' {rule}", "numbers of more than 63 bits", advice)
        blocks.append(numbers)
    size = sum(numbers.size for numbers in blocks)
    if not size or size % 2:
        raise DataError(f"'{path}' {rule}", "other text" if size else "an empty file", advice)
    return by_key(*_columns(blocks, size), report or DataReport())


def _columns(blocks: list[Int64s], size: int) -> tuple[Int64s, Int64s]:
    """Return every first and every second number of the blocks, which are emptied on the way."""
    pairs = np.empty((2, size // 2), dtype=np.int64)
    count = 0
    while blocks:
        numbers = blocks.pop(0)
        for number in (0, 1):  # a block may begin with either
            mine = numbers[(number - count) % 2 :: 2]
            start = (count + 1 - number) // 2
            pairs[number, start : start + mine.size] = mine
        count += numbers.size
    return pairs[0], pairs[1]


def _blocks_of_text(path: Path) -> Iterator[bytes]:
    """Yield a text file in blocks that end between two words; as ASCII where an editor or a shell wrote it as UTF-16.

    Raises:
        UnreadableError: it cannot be read.
        DataError: it is no regular file.
    """
    start = read_file(path, _START)
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        yield read_file(path).decode("utf-16", errors="replace").encode("ascii", errors="replace")
        return
    rest = b""
    for number, block in enumerate(read_blocks(path, _IDX_BLOCK)):
        text = rest + (block if number else block.removeprefix(codecs.BOM_UTF8))
        cut = max(text.rfind(b"\n"), text.rfind(b" "), text.rfind(b"\t")) + 1
        yield text[:cut]
        rest = text[cut:]
    yield rest


def by_key(keys: Int64s, offsets: Int64s, report: DataReport) -> tuple[Int64s, Int64s]:
    """Return keys and offsets by ascending key, the last line of each only, and count the records that this leaves out."""
    ascends = keys[:-1] < keys[1:]
    if ascends.all():
        return keys, offsets
    if ascends[:-1].all() and keys[-1] < keys[0]:  # InsightFace's header, which has key 0, stands last
        return np.roll(keys, 1), np.roll(offsets, 1)
    order = np.argsort(keys, kind="stable")  # equal keys stay in the order of their lines
    keys = keys[order]
    offsets = offsets[order]
    last = np.append(keys[:-1] != keys[1:], True)
    if last.all():
        return keys, offsets
    dropped = ~last
    dropped[dropped] = ~np.isin(offsets[dropped], offsets[last])  # a line that is there twice leaves out nothing
    if dropped.any():
        report.count(REPEATED, int(dropped.sum()), f"key {keys[dropped][0]} at byte {offsets[dropped][0]}")
    return keys[last], offsets[last]


def made_index(file: RecordFile) -> tuple[Int64s, Int64s]:
    """Return the key and the offset of every record of a file, in its order.

    The keys are the records' own numbers where these tell the records apart and run from 0 or 1 without a gap, as InsightFace
    writes them; else the records are numbered from 0.

    Raises:
        DataError: the file is empty, does not end with a whole record, or holds something else between records.
    """
    offsets = record_offsets(file)
    numbers = np.empty(offsets.size, dtype=np.int64)
    for start in range(0, offsets.size, _LINES):
        words = file.heads(offsets[start : start + _LINES]).astype(np.int64)
        numbers[start : start + _LINES] = words[:, _ID] + (words[:, _ID_HIGH] << 32)
    ordered = np.sort(numbers)
    is_numbered = ordered[0] in (0, 1) and np.array_equal(ordered, np.arange(ordered[0], ordered[0] + ordered.size))
    return numbers if is_numbered else np.arange(offsets.size), offsets


def record_offsets(file: RecordFile) -> Int64s:
    """Return where the records of a file start, int64 [n], ascending.

    Raises:
        DataError: the file is empty, does not end with a whole record, or holds something else between records.
    """
    heads, words = _magics(file, 0, file.size)
    if not heads.size or heads[0] != 0:
        raise damaged(f"'{file.path}' byte 0", "no record magic" if file.size else "an empty file")
    ends = heads + FRAME_BYTES + (words & MAX_LENGTH)
    if not np.array_equal(_nexts(file, heads), _padded(ends)) or ends[-1] > file.size:
        kept = _chain(file, heads, ends)
        heads = heads[kept]
        words = words[kept]
    kinds = words >> 29
    # The frames of a record in parts are a first, middles, and a last one: a part behind a first or a middle is no new record.
    continues = np.concatenate([[False], (kinds[:-1] == FIRST) | (kinds[:-1] == FIRST + 1)])
    begins = (kinds == WHOLE) | (kinds == FIRST)
    wrong = (begins == continues) | (kinds > FIRST + 2)
    if wrong.any():
        raise damaged(f"'{file.path}' byte {heads[wrong][0]}", "a record whose parts do not follow each other")
    starts: Int64s = heads[begins]
    return starts


def whole_records(file: RecordFile) -> tuple[Int64s, int]:
    """Return where whole records start in a damaged file, int64 [n], ascending, and in how many places something is lost."""
    heads, words = _magics(file, 0, file.size)
    ends = heads + FRAME_BYTES + (words & MAX_LENGTH)
    fine = _are_whole(file, heads, ends)
    are_gaps = fine & (_padded(ends) < _nexts(file, heads))
    kinds = words >> 29
    starts: Int64s = heads[fine & ((kinds == WHOLE) | (kinds == FIRST))]
    return starts, int(np.count_nonzero(~fine)) + int(np.count_nonzero(are_gaps))


def _are_whole(file: RecordFile, heads: Int64s, ends: Int64s) -> NDArray[np.bool_]:
    """Return which frames end before the next one begins, bool [n]; what lies between the two is lost."""
    fine: NDArray[np.bool_] = (_padded(ends) <= _nexts(file, heads)) & (ends <= file.size)
    return fine


def _nexts(file: RecordFile, heads: Int64s) -> Int64s:
    """Return where the frame behind each begins, behind the last the file's end."""
    return np.append(heads[1:], _padded(file.size))


def count_records(file: RecordFile, begin: int, end: int) -> int:
    """Return the number of records that start in [begin, end)."""
    _, words = _magics(file, begin, end)
    kinds = words >> 29
    return int(((kinds == WHOLE) | (kinds == FIRST)).sum())


def _magics(file: RecordFile, begin: int, end: int) -> tuple[Int64s, NDArray[np.uint32]]:
    """Return the places of aligned magics in a range of the file, and the word behind each; this reads the range."""
    places = [np.zeros(0, dtype=np.int64)]
    words = [np.zeros(0, dtype=np.uint32)]
    for start in range(begin, end, _SCAN_BLOCK):
        tell("reading all records, as there is no index", start - begin, end - begin)
        length = min(_SCAN_BLOCK, end - start)
        content = file.bytes_at(start, length + 4)  # the word behind the last magic
        block = np.frombuffer(content[: len(content) // 4 * 4], dtype="<u4")
        found = np.flatnonzero(block[: length // 4][: max(0, block.size - 1)] == MAGIC)
        places.append(start + 4 * found)
        words.append(block[found + 1])
    return np.concatenate(places), np.concatenate(words)


def _chain(file: RecordFile, heads: Int64s, ends: Int64s) -> Int64s:
    """Return which of the magics are frames: each frame must start where the one before ends.

    Needed where a writer has not split a payload that happens to hold an aligned magic, as MXNet does.

    Raises:
        DataError: a frame ends where none starts.
    """
    kept: list[int] = []
    place = 0
    while place < file.size:
        candidate = int(np.searchsorted(heads, place))
        if candidate == heads.size or heads[candidate] != place or ends[candidate] > file.size:
            got = f"damage, or the end of the file at byte {file.size}, which was cut off"
            error = damaged(f"'{file.path}' byte {heads[kept[-1]] if kept else 0} and what follows it", got)
            # Where nothing is whole, nothing can be kept.
            rest = f" {rest_remedy(file)}" if _are_whole(file, heads, ends).any() else ""
            raise DataError(error.rule, error.got, f"{error.remedy}{rest}")
        kept.append(candidate)
        place = int(_padded(ends[candidate]))
    return np.array(kept, dtype=np.int64)


def _padded(ends: Any) -> Any:
    """Return byte numbers rounded up to multiples of 4, at which frames start."""
    return ends + -ends % 4


def write_idx(path: Path, keys: Int64s, offsets: Int64s) -> None:
    """Write an index as MXNet does, atomically.

    Raises:
        StorageError: it cannot be written.
    """

    def write(file: BinaryIO) -> None:
        for lines in _lines(keys, offsets):
            file.write(lines)

    write_atomically(path, write)


def _lines(keys: Int64s, offsets: Int64s) -> Iterator[bytes]:
    """Yield the lines of an index, many at a time."""
    for start in range(0, keys.size, _LINES):
        part = slice(start, start + _LINES)
        pairs = zip(keys[part].tolist(), offsets[part].tolist(), strict=True)
        yield "".join(f"{key}\t{offset}\n" for key, offset in pairs).encode()
