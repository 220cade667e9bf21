"""A read that fails is repeated, then stops the run, and never becomes another image; what cannot be decoded is replaced."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from attfc_train.data import reading
from attfc_train.data.decode import STRETCHED
from attfc_train.data.formats.folder import FolderFaces
from attfc_train.data.loader import AttentionLoader
from attfc_train.data.reading import UnreadableError, persistently
from attfc_train.data.sampling.sampler import AttentionSampler
from attfc_train.errors import DataError
from tests.train.data.test_loader import LABELS, loader_of, same


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(reading, "PAUSES", (0.01, 0.05, 0.2, 0.4))


def failing(dataset, fails):
    """Let reads fail while ``fails(position)``."""
    encoded = dataset.encoded

    def read(position):
        if fails(position):
            raise UnreadableError("it must be readable", "Stale file handle", "Check it.")
        return encoded(position)

    dataset.encoded = read
    return dataset


def test_a_read_is_repeated_until_it_succeeds():
    answers = [1, 2, 3, 4]

    def read():
        if len(answers) > 1:
            raise UnreadableError(str(answers.pop()), "x", "y")
        return "content"

    pauses = []
    assert persistently(read, pauses.append) == "content"
    assert pauses == list(reading.PAUSES[:3])


def test_a_read_that_never_succeeds_is_the_last_error():
    calls = []

    def read():
        calls.append(len(calls))
        raise UnreadableError(f"attempt {len(calls)}", "x", "y")

    with pytest.raises(UnreadableError, match="attempt 5"):
        persistently(read, lambda _: None)
    with pytest.raises(UnreadableError, match="attempt 6"):
        persistently(read, lambda _: True)


def test_a_damaged_record_is_not_read_again():
    calls = []

    def read():
        calls.append(0)
        raise DataError("a", "b", "c")

    with pytest.raises(DataError):
        persistently(read, lambda _: pytest.fail("no need to wait"))
    assert calls == [0]


@pytest.mark.parametrize("cache_bytes", [0, 10**6])
def test_reads_that_fail_for_a_moment_change_nothing(colours, cache_bytes):
    """Catches a failed read that is taken for a damaged image, which replaced it to the end of the run."""
    expected = list(loader_of(colours(LABELS), cache_bytes=cache_bytes).batches(0, 6))
    since = time.monotonic()
    loader = loader_of(failing(colours(LABELS), lambda _: time.monotonic() < since + 0.15), cache_bytes=cache_bytes)
    assert all(same(*pair) for pair in zip(loader.batches(0, 6), expected, strict=True))
    assert loader.corrupt.replaced == 0
    assert loader.news() is None


def test_a_folder_that_is_away_for_a_moment(face_folder):
    dataset = FolderFaces(face_folder)

    def batches():
        loader = AttentionLoader(dataset, AttentionSampler(dataset.index, 0, 8, 2), 16, num_workers=2)
        return loader, loader.batches(0, 4)

    expected = list(batches()[1])
    (face_folder / "c").rename(face_folder / ".away")
    back = threading.Timer(0.15, (face_folder / ".away").rename, [face_folder / "c"])
    back.start()
    loader, again = batches()
    assert all(same(*pair) for pair in zip(again, expected, strict=True))
    back.join()
    assert loader.corrupt.replaced == 0


@pytest.mark.parametrize("num_workers", [1, 4])
def test_reads_that_go_on_failing_stop_the_run_with_their_name(colours, num_workers):
    loader = loader_of(failing(colours(LABELS), lambda position: position == 7), num_workers=num_workers, batch_size=16)
    before = time.monotonic()
    with pytest.raises(UnreadableError, match="Stale file handle"):
        list(loader.batches(0, 50))
    assert time.monotonic() - before < 3, "the others need not wait as long, one after the other"
    assert loader.corrupt.replaced == 0


def test_closing_does_not_wait_for_reads_that_fail(colours, monkeypatch):
    monkeypatch.setattr(reading, "PAUSES", (30.0,))
    loader = loader_of(failing(colours(LABELS), lambda position: position == 7), num_workers=2, prefetch_batches=8)
    batches = loader.batches(0, 50)
    closing = threading.Timer(0.3, loader._reader.closing.set)
    closing.start()
    before = time.monotonic()
    with pytest.raises(UnreadableError):
        list(batches)
    assert time.monotonic() - before < 5


def test_news_are_told_once_and_counted(colours):
    loader = loader_of(colours(LABELS, broken=(2, 8)), num_references=0, batch_size=16)
    batches = loader.batches(0, 3)
    assert loader.news() is None
    next(batches)
    (line,) = loader.news()
    reason = "8 bytes that cannot be decoded (cannot identify image file)"
    assert (loader.corrupt.drawn, loader.corrupt.replaced) == (16, 2)
    assert line.startswith("2 of 16 images drawn replaced by others of their identity: colour ")
    assert line.count(reason) == 2
    assert loader.news() is None
    next(batches)
    assert loader.news() == ()
    assert (loader.corrupt.drawn, loader.corrupt.replaced) == (32, 4), "counted again, but not said again"


def test_stretched_images_are_said_once_and_counted_by_image(colours):
    dataset = colours(LABELS)
    encoded = dataset.encoded
    dataset.encoded = lambda position: encoded(position)[:4] if position in (3, 5) else encoded(position)
    loader = loader_of(dataset, num_references=0, batch_size=16, num_workers=1)
    batches = loader.batches(0, 3)
    next(batches)
    assert loader.news() == (f"{STRETCHED}: 2, e.g. colour 3",)
    next(batches)
    assert loader.news() is None
    assert loader.notes == {STRETCHED: 2}


def test_an_identity_without_a_decodable_image_is_said(colours):
    """Where a set is too large to try every identity when it is opened."""
    loader = loader_of(colours(LABELS, broken=(15,)), num_references=0, batch_size=16)
    next(loader.batches(0, 1))
    assert loader.news()[1] == "images made grey, because none of their identity can be decoded: 1, e.g. colour 15"


def test_any_other_image_of_the_identity_stands_in(colours):
    """Catches giving up after 32: 100 in a row cannot be decoded, and the last one can."""
    labels = np.repeat([0, 1], [101, 2])
    loader = loader_of(colours(labels, broken=range(100)), num_references=0, batch_size=103, max_corrupt_share=1)
    batch = next(loader.batches(0, 1))
    assert set(batch.query[:, 0, 0, 0].tolist()) == {100, 101, 102}
