"""The draw: distinct, uniform, a function of its key; the positives are always in it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attfc_train.heads.partial_fc.class_sample import draw_classes, with_positives
from attfc_train.heads.partial_fc.settings import num_sampled

CPU = torch.device("cpu")


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_classes_are_distinct(data: st.DataObject) -> None:
    num_ids = data.draw(st.integers(2, 3000))
    count = data.draw(st.integers(1, num_ids))
    key = data.draw(st.integers(0, 2**70))
    classes = draw_classes(num_ids, count, key, CPU)
    assert classes.shape == (count,)
    assert classes.dtype == torch.int64
    assert classes.unique().numel() == count
    assert 0 <= int(classes.min()) <= int(classes.max()) < num_ids
    assert torch.equal(classes, draw_classes(num_ids, count, key, CPU))


@pytest.mark.parametrize(("num_ids", "count"), [(40, 9), (41, 37), (97, 10)])
def test_classes_and_pairs_of_classes_are_equally_likely(num_ids: int, count: int) -> None:
    draws = 4000
    seen = torch.zeros(draws, num_ids, dtype=torch.float64)
    for key in range(draws):
        seen[key, draw_classes(num_ids, count, key, CPU)] = 1
    single = seen.sum(0)
    pairs = (seen.t() @ seen)[~torch.eye(num_ids, dtype=torch.bool)]
    assert_binomial(single, draws, count / num_ids)
    assert_binomial(pairs, draws, count * (count - 1) / (num_ids * (num_ids - 1)))


def assert_binomial(counts: torch.Tensor, draws: int, chance: float) -> None:
    deviations = (counts - draws * chance) / (draws * chance * (1 - chance)) ** 0.5
    assert deviations.abs().max() < 5
    assert 0.7 < deviations.std() < 1.3


def test_steps_and_seeds_draw_others() -> None:
    draws = [draw_classes(1000, 100, key, CPU).sort().values for key in (0, 1, 2, 0x9E3779B1, 0x9E3779B2)]
    shared = [torch.isin(a, b).sum().item() for i, a in enumerate(draws) for b in draws[:i]]
    assert max(shared) < 30


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_positives_replace_others(data: st.DataObject) -> None:
    num_ids = data.draw(st.integers(2, 60))
    labels = torch.tensor(data.draw(st.lists(st.integers(0, num_ids - 1), min_size=1, max_size=80)))
    count = num_sampled(num_ids, data.draw(st.floats(1e-6, 1)), len(labels))
    drawn = draw_classes(num_ids, count, data.draw(st.integers(0, 99)), CPU)
    classes = with_positives(drawn, labels)
    assert torch.isin(labels, classes).all()
    assert classes.shape == (count,)
    assert classes.unique().numel() == count
    moved = classes != drawn
    assert torch.isin(classes[moved], labels).all(), "only a positive takes the place of another class"
    assert not torch.isin(drawn[moved], labels).any()


@pytest.mark.parametrize(
    ("num_ids", "rate", "batch_size", "expected"),
    [(1000, 0.1, 8, 100), (1000, 0.1, 128, 128), (50, 0.1, 128, 50), (1001, 1.0, 8, 1001), (10**6, 1e-6, 16, 16)],
)
def test_number_of_classes(num_ids: int, rate: float, batch_size: int, expected: int) -> None:
    assert num_sampled(num_ids, rate, batch_size) == expected
