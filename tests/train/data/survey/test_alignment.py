from __future__ import annotations

import numpy as np
import pytest

from attfc_train.data.decode import decode, decode_whole
from attfc_train.data.source import open_dataset
from attfc_train.data.survey.alignment import MEAN_FACE, SIDE, band_passed, guess_alignment
from attfc_train.evaluate.align import TEMPLATE, aligned

COUNT = 120
"""People; those of odd rank, whom `MEAN_FACE` was not made from."""


@pytest.fixture(scope="module")
def crops(faces):
    """Aligned crops, uint8 [112, 112, 3], one of each of 120 people."""
    dataset = open_dataset(str(faces / "lfw_train"))
    people = range(1, 2 * COUNT, 2)
    return [decode_whole(dataset.encoded(int(dataset.index.members_of(person)[0]))) for person in people]


def moved(crop, scale=1.0, angle=0.0, right=0.0, down=0.0):
    """The crop with its face enlarged about the middle, turned (degrees) and moved; mirrored beyond its edges."""
    pad = 60
    mirrored = np.pad(crop, ((pad, pad), (pad, pad), (0, 0)), mode="reflect")
    # `aligned` brings these landmarks to the template: the inverse of the movement that is wanted.
    points = (TEMPLATE[:, 0] + 1j * TEMPLATE[:, 1]) - (55.5 + 55.5j) - (right + 1j * down)
    back = points / (scale * np.exp(1j * np.deg2rad(angle))) + (55.5 + 55.5j) + (pad + 1j * pad)
    return aligned(mirrored, np.stack([back.real, back.imag], axis=1), 112)


def guess(pictures):
    small = np.stack([decode(np.ascontiguousarray(picture), SIDE) for picture in pictures])
    return guess_alignment(small, len(pictures))


def jittered(crops, amount):
    rng = np.random.default_rng(3)
    turns, sizes, rights, downs = rng.uniform(-1, 1, (4, len(crops))) * amount
    return [
        moved(crop, np.exp(0.25 * size), 20 * turn, 12 * right, 12 * down)
        for crop, turn, size, right, down in zip(crops, turns, sizes, rights, downs, strict=True)
    ]


def test_the_mean_face_is_one():
    assert MEAN_FACE.shape == (26, 26)
    assert np.allclose(MEAN_FACE, MEAN_FACE[:, ::-1])
    assert abs(MEAN_FACE.sum()) < 0.3
    assert (MEAN_FACE**2).sum() == pytest.approx(1)


def test_waves_have_no_light_and_no_contrast():
    pictures = np.random.default_rng(0).integers(0, 120, (3, SIDE, SIDE, 3)).astype(np.uint8)
    assert np.allclose(band_passed(pictures), band_passed(2 * pictures + 10), atol=1e-12)
    assert not band_passed(np.full((1, SIDE, SIDE, 3), 200, np.uint8)).any()


def test_aligned_faces_of_others_are_recognised(crops):
    assert guess(crops).verdict == "aligned"
    assert (
        guess([np.repeat(crop.mean(axis=2, keepdims=True), 3, axis=2).astype(np.uint8) for crop in crops]).verdict == "aligned"
    )


def test_nearly_aligned_faces_too(crops):
    """Another detector's landmarks differ by a pixel or two."""
    assert guess(jittered(crops, 0.1)).verdict == "aligned"


def test_faces_at_different_places_are_not(crops):
    found = guess(jittered(crops, 1.0))
    assert found.verdict == "not aligned"
    assert "blur" in found.reason


@pytest.mark.parametrize(
    ("movement", "words"),
    [
        ({"scale": 1.4}, "times as large"),
        ({"scale": 0.7}, "times as large"),
        ({"down": 8}, "lower"),
        ({"down": -8}, "higher"),
        ({"right": 8}, "further right"),
    ],
)
def test_faces_that_are_cropped_alike_but_elsewhere_are_not(crops, movement, words):
    """A detector's boxes, and the centre of a photograph: sharp, but not the template."""
    found = guess([moved(crop, **movement) for crop in crops])
    assert found.verdict == "not aligned"
    assert words in found.reason


def test_upside_down_and_noise_are_not(crops):
    assert "no upright face" in guess([crop[::-1] for crop in crops]).reason
    noise = np.random.default_rng(1).integers(0, 256, (60, 112, 112, 3), dtype=np.uint8)
    assert guess(noise).verdict == "not aligned"


def test_between_both_it_does_not_say(crops):
    assert guess([moved(crop, down=3) for crop in crops]).verdict == "cannot tell"
    mixed = [*crops[: COUNT * 6 // 10], *jittered(crops, 1.5)[COUNT * 6 // 10 :]]
    assert guess(mixed).verdict != "aligned"


def test_too_few_to_say(crops):
    assert guess(crops[:39]).verdict == "cannot tell"
    assert guess_alignment(np.zeros((50, SIDE, SIDE, 3), np.uint8), 9).verdict == "cannot tell"
