"""A face mask from the nose to below the chin, drawn on faces that are aligned to the five-point template.

Where nose and mouth are is known of an aligned face, so nothing is detected. Form, place, colour, texture, shade and straps
are computed from random numbers; no picture of a mask is used. The eyes stay free. InsightFace's ICCV-2021 challenge of masked
faces covered the lower third of a face and had white, blue, black and green masks.

Lengths are in pixels of a crop of 112; x points to the right, y down. Legend: N images, S pixels of a side.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from attfc_train.augment.grey import luma
from attfc_train.augment.randomness import between
from attfc_train.augment.separable import pixel_numbers

SIDE: Final = 112
NOSE: Final = (56.0, 71.7)
"""x and y of the tip of the nose in the template (`attfc_train.evaluate.align.TEMPLATE`)."""
TOPS: Final = (60.0, 69.0)
"""Of the upper edge at the nose: above its tip, and well below the eyes, which are at 51.6."""
BOTTOMS: Final = (110.0, 122.0)
"""Of the lower edge: the chin is near the lower end of the crop, or below it."""
SHIFTS: Final = (-2.0, 2.0)
TILTS: Final = (-0.06, 0.06)
"""Radians, about the tip of the nose."""
LIGHTS: Final = (0.45, 1.15)
"""Brightness of a mask by that of its image, which is 1 at a mean of 128; at least and at most."""

_FORMS: Final = ((37.0, 0.25, 2.0, 0.9), (36.0, 0.55, 3.0, 0.9), (44.0, 0.45, 1.3, 0.0))
"""Surgical, cup and cloth: half the width at the top, share of it that is lost to the bottom, by which power of the depth, and
how opaque the straps are."""
_COLOURS: Final = ((236, 238, 240), (150, 186, 216), (38, 38, 42), (134, 188, 168), (190, 150, 150))
"""White, blue, black, green, and what a random colour is mixed with."""
_COLOUR_SHARES: Final = (0.3, 0.6, 0.75, 0.85)
"""Up to which random number the first four are taken."""
_TEXTURES: Final = ((0.0, 0.0, 0.0), (0.07, 0.0, 0.0), (0.0, 0.18, 0.0), (0.0, 0.0, 0.22))
"""None, pleats, diagonal stripes and dots: how strong each of three waves is."""


@dataclass(frozen=True, slots=True)
class Look:
    """The masks of N images; numbers are float32 [N]."""

    half_width: Tensor
    taper: Tensor
    power: Tensor
    strap: Tensor
    """Opacity of the straps."""
    top: Tensor
    bottom: Tensor
    shift: Tensor
    """Of the middle, to the right."""
    tilt: Tensor
    sag: Tensor
    """By how much the upper edge lies lower at its ends than at the nose."""
    colour: Tensor
    """float32 [N, 3], from 0 to 255."""
    waves: Tensor
    """float32 [N, 3], of `_TEXTURES`."""
    wave_length: Tensor


class Mask:
    """A mask of random look on every image."""

    draws = 13

    def __init__(self, device: torch.device) -> None:
        """Copy the tables of forms, colours and textures to the device."""
        self._forms, self._colours, self._shares, self._textures = (
            torch.tensor(table, dtype=torch.float32).to(device) for table in (_FORMS, _COLOURS, _COLOUR_SHARES, _TEXTURES)
        )

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        """See `attfc_train.augment.kinds.Change`."""
        return masked(images, self.look(draws))

    def look(self, draws: Tensor) -> Look:
        """Return the masks that random numbers [N, 13] stand for."""
        u = draws.unbind(dim=1)
        half_width, taper, power, strap = _picked(self._forms, u[0]).unbind(dim=1)
        return Look(
            half_width=half_width + between(u[1], -2.0, 3.0),
            taper=taper,
            power=power,
            strap=strap,
            top=between(u[2], *TOPS),
            bottom=between(u[3], *BOTTOMS),
            shift=between(u[4], *SHIFTS),
            tilt=between(u[5], *TILTS),
            sag=between(u[6], 0.0, 6.0),
            colour=self._colour(u[7], draws[:, 8:11]),
            waves=_picked(self._textures, u[11]),
            wave_length=between(u[12], 5.0, 11.0),
        )

    def _colour(self, which: Tensor, own: Tensor) -> Tensor:
        """Return colours [N, 3]; those behind the palette are mixed with a random one."""
        place = (which[:, None] >= self._shares).sum(dim=1)
        colours = self._colours[place]
        mixed = (colours + own * 255) / 2
        return torch.where((place == len(self._shares))[:, None], mixed, colours + (own - 0.5) * 20)


def masked(images: Tensor, look: Look) -> Tensor:
    """Return images with a mask each; where a mask does not reach, they are the same to the bit.

    Args:
        images: float32 [N, 3, S, S] from 0 to 255, aligned to the template.
    """
    x, y = _places(images.shape[-1], look, images.device)
    opacity = _opacity(x, y, look, images.shape[-1] / SIDE)
    # The mask is as bright as the picture around it.
    light = (luma(images).mean(dim=(1, 2, 3), keepdim=True) / 128).clamp(*LIGHTS)
    cloth = (look.colour[:, :, None, None] * (light * _shade(x, y, look))).clamp(0.0, 255.0)
    return images + opacity * (cloth - images)


def _places(size: int, look: Look, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return x from the mask's middle, and y, of every pixel in the mask's own upright position: [N, 1, S, S] each."""
    # The middle of pixel i lies at i + 1/2 of S pixels, that of the template's pixels likewise.
    middle = (pixel_numbers(size, device) + 0.5) * (SIDE / size) - 0.5
    x = middle - NOSE[0] - _wide(look.shift)
    y = middle[:, None] - NOSE[1]
    # A small rotation by the tilt; its cosine is 1 to two parts in a thousand.
    return x + _wide(look.tilt) * y, y - _wide(look.tilt) * x + NOSE[1]


def _opacity(x: Tensor, y: Tensor, look: Look, scale: float) -> Tensor:
    """Return what share of each pixel is mask, [N, 1, S, S].

    Args:
        scale: pixels of the image for one of the template.
    """
    width = _wide(look.half_width)
    across = x.abs() / width
    top = _wide(look.top) + _wide(look.sag) * across.square()
    bottom = _wide(look.bottom) - 8 * across.square()  # round towards the cheeks
    # Half the width at depth t, 0 at the nose and 1 at the bottom: width (1 - taper t^power).
    depth = ((y - _wide(look.top)) / (_wide(look.bottom) - _wide(look.top))).clamp(0.0, 1.0)
    half = width * (1 - _wide(look.taper) * depth ** _wide(look.power))
    inside = torch.minimum(torch.minimum(y - top, bottom - y), half - x.abs())
    # Half a pixel within the edge is all mask, half a pixel outside is none.
    cloth = (inside * scale + 0.5).clamp(0.0, 1.0)
    # Straps rise from the upper corners to the ears.
    beyond = x.abs() - width
    rope = (_wide(look.top) + _wide(look.sag) + 2 - 0.3 * beyond - y).abs()
    strap = ((0.9 - rope) * scale + 0.5).clamp(0.0, 1.0) * (beyond > 0) * _wide(look.strap)
    return torch.maximum(cloth, strap)


def _shade(x: Tensor, y: Tensor, look: Look) -> Tensor:
    """Return factors of the colour, [N, 1, S, S]: darker to the sides, and the texture."""
    across = x / _wide(look.half_width)
    turn = 2 * math.pi / _wide(look.wave_length)
    pleats, stripes, dots = (strength[:, :, None, None] for strength in look.waves.split(1, dim=1))
    texture = pleats * (turn * y).sin() + stripes * (turn * (x + y)).sin() + dots * (turn * x).sin() * (turn * y).sin()
    shade: Tensor = (1.05 - 0.3 * across.square()).clamp_min(0.5) + texture
    return shade


def _picked(table: Tensor, draws: Tensor) -> Tensor:
    """Return a row of a table [K, C] for each number in [0, 1), all equally likely: [N, C]."""
    return table[(draws * len(table)).long()]


def _wide(numbers: Tensor) -> Tensor:
    return numbers[:, None, None, None]


def build(size: int, device: torch.device) -> Mask:
    """Return the augmentation; masks scale with the image."""
    del size
    return Mask(device)
