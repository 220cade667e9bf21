from __future__ import annotations

import numpy as np
import pytest

from attfc_train.data.formats.procedural_face import render_face, traits_of
from attfc_train.data.formats.synthetic import SyntheticFaces
from attfc_train.errors import DataError, UsageError
from tests.contracts.dataset_contract import DatasetContract


class TestSyntheticFaces(DatasetContract):
    @pytest.fixture
    def dataset(self):
        return SyntheticFaces.from_spec("synthetic:6x3+10")

    def test_what_it_is(self, dataset):
        assert dataset.name == "synthetic:6x3+10"
        assert dataset.index.original_labels.tolist() == list(range(10, 16))
        assert dataset.locate(4) == "synthetic identity 11 image 1"

    def test_identities_do_not_depend_on_where_the_set_starts(self, dataset):
        whole = SyntheticFaces.from_spec("synthetic:20x3")
        assert np.array_equal(dataset.encoded(4), whole.encoded(34))


def test_images_are_different_and_reproducible():
    pictures = {(identity, image): render_face(identity, image, 32) for identity in range(4) for image in range(4)}
    assert len({picture.tobytes() for picture in pictures.values()}) == 16
    for (identity, image), picture in pictures.items():
        assert np.array_equal(picture, render_face(identity, image, 32))


@pytest.mark.parametrize("size", [32, 112, 512])
def test_any_size(size):
    picture = render_face(10**12, 2**31, size)
    assert (picture.shape, picture.dtype) == ((size, size, 3), np.uint8)
    assert picture.std() > 10


def test_traits_vary_independently():
    names = [
        "face_width",
        "face_height",
        "jaw",
        "hair_length",
        "eye_distance",
        "eye_size",
        "brow_tilt",
        "nose_width",
        "mouth_width",
    ]
    table = np.array([[getattr(traits_of(identity), name) for name in names] for identity in range(800)])
    correlation = np.corrcoef(table.T) - np.eye(len(names))
    assert np.abs(correlation).max() < 0.16


def test_raw_pixels_tell_identities_apart_badly():
    images = np.stack([render_face(identity, image, 32).reshape(-1) for identity in range(150) for image in range(2)])
    flat = images.astype(np.float64) - images.mean(1, keepdims=True)
    flat = (flat / np.linalg.norm(flat, axis=1, keepdims=True)).reshape(150, 2, -1)
    genuine = (flat[:, 0] * flat[:, 1]).sum(1)
    impostor = (flat[:, 0] * np.roll(flat[:, 1], 1, axis=0)).sum(1)
    accuracy = max((np.mean(genuine > t) + np.mean(impostor <= t)) / 2 for t in np.concatenate([genuine, impostor]))
    assert accuracy < 0.70


@pytest.mark.parametrize(
    "spec",
    [
        "synthetic:",
        "synthetic:5",
        "synthetic:5x",
        "synthetic:5x4+",
        "synthetic:-5x4",
        "synthetic:5x4x3",
        "synthetic:999999999x9",
    ],
)
def test_bad_specs(spec):
    with pytest.raises(UsageError, match="IDSxIMAGES"):
        SyntheticFaces.from_spec(spec)


@pytest.mark.parametrize("spec", ["synthetic:1x4", "synthetic:4x0"])
def test_empty_sets(spec):
    with pytest.raises(DataError, match="at least"):
        SyntheticFaces.from_spec(spec)
