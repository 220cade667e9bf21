"""A guess whether face crops are aligned by the five-point template, without a detector: from the mean of many of them.

Pictures that are aligned alike have eyes, nose and mouth at the same places, so their mean is a sharp face; others average to a
blur. Two figures follow, both from small grey pictures x_i, band-passed and of length 1:

* likeness: the mean of <x_i, x_j> over pairs of pictures, what two of them have in common;
* fit: how well their mean agrees with the mean face of the template, `MEAN_FACE`; -1 to 1.

How often the guess is wrong, by kind of crop: docs/data.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Verdict = Literal["aligned", "not aligned", "cannot tell"]

SIDE: Final = 32
"""Pixels of a side of the small pictures."""
FEWEST_IMAGES: Final = 40
FEWEST_PEOPLE: Final = 10
LIKENESS: Final = (0.10, 0.16)
"""Below the first the pictures are not alike, from the second on they are."""
FIT: Final = (0.86, 0.92)
"""The same for the fit."""
MOST_OTHERS: Final = 0.08
"""Share of pictures that may look otherwise: with a fit of their own below `_OTHER`. Of aligned pictures 1 to 3 % do."""

_BORDER: Final = 3
"""Pixels that are left out on every side: there is background."""
_TEMPLATE_SIDE: Final = 112
_SCALES: Final = (0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3, 1.4, 1.6, 1.8)
_MOST_SHIFT: Final = 5
_OTHER: Final = 0.12
_FOUND: Final = 0.75
"""Fit from which a place of the faces is named."""

_MEAN_FACE: Final = """
-11 -16 -20 -21 -22 -21 -18 -14 -11  -9  -9 -10 -11
-14 -18 -19 -18 -15  -9  -2   5  11  15  16  16  15
-15 -17 -18 -14  -7   2  10  19  26  31  32  31  31
-17 -18 -17 -11  -2   7  16  25  32  37  37  37  36
-20 -21 -17  -9   1  11  19  27  33  37  38  37  36
-23 -23 -18  -8   4  15  24  31  37  39  39  38  37
-26 -25 -17  -5   8  20  31  39  44  47  46  44  42
-28 -26 -16  -3  11  24  33  39  43  47  50  50  50
-29 -25 -14  -1  10  17  16  13  11  17  29  41  48
-29 -23 -13  -3   2  -1 -12 -27 -39 -37 -17  11  32
-26 -20 -11  -6  -9 -21 -39 -60 -77 -79 -61 -22  15
-23 -17  -9  -7 -18 -39 -63 -86 -99 -97 -79 -37  13
-19 -13  -4  -1 -13 -35 -58 -76 -82 -77 -62 -23  26
-16  -9   3  12  11   2 -11 -23 -28 -27 -20   4  40
-15  -7   6  22  34  38  34  26  20  16  13  24  49
-15  -9   4  22  40  53  57  55  48  36  25  32  52
-15 -12  -2  13  33  51  62  63  52  32  18  29  47
-13 -13  -8   4  21  41  53  52  35  11  -1   8  24
-13 -13 -11  -3  10  26  35  31  15  -4 -22 -24 -15
-14 -14 -13  -7   1  12  16  13   9   0 -19 -33 -35
-16 -16 -14  -9  -2   4   6   5   6   7  -2 -13 -19
-17 -17 -15  -8   0   7   7   0  -7  -9  -9  -9  -9
-17 -17 -15  -8   4  13  14   0 -24 -38 -37 -30 -23
-19 -19 -17 -10   3  15  21  10 -17 -39 -43 -33 -24
-20 -21 -21 -15  -5   9  19  21   8  -9 -18 -16 -12
-19 -22 -24 -21 -15  -4   9  20  22  15   5  -1  -3
"""
"""The left half of the mean of 578 people's aligned pictures (LFW), made symmetric, in hundredths; the forehead is above.

Picture and mean are what `band_passed` makes of them. Eyes are the dark places of rows 9 to 13, the mouth those of
rows 21 to 24.
"""


def _mean_face() -> Floats:
    left = np.array([line.split() for line in _MEAN_FACE.strip().splitlines()], dtype=np.float64)
    whole = np.concatenate([left, left[:, ::-1]], axis=1)
    face: Floats = whole / np.linalg.norm(whole)
    return face


MEAN_FACE: Final = _mean_face()
"""float64 [26, 26], of length 1."""


@dataclass(frozen=True, slots=True)
class AlignmentGuess:
    """A verdict on a data set, and what it was made from."""

    verdict: Verdict
    reason: str
    likeness: float = float("nan")
    fit: float = float("nan")


def guess_alignment(pictures: NDArray[np.uint8], num_people: int) -> AlignmentGuess:
    """Return whether pictures of faces are aligned by the standard template.

    Args:
        pictures: uint8 [N, `SIDE`, `SIDE`, 3], RGB; of different people as far as possible.
        num_people: how many people are on them.
    """
    count = len(pictures)
    if count < FEWEST_IMAGES or num_people < FEWEST_PEOPLE:
        needed = f"a mean face needs {FEWEST_IMAGES} images of {FEWEST_PEOPLE} people"
        return AlignmentGuess("cannot tell", f"{needed}, and there are {count} of {num_people} that can be decoded")
    waves = band_passed(pictures)
    mean: Floats = waves.mean(axis=0)
    # |mean|^2 = (N + sum of <x_i, x_j> over i != j) / N^2, as |x_i| = 1, or 0 for a picture of one colour.
    alike = float(((count * mean) ** 2).sum() - (waves**2).sum()) / (count * (count - 1))
    fit = float((mean * MEAN_FACE).sum()) / max(alike, 1e-6) ** 0.5 if alike > 0 else 0.0
    fit = max(-1.0, min(1.0, fit))  # `alike` is an estimate
    others = float(((waves * MEAN_FACE).sum(axis=(1, 2)) < _OTHER).mean())
    verdict, found = _judged(alike, fit, others, mean)
    figures = f"likeness {alike:.2f}, fit {fit:.2f}; aligned faces have {LIKENESS[1]:g} and {FIT[1]:g} or more"
    reason = f"the mean of {count:,} images of {num_people:,} people is {found} ({figures})"
    return AlignmentGuess(verdict, reason, alike, fit)


def band_passed(pictures: NDArray[np.uint8]) -> Floats:
    """Return small pictures without light, contrast and fine detail, each of mean 0 and length 1, or 0 where it is one colour.

    Args:
        pictures: uint8 [N, `SIDE`, `SIDE`, 3], RGB.

    Returns:
        float64 [N, 26, 26].
    """
    grey = pictures.astype(np.float64) @ np.array([0.299, 0.587, 0.114])
    # Blurred a little less blurred a lot: what is as large as an eye or a mouth stays.
    fine, coarse = _blur(0.7), _blur(3.0)
    waves = (fine @ grey @ fine.T - coarse @ grey @ coarse.T)[:, _BORDER:-_BORDER, _BORDER:-_BORDER]
    waves = waves - waves.mean(axis=(1, 2), keepdims=True)
    length = np.sqrt((waves**2).sum(axis=(1, 2), keepdims=True))
    return np.where(length > 1e-3, waves / np.maximum(length, 1e-3), 0.0)  # one colour stays 0, without noise of rounding


def _blur(sigma: float) -> Floats:
    """Return the matrix that blurs a line of `SIDE` pixels by a Gaussian; at the ends its weights are scaled to sum to 1."""
    place = np.arange(SIDE)
    weights = np.exp(-((place[:, None] - place) ** 2) / (2 * sigma**2))
    matrix: Floats = weights / weights.sum(axis=1, keepdims=True)
    return matrix


def _judged(alike: float, fit: float, others: float, mean: Floats) -> tuple[Verdict, str]:
    """Return the verdict, and in words what the mean is."""
    if alike < LIKENESS[0]:
        return "not aligned", "a blur: the faces lie at different places, or these are no face crops"
    if fit < FIT[0]:
        return "not aligned", f"sharp, but not the face of the five-point template: {_place(mean)}"
    if alike < LIKENESS[1] or fit < FIT[1]:
        return "cannot tell", "between that of aligned faces and that of others"
    if others > MOST_OTHERS:
        return "cannot tell", f"a face at the places of the five-point template, but {others:.0%} of the images look otherwise"
    return "aligned", "a sharp face at the places of the five-point template"


def _place(mean: Floats) -> str:
    """Return in words where the template's face is in the mean: the best of many sizes and shifts."""
    unit = mean / max(float(np.linalg.norm(mean)), 1e-9)
    shifts = range(-_MOST_SHIFT, _MOST_SHIFT + 1)
    places = [(scale, right, down) for scale in _SCALES for right in shifts for down in shifts]
    fits = [float((unit * _moved(*place)).sum()) for place in places]
    best = int(np.argmax(fits))
    if fits[best] < _FOUND:
        return "it looks like no upright face of any size"
    scale, right, down = places[best]
    pixels = _TEMPLATE_SIDE / SIDE
    sideways = f", {abs(right) * pixels:.0f} pixels of 112 further {'right' if right > 0 else 'left'}" if right else ""
    upright = f", {abs(down) * pixels:.0f} pixels of 112 {'lower' if down > 0 else 'higher'}" if down else ""
    size = f"about {scale:g} times as large" if scale != 1 else "of the right size"
    return f"faces are {size}{sideways}{upright}"


def _moved(scale: float, right: int, down: int) -> Floats:
    """Return the mean face, enlarged about its middle and moved by pixels, of length 1; 0 outside."""
    middle = (len(MEAN_FACE) - 1) / 2
    rows = _interpolation(scale, down, middle)
    moved = rows @ MEAN_FACE @ _interpolation(scale, right, middle).T
    unit: Floats = moved / max(float(np.linalg.norm(moved)), 1e-9)
    return unit


def _interpolation(scale: float, shift: int, middle: float) -> Floats:
    """Return the matrix [side, side] that enlarges a line about `middle`, then moves it."""
    # The value at y comes from (y - middle - shift) / scale + middle, linearly between the two nearest; 0 beyond the ends.
    places = np.arange(len(MEAN_FACE), dtype=np.float64)
    sources = (places - middle - shift) / scale + middle
    matrix: Floats = np.maximum(0.0, 1.0 - np.abs(sources[:, None] - places))
    return matrix
