"""RecordIO: damaged records and damaged indexes of the layouts that are in use."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, Final

import numpy as np
from PIL import Image

from attfc_train import cli as trainer
from attfc_train.data.formats.procedural_face import render_face
from attfc_train.data.formats.record_frames import framed, image_header
from attfc_train.data.formats.recordio_writer import write_recordio
from attfc_train.data.reader import ImageReader
from attfc_train.data.source import open_dataset
from benchmarks.attack.formats.base import Format
from benchmarks.attack.mutations import Field, mutated
from benchmarks.attack.oracle import Item, judge_images
from benchmarks.attack.outcome import Kind

SIDE: Final = 32
_IDS: Final = 4
_EACH: Final = 3
Taken = tuple[list[Item], list[str]]


def face(identity: int, image: int, kind: str = "JPEG") -> bytes:
    """Return the file bytes of a small picture."""
    file = io.BytesIO()
    Image.fromarray(render_face(identity, image, SIDE)).save(file, kind, **({"quality": 90} if kind == "JPEG" else {}))
    return file.getvalue()


class Layout:
    """A clean file of records and its index."""

    def __init__(self, folder: Path, labels: list[int], write: Callable[[Path, list[int], list[bytes]], None]) -> None:
        path = folder / "train.rec"
        folder.mkdir(parents=True, exist_ok=True)
        images = [face(label, place % _EACH) for place, label in enumerate(labels)]
        write(path, labels, images)
        self.rec = path.read_bytes()
        self.idx = path.with_suffix(".idx").read_bytes()
        offsets = [int(line.split(b"\t")[1]) for line in self.idx.splitlines()]
        self.fields = [field for offset in offsets for field in _fields(offset)]
        self.items: list[Item] = list(zip(labels, images, strict=True))
        ends = sorted([*offsets, len(self.rec)])
        starts = sorted(offsets)
        records = [self.rec[start:end] for start, end in zip(starts, ends[1:], strict=True)]
        self.frames = [next(record for record in records if image in record) for image in images]


def _fields(offset: int) -> list[Field]:
    """Return the numbers of a record: magic, kind and length, flag, label, two numbers, the first words behind."""
    words = [Field(offset + 4 * place, 4) for place in (0, 1, 1, 1, 2, 2, 4, 5, 6, 8)]
    return [*words, Field(offset + 12, 4, "float"), Field(offset + 32, 4, "float"), Field(offset + 36, 4, "float")]


def _insightface(path: Path, labels: list[int], images: list[bytes]) -> None:
    write_recordio(path, labels, images)


def _im2rec(path: Path, labels: list[int], images: list[bytes]) -> None:
    """Write what MXNet's im2rec does: one label each, keys from 0."""
    _write(
        path, [image_header(float(label), key) + image for key, (label, image) in enumerate(zip(labels, images, strict=True))]
    )


def _several(path: Path, labels: list[int], images: list[bytes]) -> None:
    """Write records with two labels each, the identity first."""
    pairs = enumerate(zip(labels, images, strict=True))
    _write(path, [image_header((float(label), float(key % 2)), key) + image for key, (label, image) in pairs])


def _write(path: Path, payloads: list[bytes]) -> None:
    lines = []
    with path.open("wb") as file:
        for key, payload in enumerate(payloads):
            lines.append(f"{key}\t{file.tell()}\n")
            file.write(framed(payload))
    path.with_suffix(".idx").write_text("".join(lines))


class _Records(Format):
    """Records and index, one of which is damaged."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        grouped = [identity for identity in range(_IDS) for _ in range(_EACH)]
        layouts = (_insightface, _insightface, _im2rec, _several)
        self.layouts = [Layout(folder / f"clean{place}", grouped, write) for place, write in enumerate(layouts)]
        self.layout = self.layouts[0]
        self.rec = folder / "train.rec"
        self.idx = folder / "train.idx"
        self.content = b""

    def put(self, rec: bytes, idx: bytes | None) -> None:
        """Write the files of a case."""
        self.content = rec
        self.rec.write_bytes(rec)
        self.idx.unlink(missing_ok=True)
        if idx is not None:
            self.idx.write_bytes(idx)

    def use(self) -> Taken:
        """Open the data set and read every image of it."""
        return read_all(str(self.folder))

    def judge(self, taken: Any) -> Kind:
        """Override `Format`."""
        items, said = taken
        return judge_images(self.layout.items, self.layout.frames, self.content, items, bool(said))

    def command(self) -> tuple[Callable[[], None], list[str]]:
        """Make the index anew, which reads all records."""
        return trainer.main, ["attfc-train", "data", "make-index", str(self.folder)]


class DamagedRecords(_Records):
    """A ``.rec`` file with damage, with its index, or without one."""

    name = "records"

    def attack(self, random: Random) -> str:
        """Override `Format`."""
        self.layout = random.choice(self.layouts)
        rec, what = mutated(random, self.layout.rec, self.layout.fields)
        with_index = random.random() < 0.7
        self.put(rec, self.layout.idx if with_index else None)
        return what + ("" if with_index else ", no index")


class DamagedIndex(_Records):
    """An ``.idx`` file with damage beside good records."""

    name = "index"

    def attack(self, random: Random) -> str:
        """Override `Format`."""
        self.layout = random.choice(self.layouts)
        if random.random() < 0.5:
            idx, what = mutated(random, self.layout.idx)
        else:
            idx, what = _other_lines(random, self.layout.idx)
        self.put(self.layout.rec, idx)
        return what


def _other_lines(random: Random, idx: bytes) -> tuple[bytes, str]:
    """Return an index whose lines say something else."""
    rows = [tuple(map(int, line.split())) for line in idx.splitlines()]
    lines = [list(row) for row in rows]
    what = random.choice(("key", "offset", "swap", "twice", "gone", "order", "offsets of others", "floats", "shard"))
    line = random.choice(lines)
    huge = random.choice((0, 1, 4, -1, -4, 2**31, 2**53, 2**63 - 1, 2**63, 2**64, 10**30, lines[-1][0] + 1))
    if what == "key":
        line[0] = huge
    elif what == "offset":
        line[1] = random.choice((huge, line[1] + 4, line[1] - 4, line[1] + 1))
    elif what == "swap":
        other = random.choice(lines)
        line[1], other[1] = other[1], line[1]
    elif what == "twice":
        lines.insert(random.randrange(len(lines)), [random.choice(lines)[0], random.choice(lines)[1]])
    elif what == "gone":
        lines.remove(line)
    elif what == "order":
        random.shuffle(lines)
    elif what == "offsets of others":
        line[1] = random.choice(lines)[1]
    elif what == "shard":
        lines = [[key % max(1, len(lines) // 2), offset] for key, offset in lines]
    text = "".join(f"{key}\t{offset}\n" for key, offset in lines)
    return (text.replace("\n", ".0\n") if what == "floats" else text).encode(), what


def read_all(spec: str) -> Taken:
    """Return every image of a data set with its label as the training reads them, and what was said."""
    dataset = open_dataset(spec)
    index = dataset.index
    reader = ImageReader(dataset, SIDE, 0)
    positions = np.arange(index.num_images)
    replaced = reader.fill(positions, np.empty((index.num_images, 3, SIDE, SIDE), np.uint8))
    original = np.asarray(index.original_labels)[np.asarray(index.labels)]
    lost = set(replaced)
    kept = [int(position) for position in positions if int(position) not in lost]
    items = [(int(original[position]), bytes(dataset.encoded(position))) for position in kept]
    said = [*index.report.messages(), *map(str, reader.notes.remarks), *(f"replaced: {reader.reason(place)}" for place in lost)]
    return items, said


def small_profile() -> dict[str, Any]:
    """Return a profile whose run takes a second."""
    return {
        "schema_version": 1,
        "name": "small",
        "data": {"path": "synthetic:8x3", "num_workers": 1},
        "model": {"backbone": "tiny", "image_size": SIDE, "embedding_size": 16},
        "head": {"kind": "attfc", "chunk_slots": 16},
        "optim": {"batch_size": 4},
        "run": {
            "steps": 4,
            "precision": "fp32",
            "log_every": 1,
            "save_every": 2,
            "eval_every": 3,
            "val": ["synthetic:6x3+500"],
        },
    }
