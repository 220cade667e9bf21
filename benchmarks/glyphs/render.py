"""One character in one face as an image: a function of the two, and of nothing else."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any, Final, Literal

import numpy as np
import simplejpeg
from numpy.random import PCG64, Generator
from numpy.typing import NDArray
from PIL import Image, ImageFilter, ImageFont

from benchmarks.glyphs.fonts import Face

Polarity = Literal["dark", "mixed"]
"""Strokes darker than the ground, or half of the images the other way round."""

SIZE: Final = 32
"""Pixels a side."""
QUALITY: Final = 92
REVISION: Final = 1
"""Raised when pixels change, so that sets already built are built again."""

_FINE: Final = 2
"""Glyphs are drawn, turned and sheared at twice the size; averaging 2 x 2 pixels keeps thin strokes."""
_EM: Final = 25 * _FINE
"""Height of the drawn character's box: enlarged and turned as far as they go, most glyphs stay inside the image."""

Pixels = NDArray[np.uint8]


@cache
def _font(face: Face) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(face.path, _EM, index=face.index, layout_engine=ImageFont.Layout.BASIC)


def bitmap(face: Face, character: int) -> Image.Image | None:
    """Return the drawn character cut to its ink, 8 bits a pixel, or None where the face draws nothing."""
    try:
        mask = _font(face).getmask(chr(character), mode="L")
    except OSError:  # a fault in the font, such as an invalid opcode in the program that fits its outlines to pixels
        return None
    if not all(mask.size):
        return None
    image = Image.frombytes("L", mask.size, bytes(mask))
    ink = image.getbbox()
    return None if ink is None else image.crop(ink)


def bitmap_hash(image: Image.Image) -> int:
    """Return 63 bits that two different bitmaps do not share in practice."""
    content = image.width.to_bytes(2, "little") + image.tobytes()
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little") >> 1


def seed(face: Face, character: int) -> int:
    """Return 64 bits of the face's file name, its index and the character."""
    content = f"{face.key} {character:X}".encode()
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")


def rendered(face: Face, character: int, polarity: Polarity = "dark") -> Pixels:
    """Return the image of a character in a face that draws it, uint8 [SIZE, SIZE]."""
    drawn = bitmap(face, character)
    assert drawn is not None, "the survey left out what is not drawn"
    random = Generator(PCG64(seed(face, character)))
    ink = _placed(drawn, random).reduce(_FINE)
    if random.random() < 0.3:
        ink = ink.filter(ImageFilter.GaussianBlur(random.uniform(0.4, 1.0)))
    pixels = _lit(np.asarray(ink, dtype=np.float32) / 255, random)
    if random.random() < 0.5 and polarity == "mixed":
        pixels = 255 - pixels
    levels: Pixels = np.rint(pixels).clip(0, 255).astype(np.uint8)
    return levels


def encoded(face: Face, character: int, polarity: Polarity = "dark") -> bytes:
    """Return `rendered` as a JPEG file of one channel, which decoders turn into RGB."""
    pixels = rendered(face, character, polarity)[:, :, None]
    return bytes(simplejpeg.encode_jpeg(pixels, quality=QUALITY, colorspace="GRAY", colorsubsampling="Gray"))


def encoded_all(characters: Iterable[tuple[int, Sequence[Face]]], polarity: Polarity) -> list[bytes]:
    """Return `encoded` of each of these characters in each of its faces, in order."""
    return [encoded(face, character, polarity) for character, faces in characters for face in faces]


def _placed(drawn: Image.Image, random: Generator) -> Image.Image:
    """Return the glyph scaled, sheared and turned about its middle, in the middle of an image."""
    scale = random.uniform(0.9, 1.15) * min(1.0, _EM / max(drawn.size))
    angle = math.radians(random.uniform(-9, 9))
    shear = random.uniform(-0.12, 0.12)
    cos = math.cos(angle)
    sin = math.sin(angle)
    # A point p of the glyph goes to q = scale * R * S * p, turn R = [cos -sin; sin cos] shear S = [1 shear; 0 1].
    # Pillow asks for the way back: p = S^-1 * R^-1 * q / scale, where S^-1 = [1 -shear; 0 1] and R^-1 = [cos sin; -sin cos].
    back = np.array([[1, -shear], [0, 1]]) @ np.array([[cos, sin], [-sin, cos]]) / scale
    padded = drawn.crop((-1, -1, drawn.width + 1, drawn.height + 1))  # beyond an edge Pillow does not interpolate
    middle = np.array([padded.width, padded.height]) / 2
    side = SIZE * _FINE
    offset = middle - back @ np.array([side / 2, side / 2])
    coefficients = (*back[0], offset[0], *back[1], offset[1])
    return padded.transform((side, side), Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR)


_ACROSS: Final = np.linspace(-1, 1, SIZE, dtype=np.float32)


def _lit(ink: NDArray[np.floating[Any]], random: Generator) -> NDArray[np.floating[Any]]:
    """Return grey levels of dark strokes on a light ground, under a light that falls from one side, with noise.

    Args:
        ink: float32 [SIZE, SIZE], 1 where a stroke is.
    """
    ground = random.uniform(150, 240)
    stroke = random.uniform(10, 80)
    direction = random.uniform(0, 2 * math.pi)
    strength = random.uniform(0, 25)
    light = strength * (math.cos(direction) * _ACROSS + math.sin(direction) * _ACROSS[:, None])
    noise = random.standard_normal((SIZE, SIZE), dtype=np.float32) * random.uniform(0, 10)
    return ground - (ground - stroke) * ink + light + noise
