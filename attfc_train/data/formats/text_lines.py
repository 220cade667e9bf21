"""Lists with a name and a label in each line, of which only places in the text are kept."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from attfc_train.data.formats.data_files import DataFiles
from attfc_train.data.formats.label_texts import LabelTexts
from attfc_train.data.report import DataReport, shown
from attfc_train.errors import DataError
from attfc_train.units import Bytes

Int64s = NDArray[np.int64]

MOST_LINE: Final[Bytes] = 65536
_BLOCK: Final[Bytes] = 2**22
_MARK: Final = b"\xef\xbb\xbf"
"""A byte order mark, which some editors put in front of UTF-8."""
_NO_LABEL: Final = "lines passed over without a name and a label"
_IM2REC: Final = ".lst"


@dataclass(frozen=True, slots=True, eq=False)
class LabelLines:
    """The lines of a list that have a name and a label. Legend: n lines."""

    files: DataFiles
    number: int
    offsets: Int64s
    """int64 [n]: byte of the name."""
    lengths: NDArray[np.int32]
    """int32 [n]: its bytes."""
    hashes: Int64s
    """int64 [n]: of the name, the same only within this process; or none at all."""
    labels: Int64s
    """int64 [n]: `NONE` where it is none."""

    def only(self, kept: NDArray[Any]) -> LabelLines:
        """Return some of the lines, by bool [n]."""
        hashes = self.hashes[kept] if self.hashes.size else self.hashes
        return LabelLines(self.files, self.number, self.offsets[kept], self.lengths[kept], hashes, self.labels[kept])

    def name_of(self, line: int) -> bytes:
        """Return the name in a line.

        Raises:
            UnreadableError: the list cannot be read any more.
        """
        return self.files.read(self.number, int(self.offsets[line]), int(self.lengths[line]))

    def text_of(self, line: int) -> str:
        """Return the name in a line, for messages."""
        return shown(self.name_of(line).decode(errors="replace"))


def label_lines(files: DataFiles, number: int, report: DataReport) -> LabelLines:
    """Read a list: ``NAME LABEL``, separated by blanks or tabs, or im2rec's ``NUMBER LABEL ... NAME`` in a ``.lst`` file.

    Blanks within a name are part of it, and of a label that stands behind a tab. Empty lines and those that begin with ``#``
    are no entries.

    Args:
        report: receives the lines that are passed over.

    Raises:
        UnreadableError: the list cannot be read.
        DataError: it holds no text.
    """
    split = _split_im2rec if files.paths[number].suffix.lower() == _IM2REC else _split
    labels = LabelTexts()
    offsets, lengths, hashes = array("q"), array("i"), array("q")
    for start, line in _lines(files, number):
        if not line or line.startswith(b"#"):
            continue
        name, label = split(line)
        if not name or not label:
            report.count(_NO_LABEL, 1, f"'{shown(line[:80].decode(errors='replace'))}'")
            continue
        offsets.append(start + (len(line) - len(name) if split is _split_im2rec else 0))
        lengths.append(len(name))
        hashes.append(hash(name))
        labels.append(label)
    columns = (np.frombuffer(offsets, np.int64), np.frombuffer(lengths, np.int32), np.frombuffer(hashes, np.int64))
    return LabelLines(files, number, *columns, labels.numbers(report))


def _split(line: bytes) -> tuple[bytes, bytes]:
    """Return name and label of a line: what is before the last tab, or else the last blanks, and what is behind."""
    parts = line.rsplit(b"\t", 1) if b"\t" in line else line.rsplit(None, 1)
    return (parts[0].rstrip(), parts[1].strip()) if len(parts) == 2 else (b"", b"")


def _split_im2rec(line: bytes) -> tuple[bytes, bytes]:
    """Return name and first label of one of im2rec's lines: number, labels and name, separated by tabs."""
    parts = line.split(b"\t")
    if len(parts) < 3:
        return b"", b""
    whole, _, fraction = parts[1].strip().partition(b".")  # im2rec writes labels as 3.000000
    return parts[-1], whole if not fraction.strip(b"0") else parts[1]


def _lines(files: DataFiles, number: int) -> Iterator[tuple[int, bytes]]:
    """Yield the lines of a text without the blanks around them, and the byte at which each then starts.

    Raises:
        DataError: there are zero bytes, or a line is longer than `MOST_LINE`.
    """
    place = len(_MARK) if files.read(number, 0, len(_MARK)) == _MARK else 0
    rest = b""
    size = files.sizes[number]
    while place + len(rest) < size:
        block = files.read(number, place + len(rest), _BLOCK)
        if b"\0" in block:
            raise _no_text(files, number, "other content")
        *lines, rest = (rest + block).split(b"\n")
        for line in lines:
            text = line.strip()
            yield place + line.find(text), text
            place += len(line) + 1
        if len(rest) > MOST_LINE:
            raise _no_text(files, number, f"a line of more than {MOST_LINE:,} bytes")
    text = rest.strip()
    yield place + rest.find(text), text


def _no_text(files: DataFiles, number: int, got: str) -> DataError:
    rule = f"'{shown(str(files.paths[number]))}' must be text with a name and a label in each line"
    return DataError(rule, got, "Write it as UTF-8 text.")
