"""What every augmentation must do, and what a chain of them draws for whom."""

from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from attfc_train.augment.augmenter import Augmenter
from attfc_train.augment.kinds import AUGMENTATIONS, build_change
from attfc_train.augment.randomness import image_keys, uniforms
from tests.train.augment.faces import faces

CPU = torch.device("cpu")
every = pytest.mark.parametrize("name", AUGMENTATIONS)


@every
@pytest.mark.parametrize("size", [32, 64, 112])
def test_a_change_is_a_pure_function_of_each_image(name: str, size: int) -> None:
    """Catches statistics of the batch, an argument that is written to, values out of range, and images that stay the same."""
    change = build_change(name, size, CPU)
    images = faces(12, size)
    images[0], images[1] = 0.0, 255.0
    draws = uniforms(image_keys(1, 0, 1, 12, CPU)[0], name, change.draws)
    before = images.clone(), draws.clone()
    changed = change(images, draws)
    assert torch.equal(images, before[0])
    assert torch.equal(draws, before[1])
    assert changed.dtype == torch.float32
    assert changed.shape == images.shape
    assert changed.isfinite().all()
    assert changed.min() >= 0
    assert changed.max() <= 255
    assert (changed[2:] != images[2:]).any(dim=1).any(dim=1).any(dim=1).all()
    alone = torch.cat([change(image[None], draw[None]) for image, draw in zip(images, draws, strict=True)])
    torch.testing.assert_close(alone, changed, atol=1.01 if name == "jpeg" else 2e-3, rtol=0)


@every
@pytest.mark.parametrize("edge", [0.0, 1 - 2**-24])
def test_the_ends_of_the_range_of_draws_are_no_exceptions(name: str, edge: float) -> None:
    """Catches a row beyond a table's end, and a division by zero."""
    change = build_change(name, 32, CPU)
    changed = change(faces(2), torch.full((2, change.draws), edge))
    assert changed.isfinite().all()
    assert 0 <= changed.min() <= changed.max() <= 255


@every
def test_a_change_traces_without_data(name: str) -> None:
    """Catches a shape or a branch that depends on values: there are none here, and a fallback would be an error."""
    with FakeTensorMode(allow_fallback_kernels=False):
        change = build_change(name, 32, CPU)
        assert change(torch.zeros(3, 3, 32, 32), torch.zeros(3, change.draws)).shape == (3, 3, 32, 32)


def test_probability_is_the_share_of_images() -> None:
    images = torch.full((4000, 3, 32, 32), 10.0)
    images[:, 1] = 200.0
    augmenter = Augmenter({"grey": 0.3}, 32, 1, CPU)
    changed = augmenter(images, augmenter.keys(0, 1, 4000)[0])
    is_grey = (changed[:, 0] == changed[:, 1]).all(dim=(1, 2))
    assert 0.27 < is_grey.float().mean() < 0.33
    assert torch.equal(changed[~is_grey], images[~is_grey]), "the others are the same to the bit"


def test_chances_are_independent() -> None:
    """Catches one number for all augmentations: then nobody has one without the other."""
    keys = image_keys(3, 0, 1, 4000, CPU)[0]
    masks, greys = (uniforms(keys, name, 1)[:, 0] < 0.5 for name in ("mask", "grey"))
    assert 0.22 < (masks & greys).float().mean() < 0.28


def test_a_key_is_a_function_of_seed_place_and_view() -> None:
    """Catches a step that matters beside the place: other batch sizes, parts and workers must draw the same."""
    whole = image_keys(7, 0, 2, 64, CPU)
    halves = torch.cat([image_keys(7, first, 2, 32, CPU) for first in (0, 32)], dim=1)
    assert torch.equal(whole, halves)
    assert torch.equal(image_keys(7, 0, 1, 64, CPU)[0], whole[0])
    keys = [image_keys(seed, first, 3, 50, CPU) for seed in (7, 8, 7 + 2**32) for first in (0, 50, 2**32, 2**53 - 50)]
    distinct = torch.cat([each.flatten() for each in keys]).unique()
    assert len(distinct) == 12 * 150
    assert distinct.min() >= 0
    assert distinct.max() < 2**32


def test_numbers_are_uniform_and_independent() -> None:
    numbers = uniforms(image_keys(1, 0, 1, 20_000, CPU)[0], "mask", 8)
    assert numbers.min() >= 0
    assert numbers.max() < 1
    assert (numbers.mean(dim=0) - 0.5).abs().max() < 0.01
    assert (numbers.var(dim=0) - 1 / 12).abs().max() < 0.003
    correlations = torch.corrcoef(torch.cat([numbers.T, numbers.roll(1, 0).T]))
    assert (correlations - torch.eye(16)).abs().max() < 0.03


def test_later_augmentations_see_the_images_of_earlier_ones() -> None:
    """Catches a chain that keeps the last change only."""
    images = faces(4)
    augmenter = Augmenter({"mask": 1.0, "grey": 1.0}, 32, 1, CPU)
    keys = augmenter.keys(0, 1, 4)[0]
    first = build_change("mask", 32, CPU)
    expected = build_change("grey", 32, CPU)(first(images, uniforms(keys, "mask", 1 + first.draws)[:, 1:]), torch.empty(4, 0))
    assert torch.equal(augmenter(images, keys), expected)
