"""The similarity is Umeyama's, and the crop is what bilinear interpolation by its definition gives."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attfc_train.evaluate.align import TEMPLATE, aligned, similarity


def umeyama(source, target):
    """Umeyama (1991), eq. 40 to 42, in float64: the 2 x 3 matrix of the similarity from source to target."""
    source, target = source.astype(np.float64), target.astype(np.float64)
    centred, wanted = source - source.mean(0), target - target.mean(0)
    u, values, v = np.linalg.svd(wanted.T @ centred / len(source))
    signs = np.array([1.0, np.sign(np.linalg.det(u) * np.linalg.det(v))])
    rotation = u @ np.diag(signs) @ v
    scale = (values * signs).sum() / centred.var(axis=0).sum()
    return np.concatenate([scale * rotation, (target.mean(0) - scale * rotation @ source.mean(0))[:, None]], axis=1)


def matrix_of(landmarks, size):
    factor, shift = similarity(landmarks, size)
    return np.array([[factor.real, -factor.imag, shift.real], [factor.imag, factor.real, shift.imag]])


coordinates = st.floats(-500, 500, allow_nan=False, width=32)


@settings(deadline=None, max_examples=100)
@given(st.lists(st.tuples(coordinates, coordinates), min_size=5, max_size=5, unique=True), st.sampled_from([112, 96, 224]))
def test_it_is_umeyama(points, size):
    landmarks = np.array(points)
    singular = np.linalg.svd((landmarks - landmarks.mean(0)).T @ (TEMPLATE - TEMPLATE.mean(0)), compute_uv=False)
    if singular.min() < 1e-3 * singular.max() + 1e-9:
        return  # on a line, or equally near mirrored: the best rotation is not one
    assert np.allclose(matrix_of(landmarks, size), umeyama(landmarks, TEMPLATE * size / 112), rtol=1e-9, atol=1e-6)


def test_it_is_what_scikit_image_estimates():
    transform = pytest.importorskip("skimage.transform")
    rng = np.random.default_rng(0)
    for _ in range(20):
        landmarks = TEMPLATE * rng.uniform(0.5, 5) + rng.normal(0, 4, (5, 2)) + rng.uniform(-50, 300, 2)
        estimate = transform.SimilarityTransform.from_estimate(landmarks, TEMPLATE)
        assert np.allclose(matrix_of(landmarks, 112), estimate.params[:2], rtol=1e-9, atol=1e-9)


def by_definition(pixels, landmarks, size):
    """The crop in float64, pixel by pixel; black outside."""
    matrix = np.concatenate([umeyama(landmarks, TEMPLATE * size / 112), [[0, 0, 1]]])
    back = np.linalg.inv(matrix)
    crop = np.zeros((size, size, 3))
    height, width = pixels.shape[:2]
    for y in range(size):
        for x in range(size):
            u, v, _ = back @ [x, y, 1]
            column, row = int(np.floor(u)), int(np.floor(v))
            for i, j in ((0, 0), (0, 1), (1, 0), (1, 1)):
                if 0 <= row + i < height and 0 <= column + j < width:
                    crop[y, x] += abs(1 - i - (v - row)) * abs(1 - j - (u - column)) * pixels[row + i, column + j]
    return crop


@pytest.mark.parametrize("size", [32, 48])
def test_the_crop_is_the_definition(size):
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 256, (70, 90, 3), dtype=np.uint8)
    landmarks = TEMPLATE * 0.6 + rng.normal(0, 2, (5, 2)) + [12, -6]
    difference = np.abs(aligned(pixels, landmarks, size) - by_definition(pixels, landmarks, size))
    assert difference.max() <= 0.51
    assert (by_definition(pixels, landmarks, size) == 0).any(), "some of it lies outside"


def test_the_template_itself_stays_where_it_is():
    pixels = np.random.default_rng(2).integers(0, 256, (112, 112, 3), dtype=np.uint8)
    assert np.array_equal(aligned(pixels, TEMPLATE, 112), pixels)
