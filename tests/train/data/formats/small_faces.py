"""A small set of faces for the tests of formats, and what all of these look for."""

from __future__ import annotations

from tests.train.data.conftest import encoded_face

LABELS = [0, 0, 0, 1, 1, 2, 2, 2, 7]
"""Ascending, with a gap."""
IMAGES = [encoded_face(label, place) for place, label in enumerate(LABELS)]


def assert_holds_all(dataset, labels=LABELS, images=IMAGES):
    """The data set has these images, byte for byte, under these labels, in this order."""
    index = dataset.index
    assert index.original_labels[index.labels].tolist() == labels
    assert [dataset.encoded(position) for position in range(index.num_images)] == images


def counted(dataset):
    """What the data set says it passed over: kind -> count."""
    return {remark.kind: remark.count for remark in dataset.index.report.remarks}
