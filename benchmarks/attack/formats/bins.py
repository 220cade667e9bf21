"""Verification files: pickles with damage, and pickles that are programs."""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, Final

import numpy as np

from attfc_train import cli as trainer
from attfc_train.evaluate.load import load_verification
from benchmarks.attack.formats.base import Format
from benchmarks.attack.formats.records import SIDE, face
from benchmarks.attack.mutations import mutated
from benchmarks.attack.outcome import Kind, Outcome, Silent

_PAIRS: Final = 12


class DamagedBins(Format):
    """A ``.bin`` file.

    Args:
        run: folder of a finished run, whose model is evaluated on some of the files.
    """

    name = "bin"

    def __init__(self, folder: Path, run: Path | None = None) -> None:
        super().__init__(folder)
        self.run = run
        self.path = folder / "pairs.bin"
        self.canary = folder / "code-has-run"
        self.images = [face(place // 2 + (place % 4 == 1), place % 5) for place in range(2 * _PAIRS)]
        self.same = [pair % 2 == 1 for pair in range(_PAIRS)]
        self.clean = [pickle.dumps(document, protocol) for protocol in (2, 3, 4, 5) for document in self._documents()]
        self.content = b""
        self.is_other = False
        """Whether the file says itself that it holds other pairs."""

    def _documents(self) -> list[Any]:
        """Return the forms in which such files are found."""
        arrays = [np.frombuffer(image, np.uint8)[:, None] for image in self.images]
        flat = np.empty(len(self.images), object)
        flat[:] = self.images
        return [
            (self.images, self.same),
            [self.images, [int(same) for same in self.same]],
            (arrays, self.same),
            (self.images, np.array(self.same)),
            (flat, np.array(self.same, np.int64)),
        ]

    def attack(self, random: Random) -> str:
        """Override `Format`."""
        if random.random() < 0.25:
            self.is_other = True
            self.content, what = random.choice(_PROGRAMS)(random, self)
        else:
            self.is_other = False
            self.content, what = mutated(random, random.choice(self.clean))
        self.path.write_bytes(self.content)
        if random.random() < 0.002:
            with self.path.open("r+b") as file:
                file.truncate(random.choice((2**33, 2**40)))  # beyond what is read at all
            what += ", sparse"
        return what

    def use(self) -> Any:
        """Override `Format`."""
        return load_verification(str(self.path), SIDE)

    def judge(self, taken: Any) -> Kind:
        """Override `Format`."""
        if self.is_other:
            return "other"
        if taken.num_pairs != _PAIRS:
            raise Silent(f"{taken.num_pairs} pairs of {_PAIRS}")
        place_of = {image: place for place, image in reversed(list(enumerate(self.images)))}
        rows = [taken.encoded[place] for place in taken.pairs.ravel()]
        moved = [row for row, image in enumerate(rows) if image in place_of and image != self.images[row]]
        changed = any(image not in place_of for image in rows)
        if moved and not taken.report.messages():
            raise Silent(f"row {moved[0]} holds the image of another row")
        return "other" if changed or taken.same.tolist() != self.same else "same"

    def after(self) -> Outcome | None:
        """Override `Format`."""
        if not self.canary.exists():
            return None
        self.canary.unlink()
        return Outcome("silent", "code of the file has run")

    def command(self) -> tuple[Callable[[], None], list[str]] | None:
        """Override `Format`."""
        if self.run is None:
            return None
        return trainer.main, ["attfc-train", "evaluate", str(self.run), "--val", str(self.path), "--device", "cpu"]


class _Call:
    """An object whose pickle calls a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function = function
        self.arguments = arguments

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.function, self.arguments


def _touching(random: Random, subject: DamagedBins) -> tuple[bytes, str]:
    """Put a call in the place of an image, a label, or around everything."""
    import os
    import subprocess

    code = f"open({str(subject.canary)!r}, 'w').close()"
    call = random.choice(
        (
            _Call(os.system, f"touch {subject.canary}"),
            _Call(exec, code),
            _Call(eval, code),
            _Call(subprocess.call, ["touch", str(subject.canary)]),
            _Call(open, str(subject.canary), "w"),
            _Call(__import__, "os"),
            _Call(np.fromfile, "/dev/zero"),
            _Call(bytes, 2**40),
            _Call(bytearray, 2**40),
            _Call(np.zeros, 2**40),
        )
    )
    images: list[Any] = [*subject.images]
    same: list[Any] = [*subject.same]
    random.choice((images, same))[random.randrange(_PAIRS)] = call
    return pickle.dumps(random.choice(((images, same), call, [images, call])), random.choice((0, 2, 4))), "a call"


def _dotted(random: Random, subject: DamagedBins) -> tuple[bytes, str]:
    """Name something through what may be named: attributes of NumPy's modules."""
    names = random.choice(
        ((b"numpy", b"core.multiarray.os.system"), (b"numpy.core.multiarray", b"os.system"), (b"os", b"system"))
    )
    body = b"".join(b"\x8c" + struct.pack("<B", len(name)) + name for name in names)
    text = f"touch {subject.canary}".encode()
    call = body + b"\x93" + b"\x8c" + struct.pack("<B", len(text)) + text + b"\x85R"
    return b"\x80\x04" + b"](" + call * 24 + b"e](" + b"\x88" * 12 + b"e\x86.", "a dotted name"


def _deep(random: Random, _subject: DamagedBins) -> tuple[bytes, str]:
    depth = random.choice((10**3, 10**3, 10**4, 10**5))
    opcode = random.choice((b"]", b"(", b"\x85", b")\x85"))
    return b"\x80\x04" + opcode * depth + random.choice((b"a" * depth, b"l" * depth, b"")) + b".", f"{depth} deep"


def _lengths(random: Random, _subject: DamagedBins) -> tuple[bytes, str]:
    """Claim lengths and places that are not there."""
    huge = random.choice((2**31 - 1, 2**31, 2**32 - 1))
    opcode = random.choice((b"B", b"X", b"T", b"r", b"j", b"\x8b"))
    return b"\x80\x04" + opcode + struct.pack("<I", huge) + b"x" * 100 + b".", f"length {huge} of {opcode!r}"


def _array(random: Random, subject: DamagedBins) -> tuple[bytes, str]:
    """Claim another shape, type or state of an array."""
    whole = pickle.dumps(([np.frombuffer(image, np.uint8) for image in subject.images], subject.same), 2)
    old, new = random.choice(
        (
            (b"u1", b"O8"),
            (b"u1", b"V9"),
            (b"u1", b"f8"),
            (b"u1", b"M8"),
            (b"K\x01\x85", b"J\xff\xff\xff\xff\x85"),
            (b"b\x01", b"h\x00"),
        )
    )
    return whole.replace(old, new, random.choice((1, 100))), f"{old!r} as {new!r}"


def _laughs(random: Random, _subject: DamagedBins) -> tuple[bytes, str]:
    """Repeat a list of itself: small in the file, endless in the memory if it is copied out."""
    levels = random.choice((8, 20))
    body = (
        b"]q\x00("
        + b"C\x02ab" * 10
        + b"e"
        + b"".join(
            b"]q" + bytes([level]) + b"(" + b"h" + bytes([level - 1]) + (b"h" + bytes([level - 1])) * 9 + b"e"
            for level in range(1, levels)
        )
    )
    return b"\x80\x04" + body + b"](" + b"\x88" * 12 + b"e\x86.", f"{levels} levels of repeated lists"


def _same_memory(random: Random, subject: DamagedBins) -> tuple[bytes, str]:
    """Let many images be one memory: twice as many as the file may have."""
    number = random.choice((24, 10**5, 2 * 10**5 + 2))
    one = subject.images[0]
    body = b"B" + struct.pack("<I", len(one)) + one + b"q\x00"
    return b"\x80\x03](" + body + b"h\x00" * (number - 1) + b"e](" + b"\x88\x89" * (
        number // 4
    ) + b"e\x86.", f"one image {number} times"


_PROGRAMS: Final[tuple[Callable[[Random, DamagedBins], tuple[bytes, str]], ...]] = (
    _touching,
    _touching,
    _dotted,
    _deep,
    _lengths,
    _array,
    _laughs,
    _same_memory,
)
