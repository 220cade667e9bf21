from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from attfc_train.data.decode import decode_whole
from attfc_train.data.identity_index import IdentityIndex
from attfc_train.data.survey import repeats as module
from attfc_train.data.survey.findings import MOST_EXAMPLES, Findings, is_cut_off
from attfc_train.data.survey.look import label_gaps
from attfc_train.data.survey.repeats import repeats_of
from attfc_train.errors import DataError


def found(digests, positions=None):
    places = np.arange(len(digests), dtype=np.int32) if positions is None else np.array(positions)
    repeats = repeats_of(places, np.array(digests, dtype=np.uint64))
    return list(zip(repeats.others.tolist(), repeats.firsts.tolist(), strict=True))


def test_each_repeat_stands_beside_the_first():
    assert found([7, 5, 7, 9, 5, 7]) == [(2, 0), (4, 1), (5, 0)]
    assert found([7, 5, 7], positions=[10, 20, 30]) == [(30, 10)]
    assert found([1, 2, 3]) == found([]) == found([0, 0, 0]) == []
    assert found([2**64 - 1, 0, 2**64 - 1]) == [(2, 0)]


def test_blocks_are_joined(monkeypatch):
    """Against a dictionary of all digests."""
    monkeypatch.setattr(module, "_BLOCK", 7)
    digests = np.random.default_rng(0).integers(1, 60, 100).tolist()
    first = {}
    expected = [(place, first[each]) for place, each in enumerate(digests) if first.setdefault(each, place) != place]
    assert found(digests) == expected


@pytest.mark.parametrize(
    ("labels", "digests", "anyway", "left"),
    [
        ([0, 0, 1, 1], [1, 1, 2, 3], [], [0, 2, 3]),  # of one person's the first stays
        ([0, 0, 1, 1], [1, 2, 3, 1], [], [1, 2]),  # nobody knows whose it is
        ([0, 0, 1, 1], [1, 2, 1, 2], [], [0, 1]),  # one person under two labels
        ([0, 1, 0, 1], [1, 1, 2, 2], [], [0, 2]),  # also where their images come in turns
        ([0, 0, 1, 1], [1, 2, 1, 3], [1], [0, 3]),  # the damaged one was the other that 0 had
        ([0, 0, 0, 1, 1], [1, 1, 2, 1, 3], [], [2, 4]),
    ],
)
def test_what_a_clean_copy_leaves_out(labels, digests, anyway, left):
    repeats = repeats_of(np.arange(len(labels)), np.array(digests, dtype=np.uint64))
    out = np.zeros(len(labels), dtype=bool)
    out[anyway] = True
    kept = ~repeats.left_out(IdentityIndex.from_labels(labels), out)
    assert np.flatnonzero(kept).tolist() == left


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP"])
def test_cut_off_is_told_from_damaged(kind):
    file = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(file, kind)
    whole = file.getvalue()
    assert not is_cut_off(whole)
    for length in (16, len(whole) // 2, len(whole) - 40):
        with pytest.raises(DataError):
            decode_whole(whole[:length])
        assert is_cut_off(whole[:length])
    assert not is_cut_off(b"")
    assert not is_cut_off(b"no image")


def test_examples_are_bounded():
    findings = Findings()
    for place in range(MOST_EXAMPLES + 5):
        findings.add("kind", f"{place}")
    (finding,) = findings.all()
    assert (finding.count, len(finding.examples)) == (MOST_EXAMPLES + 5, MOST_EXAMPLES)
    assert findings.lines() == [f"kind: {MOST_EXAMPLES + 5:,}, e.g. 0"]


@pytest.mark.parametrize(
    ("labels", "gaps"),
    [([0, 1, 2], (0, 0)), ([1, 2], (1, 0)), ([0, 5, 6], (4, 1)), ([0, 1, 3], (1, 2)), ([-1, 1], (1, 0))],
)
def test_gaps_are_counted_from_0(labels, gaps):
    count, example = label_gaps(IdentityIndex.from_labels(labels))
    assert count == gaps[0]
    assert not count or example == gaps[1]
