"""A small painter for procedural pictures: soft-edged ellipses in the coordinates of a posed object."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.float32]
Colour = NDArray[np.float32]
"""float32 [3], RGB in [0, 1]."""


@dataclass(frozen=True, slots=True)
class Pose:
    """Where the object is in the picture, whose own coordinates run from -1 to 1: rotated, scaled, then shifted."""

    angle: float
    scale: float
    shift_x: float
    shift_y: float
    shear: float

    @property
    def matrix(self) -> tuple[float, float, float, float]:
        """Rows of the map from object to picture coordinates, without the shift."""
        cos, sin = math.cos(self.angle) * self.scale, math.sin(self.angle) * self.scale
        return cos, self.shear * cos - sin, sin, self.shear * sin + cos


class Canvas:
    """A picture of float32 [3, size, size] with object coordinates ``u`` (right) and ``v`` (down) for every pixel."""

    def __init__(self, size: int, pose: Pose, background: Colour) -> None:
        """A canvas of one colour."""
        self.size = size
        self.pixel = 2.0 / (size * pose.scale)
        self._pose = pose
        a, b, c, d = self._matrix = pose.matrix
        self._extent = max(abs(a) + abs(b), abs(c) + abs(d))
        area = a * d - b * c
        axis = (np.arange(size, dtype=np.float32) + 0.5) * (2.0 / size) - 1.0
        x, y = axis - pose.shift_x, (axis - pose.shift_y)[:, None]
        self.u: Plane = x * (d / area) - y * (b / area)
        self.v: Plane = y * (a / area) - x * (c / area)
        self.pixels: Plane = np.empty((3, size, size), dtype=np.float32)
        self.pixels[:] = background[:, None, None]

    def blend(self, mask: Plane, colour: Colour) -> None:
        """Paints the whole canvas through a mask of [size, size] in [0, 1]."""
        self.pixels += mask * (colour[:, None, None] - self.pixels)

    def edge(self, distance: Plane, radius: float) -> Plane:
        """A mask from a squared, normalised distance (1 on the outline) with an edge one pixel wide."""
        sharpness = max(0.75, radius / (2 * self.pixel))
        mask: Plane = distance * -sharpness
        mask += sharpness + 0.5
        return limited(mask)

    def ellipse(
        self, centre: tuple[float, float], radii: tuple[float, float], colour: Colour, opacity: float = 1.0, tilt: float = 0.0
    ) -> None:
        """Paints an ellipse; touches only the pixels around it.

        Args:
            centre: object coordinates.
            radii: half width and half height, before the tilt.
            colour: RGB in [0, 1].
            opacity: 0 (nothing) to 1.
            tilt: radians.
        """
        box = self._box(centre, max(radii))
        u, v = self.u[box] - centre[0], self.v[box] - centre[1]
        if tilt:
            cos, sin = math.cos(tilt), math.sin(tilt)
            u, v = cos * u + sin * v, cos * v - sin * u
        u, v = u * (1 / radii[0]), v * (1 / radii[1])
        mask = self.edge(u * u + v * v, min(radii))
        if opacity < 1:
            mask *= opacity
        part = self.pixels[:, *box]
        part += mask * (colour[:, None, None] - part)

    def _box(self, centre: tuple[float, float], radius: float) -> tuple[slice, slice]:
        """Rows and columns that hold everything within `radius` of `centre`."""
        a, b, c, d = self._matrix
        x = a * centre[0] + b * centre[1] + self._pose.shift_x
        y = c * centre[0] + d * centre[1] + self._pose.shift_y
        return self._range(y, radius), self._range(x, radius)

    def _range(self, middle: float, radius: float) -> slice:
        """Pixels of one axis around a picture coordinate."""
        half = self.size / 2
        reach = radius * self._extent * half + 2
        centre = (middle + 1) * half
        return slice(max(0, int(centre - reach)), max(0, int(centre + reach) + 1))


def limited(values: Plane) -> Plane:
    """`values`, cut off below 0 and above 1, in place."""
    np.maximum(values, 0, out=values)
    np.minimum(values, 1, out=values)
    return values
