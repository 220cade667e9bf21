from __future__ import annotations

import threading
import time

import numpy as np
import pytest
import torch

from attfc_train.data.batch import Batch
from attfc_train.data.formats.synthetic import SyntheticFaces
from attfc_train.data.loader import AttentionLoader
from attfc_train.data.reader import GREY, ImageReader
from attfc_train.data.sampling.sampler import AttentionSampler
from attfc_train.errors import DataError

LABELS = [0] * 6 + [1] * 5 + [2] * 4 + [3]


@pytest.fixture(autouse=True)
def no_thread_is_left():
    """Those that were there before, of other tests, count for nothing."""
    before = set(threading.enumerate())
    yield
    own = set(threading.enumerate()) - before
    assert not [thread for thread in own if thread.name.startswith("attfc-decode")]


def loader_of(dataset, batch_size=7, num_references=2, seed=3, **options) -> AttentionLoader:
    sampler = AttentionSampler(dataset.index, seed, batch_size, num_references)
    return AttentionLoader(dataset, sampler, **{"image_size": 8, "num_workers": 2, **options})


def same(batch: Batch, other: Batch) -> bool:
    return all(torch.equal(getattr(batch, name), getattr(other, name)) for name in ("query", "references", "flips", "labels"))


def test_batches_hold_what_was_drawn(colours):
    dataset = colours(LABELS)
    batch = next(iter(loader_of(dataset).batches(5, 6)))
    draw = AttentionSampler(dataset.index, 3, 7, 2).draw_step(5)
    assert batch.query.shape == (7, 3, 8, 8)
    assert batch.references.shape == (2, 7, 3, 8, 8)
    assert (batch.query.dtype, batch.flips.dtype, batch.labels.dtype) == (torch.uint8, torch.bool, torch.int64)
    assert batch.query.is_contiguous()
    assert batch.query[:, 2, 3, 4].tolist() == draw.query.tolist()
    assert batch.references[:, :, 1, 0, 7].tolist() == draw.references.tolist()
    assert batch.flips.tolist() == draw.flips.tolist()
    assert batch.labels.tolist() == draw.labels.tolist()


def test_channels_come_first():
    dataset = SyntheticFaces(4, 3)
    loader = loader_of(dataset, image_size=112)
    batch = next(iter(loader.batches(0, 1)))
    position = AttentionSampler(dataset.index, 3, 7, 2).draw_step(0).query[4]
    assert np.array_equal(batch.query[4].permute(1, 2, 0).numpy(), dataset.encoded(position))


@pytest.mark.parametrize("broken", [(), (1, 2, 7)])
def test_workers_caches_and_starts_do_not_change_batches(colours, broken):
    dataset = colours(LABELS, broken)
    expected = list(loader_of(dataset, num_workers=1, prefetch_batches=1, max_corrupt_share=1).batches(0, 12))
    for num_workers, prefetch, cache_bytes in [(1, 5, 10**6), (3, 1, 0), (5, 64, 10**6)]:
        options = {"num_workers": num_workers, "prefetch_batches": prefetch, "cache_bytes": cache_bytes, "max_corrupt_share": 1}
        loader = loader_of(dataset, **options)
        assert all(same(*pair) for pair in zip(loader.batches(0, 12), expected, strict=True))
        assert all(same(*pair) for pair in zip(loader.batches(4, 12), expected[4:], strict=True))


def test_large_batches_are_cut_into_tasks(colours):
    dataset = colours(np.arange(300) % 5)
    batches = [next(iter(loader_of(dataset, 100, 2, num_workers=workers).batches(0, 1))) for workers in (1, 4)]
    assert same(*batches)


def test_no_references(colours):
    batch = next(iter(loader_of(colours(LABELS), num_references=0).batches(0, 1)))
    assert batch.references.shape == (0, 7, 3, 8, 8)


def test_an_image_is_read_once_for_the_cache_or_once_in_a_batch(colours):
    dataset = colours(LABELS)
    reads = []
    encoded = dataset.encoded
    dataset.encoded = lambda position: reads.append(position) or encoded(position)
    loader = loader_of(dataset, num_workers=1, cache_bytes=len(LABELS) * 3 * 8 * 8)
    for _ in loader.batches(0, 20):
        pass
    assert sorted(reads) == list(range(len(LABELS)))
    reads.clear()
    loader = loader_of(dataset, num_workers=1, cache_bytes=len(LABELS) * 3 * 8 * 8 - 1)
    for _ in loader.batches(0, 20):
        pass
    drawn = [AttentionSampler(dataset.index, 3, 7, 2).draw_step(step) for step in range(20)]
    assert len(reads) == sum(len({*draw.query.tolist(), *draw.references.reshape(-1).tolist()}) for draw in drawn)


def test_stand_ins_are_the_next_readable_images_of_the_identity(colours):
    reader = ImageReader(colours([0, 1, 0, 1, 0, 1, 2], broken=(1, 3, 4, 6)), 8, 10**6)
    out = np.zeros((7, 3, 8, 8), np.uint8)
    assert reader.fill(np.arange(7), out) == [1, 3, 4, 6]
    assert out[:, 0, 0, 0].tolist() == [0, 5, 2, 5, 0, 5, GREY]
    assert reader.fill(np.array([1, 0]), out[:2]) == [1]


def test_corrupt_images_are_counted_and_named(colours):
    loader = loader_of(colours(LABELS, broken=(2, 8)), num_references=0, batch_size=16)
    for _ in loader.batches(0, 3):
        pass
    assert (loader.corrupt.drawn, loader.corrupt.replaced) == (48, 6)
    reason = "8 bytes that cannot be decoded (cannot identify image file)"
    assert sorted(loader.corrupt.examples) == [f"colour 2 ({reason})", f"colour 8 ({reason})"]


def test_only_twenty_names_are_kept(colours):
    loader = loader_of(colours(np.arange(60) % 2, broken=range(50)), batch_size=60, num_references=0, max_corrupt_share=1)
    for _ in loader.batches(0, 2):
        pass
    assert loader.corrupt.replaced == 100
    assert len(set(loader.corrupt.examples)) == 20


def test_a_run_that_goes_on_counts_on(colours):
    """Catches a share that is measured anew after every stop: a run that is stopped often would tolerate any data."""

    def broken():
        return loader_of(colours(LABELS, broken=(2, 8)), batch_size=16, num_references=0, max_corrupt_share=1)

    whole, before, after = broken(), broken(), broken()
    list(whole.batches(0, 7))
    list(before.batches(0, 4))
    after.go_on(4, before.corrupt.replaced)
    assert after.news() is None
    list(after.batches(4, 7))
    assert 0 < before.corrupt.replaced < whole.corrupt.replaced
    assert (after.corrupt.drawn, after.corrupt.replaced) == (whole.corrupt.drawn, whole.corrupt.replaced)


@pytest.mark.parametrize("num_workers", [1, 4])
def test_too_many_corrupt_images_stop_the_run_at_the_same_step(colours, num_workers):
    loader = loader_of(
        colours(LABELS, broken=(2, 8)), num_references=0, batch_size=16, num_workers=num_workers, max_corrupt_share=0.1
    )
    batches = loader.batches(0, 1000)
    for _ in range(50):
        next(batches)
    with pytest.raises(DataError, match=r"max_corrupt_share = 0.1 .* 102 of 816 drawn, among them colour") as caught:
        next(batches)
    assert "\n" not in str(caught.value)


def test_no_corrupt_image_is_tolerated_at_share_zero(colours):
    with pytest.raises(DataError, match="1 of 16 drawn, among them colour 15"):
        next(iter(loader_of(colours(LABELS, broken=(15,)), batch_size=16, num_references=0, max_corrupt_share=0).batches(0, 1)))


def test_closing_early_ends_the_threads(colours):
    """Of the threads that the loader itself began: those of other tests, which live on, count for nothing."""
    before = set(threading.enumerate())
    batches = loader_of(colours(LABELS), prefetch_batches=8).batches(0, 10**6)
    next(batches)
    own = set(threading.enumerate()) - before
    assert own
    batches.close()
    assert not [thread for thread in own if thread.is_alive()]


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, RuntimeError])
def test_an_exception_in_the_consumer_ends_the_threads(colours, interruption):
    def consume():
        for _ in loader_of(colours(LABELS)).batches(0, 10**6):
            raise interruption

    with pytest.raises(interruption):
        consume()


def test_a_bug_in_a_worker_reaches_the_consumer(colours):
    dataset = colours(LABELS)
    dataset.encoded = lambda position: 1 / 0
    with pytest.raises(ZeroDivisionError):
        next(iter(loader_of(dataset).batches(0, 3)))


def test_the_loader_works_a_bounded_number_of_batches_ahead(colours):
    dataset = colours(LABELS)
    reads = []
    encoded = dataset.encoded
    dataset.encoded = lambda position: reads.append(position) or encoded(position)
    batches = loader_of(dataset, num_references=0, prefetch_batches=2).batches(0, 100)
    next(batches)
    deadline = time.monotonic() + 5
    while len(reads) < 21 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)
    assert len(reads) == 21
    batches.close()


def test_waiting_is_measured(colours):
    dataset = colours(LABELS)
    encoded = dataset.encoded
    dataset.encoded = lambda position: time.sleep(0.004) or encoded(position)
    loader = loader_of(dataset, num_workers=1)
    assert loader.waiting.total == 0
    for _ in loader.batches(0, 2):
        pass
    assert loader.waiting.total > 0.05


def test_records_of_a_step(colours):
    dataset = colours(LABELS)
    loader = loader_of(dataset)
    batch = next(iter(loader.batches(3, 4)))
    assert loader.records_of_step(3) == [f"colour {value}" for value in batch.query[:, 0, 0, 0].tolist()]


@pytest.mark.parametrize("first_step", [0, 40])
def test_files_are_read_ahead_in_the_sequential_order(colours, first_step):
    """Catches a loader that asks the sampler for nothing, or begins in the middle of a buffer without asking for it."""
    dataset = colours(np.repeat(np.arange(100), 5))
    asked = np.zeros(500, dtype=bool)

    def read_ahead(first, stop):
        asked[first:stop] = True

    dataset.read_ahead = read_ahead
    sampler = AttentionSampler(dataset.index, 3, 7, 1, "sequential", buffer_images=128)
    loader = AttentionLoader(dataset, sampler, image_size=8, num_workers=1, prefetch_batches=2)
    for step, _ in enumerate(loader.batches(first_step, first_step + 60), start=first_step):
        assert asked[sampler.draw_step(step).query].all()
