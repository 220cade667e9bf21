"""The rate of a core, measured on the user's own images, and where it is kept."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from attfc_planner.speed import decode_probe
from attfc_planner.speed.decode_probe import Probed, measured_decoding, probe
from attfc_planner.speed.loading import LOADER_SHARE
from attfc_train.data.formats.joined import JoinedFaces
from attfc_train.data.formats.synthetic import SyntheticFaces
from attfc_train.data.identity_index import IdentityIndex
from attfc_train.data.reading import UnreadableError


def jpeg(side: int) -> bytes:
    file = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(noise).save(file, "JPEG", quality=95)
    return file.getvalue()


class Faces:
    """A data set of equal images, some of them damaged."""

    def __init__(self, side: int, damaged: int = 0, name: str = "faces") -> None:
        self.name = name
        self.index = IdentityIndex.from_labels(np.arange(20) % 5, marks=(str(side).encode(),))
        self._image = jpeg(side)
        self._damaged = damaged

    def encoded(self, position: int) -> bytes | NDArray[np.uint8]:
        return b"\xff\xd8nothing" if position < self._damaged else self._image

    def locate(self, position: int) -> str:
        return f"{self.name} {position}"


class Away(Faces):
    def encoded(self, position: int) -> bytes | NDArray[np.uint8]:
        raise UnreadableError("the disk must be there", "nothing", "Mount it.")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(decode_probe, "DECODE_SECONDS", 0.05)
    monkeypatch.setenv("ATTFC_CACHE_DIR", str(tmp_path / "cache"))


def test_larger_files_are_slower_and_the_rate_is_that_of_sound_images() -> None:
    """Catches a probe that does not look at the data, and one that counts what cannot be decoded."""
    small, large = probe(Faces(64), 64), probe(Faces(448, damaged=3), 64)
    assert small is not None
    assert large is not None
    assert (small.num_images, large.num_images) == (20, 17)
    assert small.images_per_second > 4 * large.images_per_second


def test_processor_time_counts_and_not_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a rate over the clock, which a busy machine or a slow disk would lower."""
    now = iter(range(10**6))
    monkeypatch.setattr(decode_probe.time, "thread_time", lambda: 0.001 * next(now))
    probed = probe(Faces(32), 32)
    assert probed is not None
    assert probed.images_per_second == pytest.approx(20 * 1000, rel=0.05), "20 images each time that it is looked at"


def test_the_decoder_is_the_loaders(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a probe of the decoder for any image, where the loader has a faster one for plain JPEGs."""

    def general(*_: object) -> None:
        raise AssertionError("not for a plain JPEG")

    monkeypatch.setattr("attfc_train.data.reader.decode", general)
    assert probe(Faces(64), 64) is not None
    with pytest.raises(AssertionError):
        probe(Faces(64), 32)


def test_a_slow_disk_leaves_images_of_every_source(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches images in the order of the data set, of which the time leaves those of the first source alone."""
    first = Faces(64, name="first")
    second = Faces(64, name="second")
    both = JoinedFaces([first, second])
    read = []
    for source in (first, second):
        monkeypatch.setattr(source, "encoded", lambda position, source=source: read.append(source.name) or jpeg(64))
    clock = iter(range(10**6))
    monkeypatch.setattr(decode_probe.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(decode_probe, "READ_SECONDS", 10)
    monkeypatch.setattr(decode_probe, "_timed", lambda *_: Probed(1.0, 1, "2026-01-01"))
    assert probe(both, 64) is not None
    assert len(read) == 11
    assert 2 < read.count("second") < 9


def test_images_that_nobody_encoded_are_measured_too() -> None:
    assert probe(SyntheticFaces(4, 3), 32) is not None


def test_what_was_measured_is_kept_for_the_same_data_and_size(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    first = measured_decoding(Faces(64), 64)
    assert first is not None
    assert first.per_core.high == pytest.approx(first.per_core.low * LOADER_SHARE.high / LOADER_SHARE.low)
    assert "images a second of a core, on 20 images of faces, 20" in first.source
    monkeypatch.setattr(decode_probe, "probe", lambda *_: None)
    assert measured_decoding(Faces(64), 64) == first
    for others in (Faces(96), Faces(64, name="other")):
        assert measured_decoding(others, 64) is None
    assert measured_decoding(Faces(64), 32) is None
    (file,) = (tmp_path / "cache").iterdir()
    document = json.loads(file.read_text())
    document["value"]["rate"] *= 2
    file.write_text(json.dumps(document))
    assert measured_decoding(Faces(64), 64) is None, "a flipped bit is not believed"


def test_nothing_that_decodes_is_no_rate_and_a_failing_read_is_an_error() -> None:
    assert probe(Faces(64, damaged=20), 64) is None
    with pytest.raises(UnreadableError):
        probe(Away(64), 64)


def test_torch_has_its_threads_back() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        probe(Faces(64), 32)
        assert torch.get_num_threads() == 2
        with pytest.raises(UnreadableError):
            probe(Away(64), 64)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
