"""The contract of every `FaceDataset`: a test class inherits from `DatasetContract` and gives the `dataset` fixture."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from attfc_train.data.dataset import FaceDataset, ReadsAhead, together
from attfc_train.data.decode import decode
from attfc_train.data.identity_index import IdentityIndex


class DatasetContract:
    @pytest.fixture
    def dataset(self) -> FaceDataset:
        raise NotImplementedError

    def test_is_a_face_dataset(self, dataset):
        assert isinstance(dataset, FaceDataset)
        assert isinstance(dataset.index, IdentityIndex)
        assert isinstance(dataset.name, str)
        assert dataset.name

    def test_index_is_consistent(self, dataset):
        index = dataset.index
        assert index.num_images == len(index.labels) == len(index.members) == index.offsets[-1]
        assert sorted(np.asarray(index.members).tolist()) == list(range(index.num_images))
        assert set(np.asarray(index.labels).tolist()) == set(range(index.num_ids))
        for identity in range(min(index.num_ids, 50)):
            members = index.members_of(identity)
            assert (index.labels[members] == identity).all()
            assert (np.diff(members) > 0).all()

    def test_first_and_last_image_decode(self, dataset):
        for position in (0, dataset.index.num_images - 1):
            pixels = decode(dataset.encoded(position), 48)
            assert (pixels.shape, pixels.dtype) == ((48, 48, 3), np.uint8)

    def test_numpy_positions_are_positions(self, dataset):
        assert np.array_equal(decode(dataset.encoded(np.int64(1)), 32), decode(dataset.encoded(1), 32))

    def test_reading_keeps_no_state(self, dataset):
        positions = [0, 1, dataset.index.num_images - 1, 1, 0] * 4
        alone = [decode(dataset.encoded(position), 32) for position in positions]
        with ThreadPoolExecutor(4) as pool:
            together = list(pool.map(lambda position: decode(dataset.encoded(position), 32), positions))
        assert all(np.array_equal(*images) for images in zip(alone, together, strict=True))

    def test_images_that_are_read_together_are_those_that_are_read_apart(self, dataset):
        """Catches a record that is cut off where the next one begins, and results in the order of the file."""
        generator = np.random.default_rng(5)
        positions = generator.integers(0, dataset.index.num_images, 40)
        reader = together(dataset)
        reader.ask_for(np.sort(positions))
        for part in (positions, np.sort(positions), positions[:1], positions[:0]):
            contents = reader.encoded_together(part)
            assert len(contents) == part.size
            for position, content in zip(part.tolist(), contents, strict=True):
                assert np.array_equal(decode(content, 32), decode(dataset.encoded(position), 32))

    def test_reading_ahead_is_a_hint(self, dataset):
        whole = [decode(dataset.encoded(position), 32) for position in range(min(dataset.index.num_images, 20))]
        if isinstance(dataset, ReadsAhead):
            dataset.read_ahead(0, dataset.index.num_images)
            dataset.read_ahead(dataset.index.num_images - 1, dataset.index.num_images)
        again = [decode(dataset.encoded(position), 32) for position in range(len(whole))]
        assert all(np.array_equal(*images) for images in zip(whole, again, strict=True))

    def test_names_tell_images_apart(self, dataset):
        names = [dataset.locate(position) for position in range(min(dataset.index.num_images, 200))]
        assert len(set(names)) == len(names)
