"""Decoding on the GPU: a decoder of the same contract in place of it, through the same code; there was no GPU to run it on."""

from __future__ import annotations

import dataclasses
import types

import numpy as np
import pytest
import torch

from attfc_train.data import card as cards
from attfc_train.data.card import Card, check, open_card, torchvision_decode
from attfc_train.data.decode import decode_whole
from attfc_train.data.identity_index import IdentityIndex
from attfc_train.data.loader import AttentionLoader
from attfc_train.data.sampling.sampler import AttentionSampler
from attfc_train.errors import UsageError
from tests.train.data.test_loader import same

CPU = torch.device("cpu")
SIZE = 32
LABELS = np.arange(24) % 4


class FakeIo:
    """What is used of ``torchvision.io``: lists of uint8 tensors in, RGB planes out, nothing at all where one is damaged."""

    ImageReadMode = types.SimpleNamespace(RGB="RGB")

    def __init__(self):
        self.asked = []

    def decode_jpeg(self, files, mode, device):
        assert mode == "RGB"
        assert all(file.dtype == torch.uint8 and file.ndim == 1 and file.device == CPU for file in files)
        self.asked.append(len(files))
        if any(b"damaged" in file.numpy().tobytes() for file in files):
            raise RuntimeError("nvjpegDecode failed: 5")
        return [torch.from_numpy(decode_whole(file.numpy().tobytes())).permute(2, 0, 1).to(device) for file in files]


class Files:
    """A data set of files, by position."""

    name = "files"

    def __init__(self, contents):
        self.index = IdentityIndex.from_labels(LABELS)
        self.contents = contents

    def encoded(self, position):
        return self.contents[position]

    def locate(self, position):
        return f"file {position}"


@pytest.fixture
def files(face_file):
    contents = [face_file(int(label), place, SIZE) for place, label in enumerate(LABELS)]
    contents[3] = face_file(3, 3, SIZE, "PNG")
    contents[6] = face_file(2, 6, 48)
    return Files(contents)


def batches_of(dataset, card, **options):
    sampler = AttentionSampler(dataset.index, 3, 12, 1)
    loader = AttentionLoader(dataset, sampler, SIZE, num_workers=2, card=card, max_corrupt_share=1, **options)
    return loader, list(loader.batches(0, 5))


def test_batches_are_those_of_the_host(files):
    """Catches images in other rows, repeated ones that stay empty, and other sizes and formats that are lost."""
    io = FakeIo()
    _, expected = batches_of(files, None)
    loader, found = batches_of(files, Card(CPU, torchvision_decode(io, CPU)), cache_bytes=10**9)
    assert all(same(*pair) for pair in zip(found, expected, strict=True))
    assert max(io.asked) > 10, "a batch at once"
    assert loader.waiting.decode > 0


def test_what_cannot_be_decoded_there_is_the_hosts_and_then_replaced(files, face_file):
    whole = face_file(1, 5, SIZE)
    files.contents[5] = whole + b"damaged"  # for the other decoder alone: bytes behind the end
    files.contents[8] = face_file(0, 8, SIZE)[:-60] + b"damaged"
    with_host, expected = batches_of(files, None)
    loader, found = batches_of(files, Card(CPU, torchvision_decode(FakeIo(), CPU)))
    assert all(same(*pair) for pair in zip(found, expected, strict=True))
    assert loader.corrupt.replaced == with_host.corrupt.replaced > 0
    assert sorted(loader.corrupt.examples) == sorted(with_host.corrupt.examples)


def test_a_full_gpu_is_no_damaged_image():
    def decode(contents):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        Card(CPU, decode).decoded([b"a", b"b"], SIZE)


def test_a_cpu_is_refused():
    with pytest.raises(UsageError, match="must find a GPU, and torchvision with nvJPEG, but got the device cpu"):
        open_card(CPU)


def test_libraries_that_are_not_there_are_refused(monkeypatch):
    def missing(name):
        raise ModuleNotFoundError(f"No module named '{name}'")

    monkeypatch.setattr(cards.importlib, "import_module", missing)
    with pytest.raises(UsageError, match=r"No module named 'torchvision.io'.*pip install torchvision"):
        open_card(torch.device("cuda"))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda image: image.flip(0), "pixels differ"),
        (lambda image: image.transpose(1, 2), "pixels differ"),
        (lambda image: image.to(torch.float32), "pixels differ"),
        (lambda image: image[:1], "no image"),
    ],
)
def test_a_decoder_of_other_pixels_is_refused(change, expected):
    decode = torchvision_decode(FakeIo(), CPU)
    check(Card(CPU, decode))
    with pytest.raises(UsageError, match=expected):
        check(Card(CPU, lambda contents: [change(image) for image in decode(contents)]))


def test_a_decoder_that_takes_no_lists_is_refused():
    def decode(contents):
        raise TypeError("decode_jpeg() takes a Tensor")

    with pytest.raises(UsageError, match="takes a Tensor"):
        check(Card(CPU, decode))


def test_the_batch_says_nothing_of_where_it_was_decoded(files):
    _, (batch, *_) = batches_of(files, Card(CPU, torchvision_decode(FakeIo(), CPU)))
    assert {field.name for field in dataclasses.fields(batch)} == {"query", "references", "flips", "labels", "keys", "clock"}
    assert batch.query.is_contiguous()
