from __future__ import annotations

import threading
from collections import namedtuple

import numpy as np
import pytest

from attfc_train.data.report import DataReport
from attfc_train.errors import DataError, StorageError
from attfc_train.evaluate.dataset_features import UNDECODABLE, Proxy, features_of
from tests.train.data.conftest import Repeated

LABELS = [4, 1, 1, 4, 0, 4, 1, 1, 0]


def by_colour(images):
    """Features that tell an image's position in a data set of `Repeated`."""
    return np.stack([images[:, 0, 0, 0].numpy(), np.ones(len(images))], axis=1).astype(np.float32)


def taken(dataset, folder, batch_size=2, report=None, advance=lambda _: None, embed=by_colour):
    proxy = Proxy(embed, 8, 2, batch_size, num_workers=2)
    return features_of(dataset, proxy, folder, report or DataReport("colours"), advance)


@pytest.mark.parametrize("batch_size", [1, 2, 9, 50])
def test_rows_are_grouped_by_identity(tmp_path, batch_size):
    """Catches rows in the data set's own order, and a last batch that is left out."""
    told = []
    features = taken(Repeated(LABELS), tmp_path, batch_size, advance=told.append)
    assert features.positions.tolist() == [4, 8, 1, 2, 6, 7, 0, 3, 5]
    assert features.offsets.tolist() == [0, 2, 6, 9]
    assert features.values[:, 0].tolist() == features.positions.tolist()
    assert isinstance(features.values, np.memmap), "memory must not grow with the images"
    assert sum(told) == 9


def test_what_cannot_be_decoded_has_no_features(tmp_path):
    """Catches stand-ins taken for images, an identity without any row, and rows that move against their positions."""
    report = DataReport("colours")
    features = taken(Repeated(LABELS, broken=[1, 4, 8]), tmp_path, report=report)
    assert features.positions.tolist() == [2, 6, 7, 0, 3, 5]
    assert features.values[:, 0].tolist() == [2, 6, 7, 0, 3, 5]
    assert features.offsets.tolist() == [0, 3, 6]
    assert report.lines() == [f"{UNDECODABLE}: 3, e.g. colour 4"]


def test_no_image_at_all(tmp_path):
    with pytest.raises(DataError, match="must hold images that can be decoded, but got none"):
        taken(Repeated(LABELS, broken=range(9)), tmp_path)


def test_a_disk_that_is_too_small_is_said_before_the_work(tmp_path, monkeypatch):
    free = namedtuple("usage", "free")
    monkeypatch.setattr("attfc_train.evaluate.dataset_features.shutil.disk_usage", lambda _: free(71))
    with pytest.raises(StorageError, match=r"features of all images must fit .* set TMPDIR"):
        taken(Repeated(LABELS), tmp_path, advance=lambda _: pytest.fail("it began"))


def test_the_threads_end_with_an_interrupt(tmp_path):
    def interrupted(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        taken(Repeated(LABELS * 50), tmp_path, embed=interrupted)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("attfc-decode")]
