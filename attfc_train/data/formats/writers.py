"""The formats that can be written, as a list: a new one is its function and a line in `TARGETS`.

Images are written with the bytes that they have, an identity's together, identities in the order of their labels. A file or
folder appears when all of it is there.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

from attfc_train.data.formats.lmdb_writer import write_lmdb
from attfc_train.data.formats.parquet_writer import write_parquet
from attfc_train.data.formats.recordio_writer import write_headerless, write_recordio
from attfc_train.errors import UsageError
from attfc_train.files import write_atomically, write_folder_atomically

Int64s = NDArray[np.int64]

_SHARD: Final = re.compile(r"%(\d{0,2})d")
_RECORD: Final = tarfile.RECORDSIZE
"""An archive's end is padded to so many bytes."""

_HEAD: Final = tarfile.TarInfo().tobuf(tarfile.USTAR_FORMAT)
"""The header of a member without a name and of no bytes."""
_SUM: Final = int(_HEAD[148:154], 8) - sum(_HEAD[124:135])
"""The sum of its bytes but those of the size."""

_STARTS: Final = ((b"\xff\xd8\xff", "jpg"), (b"\x89PNG", "png"), (b"RIFF", "webp"), (b"BM", "bmp"))


@dataclass(frozen=True, slots=True)
class Images:
    """What is written. Legend: N images."""

    labels: Int64s
    """int64 [N], ascending."""
    encoded: Iterable[bytes]
    """The images' files, N of them, read one at a time."""

    def named(self) -> Iterator[tuple[int, int, bytes]]:
        """Yield label, number within the identity, and image."""
        former = number = -1
        for label, content in zip(self.labels.tolist(), self.encoded, strict=True):
            number = number + 1 if label == former else 0
            former = label
            yield label, number, content


@dataclass(frozen=True, slots=True)
class WriteOptions:
    """How to write."""

    layout: str = ""
    """One of the target's layouts; empty is the first."""
    shard_images: int = 10_000
    """Images in a tar shard."""
    side: int = 112
    """Pixels of a side, for RecordIO's ``property``."""


@dataclass(frozen=True, slots=True)
class Target:
    """A format that can be written."""

    matches: Callable[[Path], bool]
    """Returns whether an output is of this format."""
    write: Callable[[Path, Images, WriteOptions], None]
    """Writes it; raises `UsageError` where the format cannot hold the labels, `StorageError` where it cannot be written."""
    help: str
    """A noun phrase for messages."""
    layouts: tuple[str, ...] = ()
    """Names of the layouts that there are, the usual one first."""


def ending_of(content: bytes) -> str:
    """Return the ending of an image's file by its first bytes; ``jpg`` for what begins like nothing, and is damaged."""
    return next((ending for start, ending in _STARTS if content.startswith(start)), "jpg")


def is_shard_pattern(path: Path) -> bool:
    """Return whether `path` is a name with a place for the shard's number: ``faces-%06d.tar``."""
    return path.suffix.lower() == ".tar" and _SHARD.search(path.name) is not None


def written_root(path: Path) -> Path:
    """Return what appears in one step: the output itself, or the folder of shards."""
    return path.parent if is_shard_pattern(path) else path


def _write_records(path: Path, images: Images, options: WriteOptions) -> None:
    write = write_headerless if options.layout == "im2rec" else write_recordio
    write(path, images.labels, images.encoded, side=options.side)


def _write_folder(path: Path, images: Images, _options: WriteOptions) -> None:
    """Write ``00000017/000000.jpg``: names of equally many digits, so that their order is that of the labels."""
    digits = max(8, len(str(images.labels.max())))

    def fill(root: Path) -> None:
        for label, number, content in images.named():
            folder = root / f"{label:0{digits}d}"
            if number == 0:
                folder.mkdir()
            (folder / f"{number:06d}.{ending_of(content)}").write_bytes(content)

    write_folder_atomically(path, fill)


def _write_tar(path: Path, images: Images, _options: WriteOptions) -> None:
    write_atomically(path, lambda file: _write_archive(file, enumerate(images.named())))


def _write_shards(path: Path, images: Images, options: WriteOptions) -> None:
    def fill(root: Path) -> None:
        samples = enumerate(images.named())
        for shard in range(-(-images.labels.size // options.shard_images)):
            with (root / _SHARD.sub(f"{shard:0{_width(path)}d}", path.name, count=1)).open("wb") as file:
                _write_archive(file, islice(samples, options.shard_images))

    write_folder_atomically(path.parent, fill)


def _width(path: Path) -> int:
    """Return the digits of a shard's number in a pattern."""
    match = _SHARD.search(path.name)
    return int(match[1] or 1) if match else 1


def _write_archive(file: BinaryIO, samples: Iterable[tuple[int, tuple[int, int, bytes]]]) -> None:
    """Write WebDataset's samples: ``000000017.jpg`` and ``000000017.cls``, numbered through all shards."""
    for place, (label, _, content) in samples:
        _write_member(file, f"{place:09d}.{ending_of(content)}", content)
        _write_member(file, f"{place:09d}.cls", str(label).encode())
    file.write(bytes(2 * tarfile.BLOCKSIZE))
    file.write(bytes(-file.tell() % _RECORD))


def _write_member(file: BinaryIO, name: str, content: bytes) -> None:
    # As TarInfo.tobuf, ten times as fast. The sum of all bytes counts those of the sum itself as blanks; so does _SUM.
    size = b"%011o" % len(content)
    total = _SUM + sum(name.encode()) + sum(size)
    head = name.encode().ljust(100, b"\0") + _HEAD[100:124] + size + _HEAD[135:148] + b"%06o\0 " % total + _HEAD[156:]
    file.write(head + content + bytes(-len(content) % tarfile.BLOCKSIZE))


def _write_lmdb(path: Path, images: Images, options: WriteOptions) -> None:
    write_lmdb(path, images.labels, images.encoded, options.layout)


def _write_parquet(path: Path, images: Images, _options: WriteOptions) -> None:
    write_parquet(path, images.labels, images.encoded)


def _ends_in(ending: str) -> Callable[[Path], bool]:
    return lambda path: path.suffix.lower() == ending


TARGETS: tuple[Target, ...] = (
    Target(_ends_in(".rec"), _write_records, "a .rec file", ("insightface", "im2rec")),
    Target(_ends_in(".lmdb"), _write_lmdb, "a .lmdb folder", ("f2c", "msgpack")),
    Target(_ends_in(".parquet"), _write_parquet, "a .parquet file"),
    Target(is_shard_pattern, _write_shards, "tar shards such as SHARDS/faces-%06d.tar"),
    Target(_ends_in(".tar"), _write_tar, "a .tar file"),
    Target(lambda path: not path.suffix, _write_folder, "a folder"),
)
"""The first that matches writes an output; messages list them in this order."""


def target_of(path: Path) -> Target:
    """Return the format of an output.

    Raises:
        UsageError: there is none of this name.
    """
    for target in TARGETS:
        if target.matches(path):
            return target
    *others, last = (target.help for target in TARGETS)
    rule = f"--output must be {', '.join(others)} or {last} (a name without an ending)"
    is_list = path.suffix.lower() in (".txt", ".lst")
    remedy = "A list only names images that lie in a folder: write these, -o faces, which is a data set without a list."
    raise UsageError(rule, f"'{path}'", remedy if is_list else "Choose one of them.")
