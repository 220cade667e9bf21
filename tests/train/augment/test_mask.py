"""Masks: they cover nose and mouth and leave the eyes, at every size, and are many."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from attfc_train.augment import mask
from attfc_train.augment.mask import Mask, masked
from attfc_train.augment.randomness import image_keys, uniforms
from attfc_train.evaluate.align import TEMPLATE
from tests.train.augment.faces import faces

CPU = torch.device("cpu")
MANY = 400
SIZES = [32, 48, 64, 112, 224]
LEFT_EYE, RIGHT_EYE, NOSE, LEFT_MOUTH, RIGHT_MOUTH = range(5)


def draws(count: int) -> Tensor:
    return uniforms(image_keys(5, 0, 1, count, CPU)[0], "mask", Mask.draws)


def covered(size: int, count: int = MANY) -> Tensor:
    """Which pixels changed by more than a little, bool [count, size, size]; images are of a colour that no mask has."""
    images = torch.zeros(count, 3, size, size)
    images[:, 0] = 255
    away = (Mask(CPU)(images, draws(count)) - images).abs().amax(dim=1)
    return away > 20


def pixel(point: int, size: int) -> tuple[int, int]:
    """Row and column of a template's point."""
    column, row = np.floor((TEMPLATE[point] + 0.5) * size / 112).astype(int).tolist()
    return row, column


@pytest.mark.parametrize("size", SIZES)
def test_mouth_and_nose_are_covered_and_eyes_are_free(size: int) -> None:
    """Catches a mask in pixels of 112 on an image of 64, and an edge above the eyes or below the tip of the nose."""
    is_covered = covered(size)
    for point in (NOSE, LEFT_MOUTH, RIGHT_MOUTH):
        row, column = pixel(point, size)
        assert is_covered[:, row, column].all(), point
    row, left = pixel(LEFT_MOUTH, size)
    right = pixel(RIGHT_MOUTH, size)[1]
    assert is_covered[:, row, left : right + 1].all(), "the mouth between its corners"
    for point in (LEFT_EYE, RIGHT_EYE):
        row, column = pixel(point, size)
        reach = size // 28  # 4 pixels of 112
        assert not is_covered[:, row - reach : row + reach + 1, column - reach : column + reach + 1].any(), point


@pytest.mark.parametrize("size", SIZES)
def test_the_chin_is_covered(size: int) -> None:
    """The middle of the face is mask from the nose to where the chin is, 4 pixels of 112 above the lower edge of the crop."""
    row, column = pixel(NOSE, size)
    assert covered(size)[:, row : size - size // 16, column].all()


def test_the_template_is_the_one_that_faces_are_aligned_to() -> None:
    assert pytest.approx(TEMPLATE[NOSE], abs=0.05) == mask.NOSE


def test_what_is_not_mask_is_the_image_to_the_bit() -> None:
    """Catches an image that is rounded, or dimmed, as a whole."""
    images = faces(20, 64) + 0.123
    changed = Mask(CPU)(images, draws(20))
    assert torch.equal(changed[:, :, :16], images[:, :, :16]), "forehead"
    is_same = (changed == images).all(dim=1).float().mean(dim=(1, 2))
    assert is_same.min() > 0.35
    assert is_same.max() < 0.8


def test_masks_scale_with_the_image() -> None:
    """The mask at 224, made half as large, is that at 112 but for its edges."""
    small, large = covered(112, 50), covered(224, 50)
    reduced = torch.nn.functional.avg_pool2d(large.float()[:, None], 2)[:, 0]
    assert ((reduced - small.float()).abs() > 0.5).float().mean() < 0.01


def test_looks_are_many() -> None:
    """Catches a table of which only the first row is ever drawn."""
    look = Mask(CPU).look(draws(MANY))
    assert len(set(look.power.tolist())) == len(mask._FORMS)
    assert len({tuple(row) for row in look.waves.tolist()}) == len(mask._TEXTURES)
    grey = Mask(CPU)._colours[:4]
    nearest = (look.colour[:, None] - grey).abs().amax(dim=2)
    shares = [(nearest.argmin(dim=1)[nearest.amin(dim=1) < 11] == which).sum().item() / MANY for which in range(4)]
    assert all(0.05 < share < 0.4 for share in shares)
    assert 0.08 < (nearest.amin(dim=1) >= 11).float().mean() < 0.25, "colours beyond the palette"
    assert len({tuple(row) for row in look.colour.tolist()}) > MANY * 0.99


def test_a_dark_picture_has_a_dark_mask() -> None:
    look = Mask(CPU).look(draws(1))
    bright, dark = (masked(torch.full((1, 3, 112, 112), value), look)[0, :, 85, 56].mean() for value in (140.0, 70.0))
    assert dark < 0.7 * bright
