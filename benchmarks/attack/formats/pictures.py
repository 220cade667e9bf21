"""Image files of the four formats, damaged, and folders of them with everything that a file system can hold."""

from __future__ import annotations

import contextlib
import io
import os
import struct
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from typing import Any, Final

import numpy as np
from PIL import Image

from attfc_train.data.decode import decode
from benchmarks.attack.formats.base import Format
from benchmarks.attack.formats.records import SIDE, face, read_all
from benchmarks.attack.mutations import Field, mutated
from benchmarks.attack.outcome import Kind, Silent

_MODES: Final = (("PNG", "I;16"), ("PNG", "P"), ("PNG", "LA"), ("PNG", "1"), ("JPEG", "CMYK"), ("JPEG", "L"), ("BMP", "L"))


class DamagedImages(Format):
    """The bytes of one image."""

    name = "images"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        plain = [face(1, 1, kind) for kind in ("JPEG", "JPEG", "PNG", "WEBP", "BMP")]
        grey = Image.fromarray(np.arange(SIDE * SIDE, dtype=np.uint16).reshape(SIDE, SIDE) * 64)
        other = [_saved(grey if mode == "I;16" else Image.new(mode, (SIDE, SIDE)), kind) for kind, mode in _MODES]
        self.clean = [*plain, *other, _saved(Image.new("RGB", (64, 48)), "JPEG", progressive=True)]
        self.content = b""
        self.bombs = {"tiny": zlib.compress(bytes(10**6), 9), "data": zlib.compress(bytes(10**8), 1)}

    def attack(self, random: Random) -> str:
        """Override `Format`."""
        content = random.choice(self.clean)
        if random.random() < 0.1:
            self.content, what = random.choice(_BOMBS)(random, self.bombs)
            return what
        self.content, what = mutated(random, content, _fields(content))
        if self.content[:4] == b"\x89PNG" and random.random() < 0.7:
            self.content = _with_checksums(self.content)
            what += ", right checksums"
        return what

    def use(self) -> Any:
        """Override `Format`."""
        return decode(self.content, SIDE)

    def judge(self, taken: Any) -> Kind:
        """Override `Format`."""
        if taken.dtype != np.uint8 or taken.shape != (SIDE, SIDE, 3):
            raise Silent(f"{taken.dtype} {taken.shape}")
        return "other"


def _saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def _fields(content: bytes) -> list[Field]:
    """Return the places of sizes and depths."""
    if content[:4] == b"\x89PNG":
        return [Field(place, size) for place, size in ((16, 4), (20, 4), (24, 1), (25, 1), (8, 4))]
    if content[:2] == b"BM":
        return [Field(place, size) for place, size in ((2, 4), (10, 4), (14, 4), (18, 4), (22, 4), (28, 2), (30, 4), (46, 4))]
    if content[:4] == b"RIFF":
        return [Field(place, size) for place, size in ((4, 4), (16, 4), (20, 4), (26, 2), (28, 2))]
    frame = next((place for mark in (b"\xff\xc0", b"\xff\xc2") if (place := content.find(mark)) > 0), 2)
    return [Field(frame + place, size) for place, size in ((2, 2), (4, 1), (5, 2), (7, 2), (9, 1), (11, 1))]


def _with_checksums(content: bytes) -> bytes:
    """Return a PNG with the checksums of its chunks as they are now."""
    result = bytearray(content[:8])
    place = 8
    while place + 12 <= len(content):
        length = int.from_bytes(content[place : place + 4], "big")
        body = content[place + 4 : place + 8 + length]
        result += content[place : place + 4] + body + struct.pack(">I", zlib.crc32(body))
        place += 12 + length
    return bytes(result)


def _png(width: int, height: int, data: bytes, depth: int = 8, colour: int = 2) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", data), (b"IEND", b""))
    parts = [struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def _wide_png(random: Random, packed: Mapping[str, bytes]) -> tuple[bytes, str]:
    side = random.choice((4096, 4097, 65535, 2**31 - 1))
    return _png(side, random.choice((1, 4096, side)), packed["tiny"]), f"PNG of side {side}"


def _bomb_png(_random: Random, packed: Mapping[str, bytes]) -> tuple[bytes, str]:
    return _png(SIDE, SIDE, packed["data"]), "PNG whose data unpack to 100 MB"


def _text_png(_random: Random, packed: Mapping[str, bytes]) -> tuple[bytes, str]:
    body = b"note\x00\x00" + packed["data"]
    chunk = struct.pack(">I", len(body)) + b"zTXt" + body + struct.pack(">I", zlib.crc32(b"zTXt" + body))
    whole = face(1, 1, "PNG")
    return whole[:33] + chunk + whole[33:], "PNG with a text of 100 MB"


def _scans(random: Random, _packed: Mapping[str, bytes]) -> tuple[bytes, str]:
    """Repeat the last scan of a progressive JPEG."""
    whole = _saved(Image.new("RGB", (random.choice((64, 1024)),) * 2), "JPEG", progressive=True)
    start = whole.rfind(b"\xff\xda")
    times = random.choice((50, 99, 101, 3000, 20_000))
    return whole[:start] + whole[start:-2] * times + whole[-2:], f"JPEG of {times} scans"


def _tags(_random: Random, _packed: Mapping[str, bytes]) -> tuple[bytes, str]:
    whole = face(1, 1)
    return whole[:2] + (b"\xff\xe1\xff\xff" + bytes(65533)) * 200 + whole[2:], "JPEG with 13 MB of tags"


_Bomb = Callable[[Random, Mapping[str, bytes]], tuple[bytes, str]]
_BOMBS: Final[tuple[_Bomb, ...]] = (_wide_png, _bomb_png, _text_png, _scans, _tags)
_NAMES: Final = (
    b"\xff\xfe.jpg",
    b"\x1b[2J.jpg",
    b"new\nline.jpg",
    b".hidden.jpg",
    b"._0.jpg",
    b"a" * 200 + b".jpg",
    b"UPPER.JPG",
    b"picture.jfif",
    b"picture.HEIC",
    b"picture",
    b"Thumbs.db",
    b"notes.txt",
    b"e\xcc\x81.png",
)


class OddFolders(Format):
    """A folder per identity with odd entries beside good images."""

    name = "folder"
    every = 10**9

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.images = [face(identity, image) for identity in range(4) for image in range(3)]
        self.top = folder / "faces"
        self.expected: set[bytes] = set()

    def attack(self, random: Random) -> str:
        """Override `Format`."""
        with contextlib.suppress(FileNotFoundError):
            _remove(self.top)
        self.top.mkdir()
        self.expected = set()
        for place, image in enumerate(random.sample(self.images, random.choice((2, 6, 12)))):
            person = self.top / f"person{place % random.choice((2, 3))}"
            person.mkdir(exist_ok=True)
            (person / f"{place}.jpg").write_bytes(image)
            self.expected.add(image)
        done = [random.choice(_ODDITIES)(random, self) for _ in range(random.choice((1, 2, 4)))]
        return ", ".join(done)

    def put(self, path: bytes, image: bytes) -> None:
        """Write an image that must be read or counted."""
        with contextlib.suppress(FileExistsError, NotADirectoryError):
            os.makedirs(os.path.dirname(path), exist_ok=True)
        with contextlib.suppress(OSError), open(path, "wb") as file:
            file.write(image)
            self.expected.add(image)

    def use(self) -> Any:
        """Override `Format`."""
        return read_all(str(self.top))

    def judge(self, taken: Any) -> Kind:
        """Override `Format`."""
        items, said = taken
        images = {image for _, image in items}
        missing = self.expected - images
        if missing and not said:
            raise Silent(f"{len(missing)} images were passed over without a word")
        return "said" if said else "same"


def _remove(top: Path) -> None:
    for entry in os.scandir(os.fsencode(top)):
        if entry.is_dir(follow_symlinks=False):
            _remove(Path(os.fsdecode(entry.path)))
        else:
            os.unlink(entry.path)
    os.rmdir(top)


def _person(random: Random, subject: OddFolders) -> bytes:
    return os.fsencode(subject.top) + b"/" + random.choice((b"person0", b"person1", b"\xff\xfe", b"a\nb", b"\x1b[31m", b".git"))


def _odd_name(random: Random, subject: OddFolders) -> str:
    name = random.choice(_NAMES)
    subject.put(_person(random, subject) + b"/" + name, random.choice(subject.images))
    return f"name {ascii(name)[:40]}"


def _damaged_image(random: Random, subject: OddFolders) -> str:
    content, what = mutated(random, random.choice(subject.images))
    with contextlib.suppress(OSError):
        (subject.top / "person0" / "damaged.jpg").write_bytes(content)
    return f"image with {what}"


def _deeper(random: Random, subject: OddFolders) -> str:
    subject.put(_person(random, subject) + b"/" + random.choice((b"a/b/c", b"d/" * 30 + b"e")) + b"/x.jpg", subject.images[0])
    return "deeper"


def _flat(_random: Random, subject: OddFolders) -> str:
    subject.put(os.fsencode(subject.top) + b"/flat.jpg", subject.images[1])
    return "flat"


def _special(random: Random, subject: OddFolders) -> str:
    what = random.choice(("fifo", "loop", "dangling", "link out", "folder named .jpg", "no rights", "empty", "sparse"))
    folder = subject.top / "person0"
    folder.mkdir(exist_ok=True)
    path = folder / f"odd{random.randrange(1000)}.jpg"  # another than before: a write to a pipe would wait
    with contextlib.suppress(OSError):
        if what == "fifo":
            os.mkfifo(path)
        elif what == "loop":
            (folder / "loop").symlink_to("..")
        elif what == "dangling":
            path.symlink_to("nowhere")
        elif what == "link out":
            (subject.top / "linked").symlink_to(folder)
        elif what == "folder named .jpg":
            path.mkdir()
        elif what == "no rights":
            path.write_bytes(subject.images[0])
            path.chmod(0)
        elif what == "empty":
            (subject.top / "nobody").mkdir()
        elif what == "sparse":
            path.write_bytes(subject.images[2])
            os.truncate(path, 2**33)
    return what


_ODDITIES: Final[tuple[Callable[[Random, OddFolders], str], ...]] = (_odd_name, _damaged_image, _deeper, _flat, _special)
