"""Micro-batches: of a whole batch, and of the two halves of a paired one."""

from __future__ import annotations

import torch

from attfc_train.data.batch import Batch


def paired_batch(size: int) -> Batch:
    """A batch in which every image is its own number."""
    query = torch.arange(size, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 2, 2).contiguous()
    flips = (torch.arange(size) % 3 == 0)[None]
    return Batch(query, torch.empty(0, size, 3, 2, 2, dtype=torch.uint8), flips, 100 + torch.arange(size))


def test_a_paired_batch_is_scored_against_its_other_half() -> None:
    """Catches a half that is its own reference, labels of the wrong half, and parts that tear pairs apart."""
    batch = paired_batch(12)
    parts = list(batch.split(4, paired=True))
    assert [part.query[:, 0, 0, 0].tolist() for part in parts] == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11]]
    assert [part.references[0, :, 0, 0, 0].tolist() for part in parts] == [[6, 7, 8], [9, 10, 11], [0, 1, 2], [3, 4, 5]]
    for part in parts:
        images = torch.stack([part.query, *part.references])[..., 0, 0, 0].long()
        assert torch.equal(part.labels, 100 + images)
        assert torch.equal(part.flips, images % 3 == 0)


def test_no_image_is_copied() -> None:
    """Catches a gather of images: a batch of them is some hundred MiB."""
    batch = paired_batch(8)
    storage = batch.query.untyped_storage().data_ptr()
    for part in batch.split(2, paired=True):
        assert part.query.untyped_storage().data_ptr() == storage
        assert part.references.untyped_storage().data_ptr() == storage


def test_a_whole_batch_is_cut_in_order() -> None:
    batch = paired_batch(6)
    parts = list(batch.split(3))
    assert [part.labels.tolist() for part in parts] == [[100, 101], [102, 103], [104, 105]]
    assert all(part.references.shape[:2] == (0, 2) for part in parts)
