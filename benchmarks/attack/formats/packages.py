"""Packages of images that are not RecordIO: tar shards, Parquet, LMDB, lists, indices over other sets, and kept indices."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from typing import Any, Final

import numpy as np

from attfc_train import cli as trainer
from attfc_train.data.formats.kept_index import Arrays, Indexed, kept_or_made
from attfc_train.data.formats.lmdb_faces import DATA_FILE
from attfc_train.data.formats.subset import write_subset
from attfc_train.data.formats.subset_file import read_subset
from attfc_train.data.formats.writers import Images, WriteOptions, target_of
from attfc_train.data.report import DataReport
from attfc_train.data.source import open_dataset
from benchmarks.attack.documents import text_of
from benchmarks.attack.formats.base import Format
from benchmarks.attack.formats.records import Taken, face, read_all
from benchmarks.attack.mutations import mutated
from benchmarks.attack.oracle import Item, judge_images, judge_listed, judge_missing, judge_tensors, same_bits
from benchmarks.attack.outcome import Kind, Silent

_IDS: Final = 4
_EACH: Final = 3
_BLOCK: Final = 512
"""Of a tar archive."""
_TOUCHED: Final = b"in no file"
_EXTREMES: Final = (0, 1, -1, 5, 11, 12, 2**31 - 1, 2**32 - 1, 2**62)


def _items() -> list[Item]:
    return [(identity, face(identity, image)) for identity in range(_IDS) for image in range(_EACH)]


def _write(path: Path, items: list[Item], layout: str = "") -> None:
    labels = np.array([label for label, _ in items], dtype=np.int64)
    target_of(path).write(path, Images(labels, [image for _, image in items]), WriteOptions(layout))


class _Package(Format):
    """A file with images and labels, damaged."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.items = _items()
        self.content = b""

    @property
    def path(self) -> Path:
        """The file that is damaged."""
        raise NotImplementedError

    @property
    def spec(self) -> Path:
        """What is given to ``--data``."""
        return self.path

    def put(self, content: bytes) -> None:
        """Write the damaged file, without an index that was kept of another."""
        self.content = content
        self.path.write_bytes(content)
        for kept in self.path.parent.glob(".*.index"):  # the clock that tells files apart moves more slowly than the cases
            kept.unlink()

    def use(self) -> Taken:
        """Open the data set and read every image of it; that an index was made says nothing of the damage."""
        items, said = read_all(str(self.spec))
        return items, [line for line in said if "an index has been made" not in line]

    def command(self) -> tuple[Callable[[], None], list[str]]:
        """Look at the data set."""
        return trainer.main, ["attfc-train", "data", "info", str(self.spec)]


class DamagedTars(_Package):
    """A ``.tar`` shard."""

    name = "tar"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        _write(self.path, self.items)
        self.clean = self.path.read_bytes()
        self.frames = [self._frame(image) for _, image in self.items]

    @property
    def path(self) -> Path:
        """Override `_Package`."""
        return self.folder / "faces.tar"

    def _frame(self, image: bytes) -> bytes:
        """Return the members of an image and of its label, which stand one behind the other."""
        begin = self.clean.index(image) - _BLOCK
        return self.clean[begin : begin + 3 * _BLOCK + len(image) + -len(image) % _BLOCK]

    def attack(self, random: Random) -> str:
        """Override `Format`."""
        content, what = mutated(random, self.clean)
        self.put(content)
        return what

    def judge(self, taken: Any) -> Kind:
        """Override `Format`."""
        items, said = taken
        return judge_images(self.items, self.frames, self.content, items, bool(said))


class DamagedParquets(_Package):
    """A ``.parquet`` file, whose pages are compressed, so that nothing tells where an image of it is."""

    name = "parquet"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        _write(self.path, self.items)
        self.clean = self.path.read_bytes()

    @property
    def path(self) -> Path:
        """Override `_Package`."""
        return self.folder / "faces.parquet"

    def attack(self, random: Random) -> str:
        """Override `Format`."""
        content, what = mutated(random, self.clean)
        self.put(content)
        return what

    def judge(self, taken: Any) -> Kind:
        """Override `Format`."""
        items, said = taken
        if said:
            return "said"
        if len(items) != len(self.items):
            raise Silent(f"{len(items)} images in place of {len(self.items)} without a word")
        return "same" if Counter(items) == Counter(self.items) else "other"


class DamagedLmdbs(_Package):
    """A database in one of the two layouts, or the list of keys of F2C's."""

    name = "lmdb"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.folders = {layout: folder / f"{layout}.lmdb" for layout in ("f2c", "msgpack")}
        for layout, path in self.folders.items():
            _write(path, self.items, layout)
        self.clean = {path: path.read_bytes() for root in self.folders.values() for path in sorted(root.iterdir())}
        self.damaged = next(iter(self.clean))

    @property
    def path(self) -> Path:
        """Override `_Package`."""
        return self.damaged

    @property
    def spec(self) -> Path:
        """Override `_Package`."""
        return self.damaged.parent

    def attack(self, random: Random) -> str:
        """Override `Format`."""
        self.damaged.write_bytes(self.clean[self.damaged])  # the last case's
        files = [path for path in self.clean if path.suffix == ".txt" or path.name == DATA_FILE]
        self.damaged = random.choice(files)
        content, what = mutated(random, self.clean[self.damaged])
        self.put(content)
        return f"{self.damaged.parent.name}/{self.damaged.name}: {what}"

    def judge(self, taken: Any) -> Kind:
        """Override `Format`."""
        items, said = taken
        clean = self.clean[self.damaged]
        if self.damaged.name == DATA_FILE:
            # Pages that are no longer in use keep their content: whole is what is so at every place where it was.
            frames = [image if _is_in_place(image, clean, self.content) else _TOUCHED for _, image in self.items]
            return judge_images(self.items, frames, self.content, items, bool(said))
        lines = dict(zip(clean.split(b"\n"), self.items, strict=False))
        return judge_listed(lines, self.content, items, bool(said))


def _is_in_place(part: bytes, clean: bytes, content: bytes) -> bool:
    place = clean.find(part)
    while place >= 0:
        if content[place : place + len(part)] != part:
            return False
        place = clean.find(part, place + 1)
    return True


class DamagedLists(_Package):
    """A text with the path and the label of every image, in one of the two layouts."""

    name = "list"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.lists: dict[str, dict[bytes, Item]] = {"faces.txt": {}, "faces.lst": {}}
        for place, (label, image) in enumerate(self.items):
            name = f"images/a b {label}/{place}.jpg"
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(image)
            self.lists["faces.txt"][f"{name}\t{label}".encode()] = (label, image)
            self.lists["faces.lst"][f"{place}\t{label}.000000\t{name}".encode()] = (label, image)
        self.list = "faces.txt"

    @property
    def path(self) -> Path:
        """Override `_Package`."""
        return self.folder / self.list

    def attack(self, random: Random) -> str:
        """Override `Format`."""
        self.list = random.choice(list(self.lists))
        content, what = mutated(random, b"\n".join(self.lists[self.list]) + b"\n")
        self.put(content)
        return f"{self.list}: {what}"

    def judge(self, taken: Any) -> Kind:
        """Override `Format`."""
        items, said = taken
        return judge_listed(self.lists[self.list], self.content, items, bool(said))


class DamagedSubsets(_Package):
    """An index over some images of a set: damaged, or with other values and a right checksum."""

    name = "subset"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        source = folder / "faces"
        _write(source, self.items)
        write_subset(self.path, str(source), open_dataset(str(source)), [0, 1, 3, 4, 7, 8], [0, 0, 1, 1, 2, 2])
        self.clean = self.path.read_bytes()
        self.taken, _ = read_all(str(self.path))
        self.file = read_subset(self.path)
        self.is_forged = False

    @property
    def path(self) -> Path:
        """Override `_Package`."""
        return self.folder / "some.subset"

    def attack(self, random: Random) -> str:
        """Override `Format`."""
        self.is_forged = random.random() < 0.5
        content, what = self._forged(random) if self.is_forged else mutated(random, self.clean)
        self.put(content)
        return what

    def _forged(self, random: Random) -> tuple[bytes, str]:
        """Return a file of other values, as somebody else would write it."""
        labels = self.file.labels
        assert labels is not None
        arrays: Mapping[str, Any] = {"positions": self.file.positions.astype(np.int64), "labels": labels.astype(np.int64)}
        what = random.choice((*arrays, "header"))
        line = self.clean.split(b"\n")[1]
        if what == "header":
            line, what = text_of(random, json.loads(line))
        else:
            arrays[what][random.randrange(6)] = random.choice(_EXTREMES)
        line = line.replace(b"\n", b" ")
        start = b"attfc subset 1\n" + line + b" " * (-(len(line) + 16) % 64) + b"\n"
        header = self.file.header
        types = f"<i{header.position_bytes}", f"<i{header.label_bytes}"
        content = start + b"".join(array.astype(kind).tobytes() for array, kind in zip(arrays.values(), types, strict=True))
        return content + hashlib.blake2b(content, digest_size=16).digest(), f"{what}, right checksum"

    def judge(self, taken: Any) -> Kind:
        """Override `Format`."""
        items, _ = taken
        if not self.is_forged:
            return judge_tensors(self.taken, items)
        images = {image for _, image in self.items}
        if any(image not in images for _, image in items):
            raise Silent("an image that the source has not")
        return "other"


class DamagedKeptIndices(Format):
    """What is kept of a scan: damaged, it counts as missing."""

    name = "kept index"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        data = folder / "data.bin"
        data.write_bytes(bytes(4096))
        self.indexed = Indexed([data], folder, "tar-1", "faces")
        self.arrays: Arrays = {"offsets": np.arange(40, dtype=np.int64) * 512, "labels": np.arange(40, dtype=np.int32) // 3}
        kept_or_made(self.indexed, lambda _: self.arrays, DataReport())
        (self.path,) = folder.glob(".data.bin*")
        self.clean = self.path.read_bytes()
        self.is_made = False

    def attack(self, random: Random) -> str:
        """Override `Format`."""
        content, what = mutated(random, self.clean)
        self.path.unlink()
        self.path.write_bytes(content)
        return what

    def use(self) -> Arrays | None:
        """Return what is kept; None: it is made again."""
        made = []

        def make(_report: DataReport) -> Arrays:
            made.append(True)
            return self.arrays

        arrays = kept_or_made(self.indexed, make, DataReport())
        return None if made else dict(arrays)

    def judge(self, taken: Any) -> Kind:
        """Override `Format`."""
        return judge_missing(self.arrays, taken, same_bits)
