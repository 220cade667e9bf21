"""Computed faces: an identity is some thirty shape and colour numbers; pose, light and obstacles change per image.

The pixels of two images of an identity differ as much as those of two identities do, because background, light, pose and
occlusion change, while the proportions of the face and its colours relative to each other stay.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from attfc_train.data.formats.canvas import Canvas, Colour, Plane, Pose, limited
from attfc_train.data.sampling.hashing import hashed, uniform

_FACE, _IMAGE, _NOISE = range(11, 14)
"""First words of the hashes: what is drawn."""
_NUM_DRAWS: Final = 40
"""Random numbers of an identity, and of an image."""
_BANK_SIDE: Final = 640
"""Pixels of a side of the field that noise is cut from."""

_SKINS: Final = np.array([[0.97, 0.84, 0.76], [0.90, 0.70, 0.55], [0.70, 0.48, 0.33], [0.40, 0.26, 0.19]], dtype=np.float32)
_HAIRS: Final = np.array([[0.07, 0.06, 0.06], [0.32, 0.18, 0.09], [0.62, 0.26, 0.10], [0.88, 0.74, 0.42], [0.75, 0.75, 0.76]])
_IRISES: Final = np.array([[0.18, 0.10, 0.05], [0.42, 0.27, 0.10], [0.25, 0.48, 0.25], [0.25, 0.48, 0.75], [0.50, 0.55, 0.60]])
_LIPS: Final = np.array([[0.85, 0.50, 0.48], [0.72, 0.18, 0.22], [0.48, 0.20, 0.22], [0.80, 0.42, 0.60]])


@dataclass(frozen=True, slots=True)
class Traits:
    """An identity's numbers. Lengths are in units in which the picture runs from -1 to 1, angles in radians."""

    face_width: float
    face_height: float
    jaw: float
    skin: Colour
    hair: Colour
    hair_volume: float
    hair_length: float
    hairline: float
    parting: float
    eye_distance: float
    eye_height: float
    eye_size: float
    eye_openness: float
    eye_tilt: float
    iris: Colour
    brow_gap: float
    brow_thickness: float
    brow_tilt: float
    nose_length: float
    nose_width: float
    mouth_height: float
    mouth_width: float
    lip_fullness: float
    lip: Colour
    beard: float
    ears: float
    mole: tuple[float, float]
    cheeks: float


@functools.lru_cache(maxsize=1024)
def traits_of(identity: int) -> Traits:
    """Return the traits of the identity with this number, any int from 0.

    Draw k of identity i is the uniform number of hash(FACE, i, k). Traits take the draws one after another, so their order here
    is part of what an identity looks like, and both branches of a choice take as many draws.
    """
    draw = iter(uniform(hashed(_FACE, identity, np.arange(_NUM_DRAWS))).tolist())

    def between(low: float, high: float) -> float:
        return low + (high - low) * float(next(draw))

    def either(chance: float, low: float, high: float) -> float:
        return between(low, high) if next(draw) < chance else 0.0 * next(draw)

    return Traits(
        face_width=between(0.50, 0.70),
        face_height=between(0.68, 0.90),
        jaw=between(-0.05, 0.45),
        skin=_along(_SKINS, next(draw)) * np.array([1, between(0.94, 1.05), between(0.86, 1.08)], dtype=np.float32),
        hair=_along(_HAIRS, next(draw)),
        hair_volume=between(0.03, 0.24),
        hair_length=between(-0.3, 1.1),
        hairline=between(-0.75, -0.38),
        parting=between(-0.5, 0.5),
        eye_distance=between(0.21, 0.35),
        eye_height=between(-0.24, 0.02),
        eye_size=between(0.085, 0.15),
        eye_openness=between(0.38, 0.80),
        eye_tilt=between(-0.30, 0.30),
        iris=_along(_IRISES, next(draw)),
        brow_gap=between(0.07, 0.19),
        brow_thickness=between(0.016, 0.060),
        brow_tilt=between(-0.28, 0.28),
        nose_length=between(0.20, 0.42),
        nose_width=between(0.06, 0.17),
        mouth_height=between(0.14, 0.27),
        mouth_width=between(0.13, 0.30),
        lip_fullness=between(0.030, 0.095),
        lip=_along(_LIPS, next(draw)),
        beard=either(0.3, 0.35, 0.85),
        ears=between(0.05, 0.17),
        mole=(between(-0.40, 0.40), between(0.05, 0.45)),
        cheeks=between(0, 0.35),
    )


def render_face(identity: int, image: int, size: int) -> NDArray[np.uint8]:
    """Return one image of an identity, uint8 [size, size, 3], RGB; it depends on the three numbers only."""
    traits = traits_of(identity)
    # Each part of the picture has its own draws, so a change of one leaves the others as they are.
    chance: list[float] = uniform(hashed(_IMAGE, identity, image, np.arange(_NUM_DRAWS))).tolist()
    signed = [2 * number - 1 for number in chance]
    yaw = signed[5]
    pose = Pose(0.22 * signed[0], 1.0 + 0.10 * signed[1], 0.10 * signed[2], 0.10 * signed[3], 0.12 * signed[4])
    canvas = Canvas(size, pose, _colour(chance[6:9]))
    _paint_background(canvas, chance[9:17])
    _paint_head(canvas, traits)
    _paint_eyes(canvas, traits, yaw, chance[17])
    _paint_nose_and_mouth(canvas, traits, yaw, chance[18], signed[19])
    _occlude(canvas, chance[20:30])
    return _lit(canvas, chance[30:40])


def _along(palette: NDArray[np.floating], place: float) -> Colour:
    """Return the colour at `place` in [0, 1] along a palette of [n, 3]."""
    # With t = place (n - 1) and k = floor(t), at most n - 2: palette[k] + (palette[k + 1] - palette[k]) (t - k).
    steps = place * (len(palette) - 1)
    low = min(int(steps), len(palette) - 2)
    return np.asarray(palette[low] + (palette[low + 1] - palette[low]) * (steps - low), dtype=np.float32)


def _colour(channels: list[float]) -> Colour:
    """Return three numbers as a colour."""
    return np.array(channels, dtype=np.float32)


def _paint_background(canvas: Canvas, chance: list[float]) -> None:
    """Paint two large spots of other colours."""
    colour = _colour(chance[:3])
    canvas.ellipse((1.6 * chance[3] - 0.8, -0.9), (0.7, 0.5), colour, chance[4])
    canvas.ellipse((1.1, 1.6 * chance[5] - 0.8), (0.5, 0.9), 1 - colour, chance[6], chance[7])


def _paint_head(canvas: Canvas, traits: Traits) -> None:
    """Paint the hair behind, neck, ears, the face itself, beard, and the hair in front."""
    width = traits.face_width
    height = traits.face_height
    dark = traits.skin * 0.78
    crown = -height - traits.hair_volume
    low = traits.hair_length * height
    canvas.ellipse((0, (crown + low) / 2), (width + traits.hair_volume, (low - crown) / 2), traits.hair)
    canvas.ellipse((0, height), (0.6 * width, 0.5), dark)
    for side in (-1, 1):
        canvas.ellipse((side * width, traits.eye_height + 0.12), (traits.ears, 1.5 * traits.ears), dark)
    # The face: (u / (width n(v)))^2 + (v / height)^2 <= 1, an ellipse whose width shrinks below its middle (v > 0, downward),
    # n(v) = 1 - jaw max(v, 0).
    u, v = canvas.u, canvas.v
    narrowing = 1 - traits.jaw * np.maximum(v, 0)
    distance: Plane = (u / (width * np.maximum(narrowing, 0.3))) ** 2 + (v * (1 / height)) ** 2
    face = canvas.edge(distance, width)
    canvas.blend(face, traits.skin)
    if traits.beard:
        chin = limited((v - 0.16) * 6) * face
        canvas.blend(chin * traits.beard, traits.hair * 0.8)
    # Hair in front: above the parabola v = hairline + 0.7 (u - parting)^2, on a head a little larger than the face.
    line: Plane = traits.hairline + 0.7 * (u - traits.parting) ** 2
    canvas.blend(limited((line - v) * (0.5 / canvas.pixel)) * canvas.edge(distance * 0.9, width), traits.hair)


def _paint_eyes(canvas: Canvas, traits: Traits, yaw: float, lid: float) -> None:
    """Paint eyes, brows and cheeks; `lid` in [0, 1] closes the eyes partly, `yaw` moves them sideways."""
    white = np.full(3, 0.95, dtype=np.float32)
    black = np.full(3, 0.04, dtype=np.float32)
    openness = traits.eye_openness * (1 - 0.35 * lid)
    brow = traits.hair * 0.75
    for side in (-1, 1):
        x, y = _turned(side * traits.eye_distance, yaw, 0.75), traits.eye_height
        size = traits.eye_size
        tilt = side * traits.eye_tilt
        canvas.ellipse((x, y), (1.25 * size, 1.5 * openness * size), traits.skin * 0.62, 0.8, tilt)
        canvas.ellipse((x, y), (size, openness * size), white, 1, tilt)
        canvas.ellipse((x + 0.02 * yaw, y), (0.56 * size, min(0.56, openness) * size), traits.iris)
        canvas.ellipse((x + 0.02 * yaw, y), (0.25 * size, 0.25 * size), black)
        lift = y - openness * size - traits.brow_gap
        canvas.ellipse((x, lift), (1.35 * size, traits.brow_thickness), brow, 1, side * traits.brow_tilt)
        canvas.ellipse((_turned(side * 0.38, yaw, 0.6), 0.20), (0.14, 0.11), traits.lip, traits.cheeks)


def _paint_nose_and_mouth(canvas: Canvas, traits: Traits, yaw: float, opened: float, smile: float) -> None:
    """Paint nose, lips and the mole; `opened` in [0, 1] and `smile` in [-1, 1] are the expression."""
    shade = traits.skin * 0.70
    gleam = np.minimum(traits.skin * 1.15, 1)
    width = traits.nose_width
    top = traits.eye_height + 0.02
    tip = top + traits.nose_length
    x = _turned(0, yaw, 1.3)
    canvas.ellipse((x + 0.04, (top + tip) / 2), (0.45 * width, traits.nose_length / 2), shade, 0.7)
    canvas.ellipse((x, (top + tip) / 2), (0.33 * width, traits.nose_length / 2), gleam, 0.8)
    canvas.ellipse((x, tip), (width, 0.45 * width), shade)
    canvas.ellipse((x, tip - 0.02), (0.8 * width, 0.40 * width), traits.skin)
    for side in (-1, 1):
        canvas.ellipse((x + side * 0.5 * width, tip + 0.012), (0.22 * width, 0.16 * width), traits.skin * 0.3)
    x, y = _turned(0, yaw, 0.8), tip + traits.mouth_height
    wide = traits.mouth_width * (1 + 0.15 * smile)
    full = traits.lip_fullness
    for side in (-1, 1):
        canvas.ellipse((x + 0.42 * side * wide, y), (0.62 * wide, full), traits.lip, 1, -0.22 * side * smile)
    inner = np.full(3, 0.15, dtype=np.float32)
    canvas.ellipse((x, y), (0.75 * wide, 0.012 + 0.5 * full * opened), inner, 0.9)
    canvas.ellipse((_turned(traits.mole[0], yaw, 0.7), traits.mole[1]), (0.030, 0.030), traits.skin * 0.25)


def _turned(x: float, yaw: float, depth: float) -> float:
    """Return where a feature at `x`, `depth` in front of the axis, appears when the head turns by `yaw`, in [-1, 1]."""
    # A rotation about the vertical axis is x cos + depth sin; here cos is about 1 - 0.12 |yaw| and sin about 0.14 yaw.
    return x * (1 - 0.12 * abs(yaw)) + 0.14 * yaw * depth


def _occlude(canvas: Canvas, chance: list[float]) -> None:
    """Paint something in front of the face in three images of ten: a spot anywhere, or a bar."""
    if chance[0] > 0.3:
        return
    centre = (1.4 * chance[1] - 0.7, 1.8 * chance[2] - 0.9)
    radius = 0.12 + 0.2 * chance[3]
    radii = (radius, radius) if chance[4] < 0.6 else (0.9, 0.08 + 0.06 * chance[3])
    canvas.ellipse(centre, radii, _colour(chance[5:8]), 1, chance[8])


def _lit(canvas: Canvas, chance: list[float]) -> NDArray[np.uint8]:
    """Return the picture as bytes, with light from one side, a colour cast, brightness and noise."""
    # pixel = clamp(colour max(1 + strength (cos u + sin v), 0.2) gain[channel] + noise, 0, 255)
    angle = 2 * math.pi * chance[0]
    strength = 0.45 * chance[1]
    shading: Plane = 1 + (strength * math.cos(angle)) * canvas.u + (strength * math.sin(angle)) * canvas.v
    gain = 255 * (0.65 + 0.55 * chance[2]) * (0.90 + 0.20 * _colour(chance[3:6]))
    pixels = canvas.pixels
    pixels *= np.maximum(shading, 0.2)
    pixels *= gain[:, None, None]
    pixels += (4 + 10 * chance[6]) * _noise(canvas.size, chance[7:10])
    np.maximum(pixels, 0, out=pixels)
    np.minimum(pixels, 255, out=pixels)
    return np.ascontiguousarray(pixels.astype(np.uint8).transpose(1, 2, 0))


def _noise(size: int, chance: list[float]) -> Plane:
    """Return noise of unit variance, float32 [3, size, size]: for each channel a window of a fixed field."""
    # The bank has room x room windows; number u takes window floor(u room^2), counted row by row.
    bank = _noise_bank()
    room = _BANK_SIDE - size + 1
    places = [int(number * room * room) for number in chance]
    return np.stack([bank[place // room :, place % room :][:size, :size] for place in places])


@functools.cache
def _noise_bank() -> Plane:
    """Return nearly normal noise, float32 [640, 640]: sums of four uniform numbers."""
    # The sum of four has mean 2 and variance 4 / 12 = 1 / 3.
    draws = uniform(hashed(_NOISE, np.arange(4)[:, None], np.arange(_BANK_SIDE**2))).sum(0) - 2
    return np.asarray(draws * math.sqrt(3), dtype=np.float32).reshape(_BANK_SIDE, _BANK_SIDE)
