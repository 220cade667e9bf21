"""A small painter for procedural pictures: soft-edged ellipses in the coordinates of a posed object.

Picture coordinates (x, y) run from -1 to 1, right and down. Object coordinates (u, v) are placed in them by a `Pose`:

    (x, y) = M (u, v) + shift      M = scale · [[cos, -sin], [sin, cos]] · [[1, shear], [0, 1]]
"""

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
    """The place of the object in the picture: sheared, rotated, scaled, then shifted."""

    angle: float
    """Radians."""
    scale: float
    shift_x: float
    shift_y: float
    shear: float

    @property
    def matrix(self) -> tuple[float, float, float, float]:
        """The rows of M."""
        cos = math.cos(self.angle) * self.scale
        sin = math.sin(self.angle) * self.scale
        return cos, self.shear * cos - sin, sin, self.shear * sin + cos


class Canvas:
    """A picture, float32 [3, size, size], with object coordinates ``u`` (right) and ``v`` (down) of every pixel."""

    def __init__(self, size: int, pose: Pose, background: Colour) -> None:
        """Fill the picture with one colour."""
        self.size = size
        self.pixel = 2.0 / (size * pose.scale)
        self._pose = pose
        self._matrix = pose.matrix
        a, b, c, d = self._matrix
        # max |M w| <= extent max |w|, for how far around its centre an ellipse can reach.
        self._extent = max(abs(a) + abs(b), abs(c) + abs(d))
        # (u, v) = M^-1 (x - shift_x, y - shift_y), with M^-1 = [[d, -b], [-c, a]] / det M.
        determinant = a * d - b * c
        axis = (np.arange(size, dtype=np.float32) + 0.5) * (2.0 / size) - 1.0
        x, y = axis - pose.shift_x, (axis - pose.shift_y)[:, None]
        self.u: Plane = x * (d / determinant) - y * (b / determinant)
        self.v: Plane = y * (a / determinant) - x * (c / determinant)
        self.pixels: Plane = np.empty((3, size, size), dtype=np.float32)
        self.pixels[:] = background[:, None, None]

    def blend(self, mask: Plane, colour: Colour) -> None:
        """Paint the whole canvas through a mask of [size, size] in [0, 1]."""
        # (1 - mask) pixels + mask colour
        self.pixels += mask * (colour[:, None, None] - self.pixels)

    def edge(self, distance: Plane, radius: float) -> Plane:
        """Return a mask from a squared, normalised distance (1 on the outline), with an edge one pixel wide.

        Args:
            distance: float32 [h, w], (r / radius)^2 at r from the centre.
            radius: in object coordinates.
        """
        # 1 - (r / radius)^2 is about 2 (radius - r) / radius near the outline. So with s = radius / (2 pixel), s (1 - distance)
        # is how many pixels a place lies inside, and with 1/2 added the ramp from 0 to 1 has its middle on the outline.
        sharpness = max(0.75, radius / (2 * self.pixel))
        mask: Plane = distance * -sharpness
        mask += sharpness + 0.5
        return limited(mask)

    def ellipse(
        self, centre: tuple[float, float], radii: tuple[float, float], colour: Colour, opacity: float = 1.0, tilt: float = 0.0
    ) -> None:
        """Paint an ellipse; only the pixels around it are touched.

        Args:
            centre: object coordinates.
            radii: half width and half height, before the tilt.
            colour: RGB in [0, 1].
            opacity: 0 (nothing) to 1.
            tilt: radians.
        """
        box = self._box(centre, max(radii))
        # Around the centre, turned back by the tilt and divided by the radii, the ellipse is u^2 + v^2 <= 1.
        u, v = self.u[box] - centre[0], self.v[box] - centre[1]
        if tilt:
            cos = math.cos(tilt)
            sin = math.sin(tilt)
            u, v = cos * u + sin * v, cos * v - sin * u
        u, v = u * (1 / radii[0]), v * (1 / radii[1])
        mask = self.edge(u * u + v * v, min(radii))
        if opacity < 1:
            mask *= opacity
        part = self.pixels[:, *box]
        part += mask * (colour[:, None, None] - part)

    def _box(self, centre: tuple[float, float], radius: float) -> tuple[slice, slice]:
        """Return the rows and columns that hold everything within `radius` of `centre`."""
        a, b, c, d = self._matrix
        x = a * centre[0] + b * centre[1] + self._pose.shift_x
        y = c * centre[0] + d * centre[1] + self._pose.shift_y
        return self._range(y, radius), self._range(x, radius)

    def _range(self, middle: float, radius: float) -> slice:
        """Return the pixels of one axis around a picture coordinate; two more on each side for the soft edge."""
        half = self.size / 2
        reach = radius * self._extent * half + 2
        centre = (middle + 1) * half
        return slice(max(0, int(centre - reach)), max(0, int(centre + reach) + 1))


def limited(values: Plane) -> Plane:
    """Return `values`, cut off below 0 and above 1 in place."""
    np.maximum(values, 0, out=values)
    np.minimum(values, 1, out=values)
    return values
