"""Every augmentation against a slow one for single images."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from attfc_train.augment.blur import blurred
from attfc_train.augment.colour import jittered
from attfc_train.augment.grey import Grey
from attfc_train.augment.jpeg import Jpeg
from attfc_train.augment.occlusion import Occlusion, occluded
from attfc_train.augment.resize_down import ResizeDown, resized_down
from tests.oracle import augmentation_oracle as oracle
from tests.train.augment.faces import faces

CPU = torch.device("cpu")


def check(changed: Tensor, slowly: Callable[[oracle.Pixels, int], oracle.Pixels], images: Tensor, atol: float) -> None:
    expected = np.stack([slowly(image, place) for place, image in enumerate(images.double().numpy())])
    np.testing.assert_allclose(changed.numpy(), expected, atol=atol, rtol=0)


def test_grey() -> None:
    images = faces(3)
    check(Grey()(images, torch.empty(3, 0)), lambda image, _: oracle.grey(image), images, 1e-3)


def test_colour() -> None:
    """Catches a mean over the whole batch, and factors that are made in another order."""
    images = faces(4)
    factors = torch.tensor([[0.5, 1.5, 0.0], [1.5, 0.5, 1.5], [1.0, 1.0, 1.0], [1.4, 1.4, 0.6]])
    changed = jittered(images, *factors.unbind(dim=1))
    check(changed, lambda image, place: oracle.jittered(image, *factors[place].tolist()), images, 2e-3)
    torch.testing.assert_close(changed[2], images[2], atol=1e-3, rtol=0)


def test_occlusion() -> None:
    """Catches rows taken for columns, and edges that are off by a pixel."""
    images = faces(3)
    boxes = torch.tensor([[0.1, 0.2, 0.4, 0.9], [0.0, 0.0, 1.0, 1.0], [0.5, 0.5, 0.5, 0.9]])
    colours = torch.tensor([[255.0, 0, 10], [1, 2, 3], [9, 9, 9]])
    changed = occluded(images, boxes, colours)
    check(changed, lambda image, place: oracle.occluded(image, boxes[place].tolist(), colours[place].tolist()), images, 0)


def test_occlusions_lie_in_the_image_and_have_the_areas_that_are_said() -> None:
    draws = torch.rand(500, 7, generator=torch.Generator().manual_seed(0))
    shares = (Occlusion()(torch.full((500, 3, 64, 64), -1.0), draws)[:, 0] >= 0).float().mean(dim=(1, 2))
    assert 0.01 < shares.min() < 0.04
    assert 0.2 < shares.max() < 0.28


@pytest.mark.parametrize("size", [16, 32])
def test_blur(size: int) -> None:
    """Catches one width for the whole batch, a blur along rows only, and an edge that darkens."""
    images = faces(3, size)
    widths = torch.tensor([0.4, 1.3, 6.0])
    check(blurred(images, widths), lambda image, place: oracle.blurred(image, float(widths[place])), images, 2e-3)


@pytest.mark.parametrize("size", [32, 48])
def test_fewer_pixels(size: int) -> None:
    """Catches an aliased reduction, a shift by half a pixel, and one side for the whole batch."""
    images = faces(5, size)
    sides = torch.tensor([1.0, 7.0, 13.0, size - 1.0, size])
    changed = resized_down(images, sides)
    check(changed, lambda image, place: oracle.resized_down(image, int(sides[place])), images, 5e-3)
    torch.testing.assert_close(changed[4], images[4], atol=1e-3, rtol=0)  # as many pixels as before


def test_the_fewest_pixels_are_a_fifth() -> None:
    images = faces(2, 64)
    changed = ResizeDown()(images, torch.tensor([[0.0], [1 - 2**-24]]))
    check(changed[:1], lambda image, _: oracle.resized_down(image, 13), images[:1], 5e-3)
    torch.testing.assert_close(changed[1], images[1], atol=1e-3, rtol=0)


QUALITIES = (5, 30, 49, 50, 75, 100)


def test_jpeg_is_its_definition() -> None:
    """Catches a transposed table, colour in the table of brightness, and blocks that are mixed up."""
    # On noise: in a flat block many a coefficient lies halfway between two steps, and is rounded either way.
    images = torch.rand(len(QUALITIES), 3, 48, 48, generator=torch.Generator().manual_seed(0)) * 255
    changed = Jpeg(48, CPU).compressed(images, torch.tensor(QUALITIES, dtype=torch.float32))
    for image, result, quality in zip(images.double().numpy(), changed.numpy(), QUALITIES, strict=True):
        assert np.abs(result - oracle.jpeg(image, quality)).mean() < 0.05


@pytest.mark.parametrize("quality", QUALITIES)
def test_jpeg_looks_as_libjpegs_files_do(quality: int) -> None:
    """Catches colour at full resolution, and a scale of the tables that is not libjpeg's: artefacts must be the same ones."""
    images = faces(4, 112)
    changed = Jpeg(112, CPU).compressed(images, torch.full((4,), float(quality))).numpy()
    real = np.stack([oracle.jpeg_by_pillow(image, quality) for image in images.double().numpy()])
    artefacts, real_artefacts = changed - images.numpy(), real - images.numpy()
    assert np.abs(changed - real).mean() < max(0.8, 0.25 * np.abs(real_artefacts).mean())
    assert np.corrcoef(artefacts.ravel(), real_artefacts.ravel())[0, 1] > (0.9 if quality < 100 else 0.5)


@pytest.mark.parametrize("quality", [1, 7, 30, 49, 50, 80, 99, 100])
def test_the_steps_are_those_in_libjpegs_files(quality: int) -> None:
    """Catches a wrong figure in a table, and another rule for the quality."""
    file = io.BytesIO()
    Image.new("RGB", (16, 16)).save(file, "JPEG", quality=quality)
    tables = Image.open(file).quantization  # type: ignore[attr-defined]  # of JPEG files only
    steps = Jpeg(16, CPU).steps(torch.tensor([float(quality)]))[0].transpose(1, 2)
    assert steps.flatten(1).tolist() == [list(tables[0]), list(tables[1])]
