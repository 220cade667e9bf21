from __future__ import annotations

import time

import numpy as np
import pytest
import torch

from attfc_train.data.batch import Batch
from attfc_train.data.waiting import Means, TransferClock, Waiting, divided
from tests.train.data.test_loader import LABELS, loader_of

MEANS = Means(threads=8, cores=8, decoded_bytes=10**6, is_cached=False)


def test_a_wait_is_divided_as_the_work_is():
    assert divided(3.0, 10.0, 5.0) == Waiting(read=2.0, decode=1.0)
    assert divided(3.0, 0.0, 0.0) == Waiting(decode=3.0)


def test_shares_add_up():
    shares = Waiting(1.0, 2.0, 0.5).shares(10.0)
    assert shares == {
        "data_wait_share": 0.35,
        "read_wait_share": 0.1,
        "decode_wait_share": 0.2,
        "transfer_wait_share": 0.05,
    }


@pytest.mark.parametrize(
    ("waited", "means", "expected"),
    [
        (
            Waiting(1.0, 6.0, 0.0),
            MEANS,
            "waited 35% of the time for data: 86% of it for decoding, 14% for the disk; more cores",
        ),
        (Waiting(1.0, 6.0, 0.0), MEANS, "data.cache_bytes=1000000, which keeps"),
        (Waiting(0.0, 6.0, 0.0), Means(2, 8, 10**18, False), "data.num_workers=8 decodes with 8 cores in place of 2"),
        (Waiting(0.0, 6.0, 0.0), Means(16, 64, 10**18, False), "data.num_workers=64 decodes with 64 cores in place of 16"),
        (Waiting(0.0, 6.0, 0.0), Means(256, 300, 10**18, False), "more cores than 300"),
        (
            Waiting(0.0, 6.0, 0.0),
            Means(2, 8, 10**6, False, on_card=True),
            "--set data.device=cpu decodes with 8 cores of the host",
        ),
        (Waiting(0.0, 6.0, 0.0), Means(8, 8, 10**6, True), "the first epoch's alone"),
        (Waiting(6.0, 1.0, 0.0), MEANS, "data group"),
        (Waiting(0.0, 1.0, 6.0), MEANS, "86% of it for the copy to the device, 14% for decoding; look whether the card"),
    ],
)
def test_advice_is_about_what_takes_longest(waited, means, expected):
    line = means.advice(waited, 20.0)
    assert expected in line
    assert "\n" not in line


def test_no_advice_where_nothing_is_to_gain():
    assert MEANS.advice(Waiting(0.1, 0.8, 0.0), 20.0) is None
    assert "cache_bytes" not in Means(8, 8, 10**18, False).advice(Waiting(0.0, 6.0, 0.0), 20.0)


def test_parts_that_overlap_are_no_more_than_all_the_time():
    """Catches 140 % of the time: a GPU copies one batch while the host waits for the next."""
    shares = Waiting(2.0, 7.0, 5.0).shares(10.0)
    assert shares["data_wait_share"] == 1
    assert sum(shares.values()) == pytest.approx(2)
    assert MEANS.advice(Waiting(2.0, 7.0, 5.0), 10.0).startswith("waited 100% of the time for data: 50% of it for decoding")


@pytest.mark.parametrize("slow", ["read", "decode"])
def test_the_loader_tells_the_disk_from_the_decoding(colours, slow, monkeypatch):
    """Catches times that are added to the other part, or taken while nobody waits."""
    dataset = colours(LABELS)
    if slow == "read":
        encoded = dataset.encoded
        dataset.encoded = lambda position: time.sleep(0.003) or encoded(position)
    else:
        monkeypatch.setattr("attfc_train.data.reader.decode", lambda pixels, *_: time.sleep(0.003) or pixels)
    loader = loader_of(dataset, num_workers=1)
    list(loader.batches(0, 4))
    assert getattr(loader.waiting, slow) > 0.75 * loader.waiting.total > 0.03
    assert loader.waiting.transfer == 0.0


def test_the_copy_to_the_device_is_timed():
    clock = TransferClock()
    batch = Batch(*(torch.zeros(2) for _ in range(4)), clock=clock)

    class Slow:
        def to(self, *_arguments, **_options):
            time.sleep(0.02)
            return torch.zeros(2)

    Batch(Slow(), *(torch.zeros(2) for _ in range(3)), clock=clock).to(torch.device("cpu"))
    assert 0.02 <= clock.seconds < 5
    before = clock.seconds
    batch.to(torch.device("cpu"))
    assert clock.seconds < before + 0.02
    assert np.isfinite(clock.seconds)
