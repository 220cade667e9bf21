"""Health of a container against dictionaries; the warning fires for stale centers, names a knob, and not otherwise."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from torch.nn.functional import normalize

from attfc_train.heads.attfc.settings import AttFCSettings
from attfc_train.heads.containers.container import FifoContainer
from attfc_train.heads.containers.health import Occupancy, freshness, occupancy
from attfc_train.heads.containers.staleness import LEAST_LINES, LINES_BETWEEN_WARNINGS, StalenessWatch, stale_text
from tests.oracle.container_oracle import IdentityOracle
from tests.train.heads.containers.test_container import DIM, History, centers_for, histories, make_identity


@settings(deadline=None, max_examples=60)
@given(history=histories())
def test_health_equals_dictionary(history: History) -> None:
    num_ids, size, seed, batches = history
    container, oracle = make_identity(num_ids, size, 3.3, False), IdentityOracle(num_ids, size, 3.3)
    generator = torch.Generator().manual_seed(seed)
    for step, labels in enumerate(batches):
        centers = centers_for(labels, generator)
        measured = freshness(container, centers, torch.tensor(labels), step)
        known = [row for row, label in enumerate(labels) if label in oracle.held]
        cosines = [float(centers[row].double().numpy() @ oracle.held[labels[row]][1]) for row in known]
        ages = [step - oracle.held[labels[row]][2] for row in known]
        assert measured.conflicts == pytest.approx(len(known) / len(labels))
        assert measured.cosine.item() == pytest.approx(np.mean(cosines) if known else math.nan, abs=1e-5, nan_ok=True)
        if len(set(ages)) > 1:
            assert measured.cosine_per_step.item() == pytest.approx(np.polyfit(ages, cosines, 1)[0], abs=1e-4)
        else:
            assert math.isnan(measured.cosine_per_step)
        container.enqueue(centers, torch.tensor(labels), step)
        oracle.enqueue(centers.double().numpy(), labels, step)
        ages = [step - held[2] for held in oracle.held.values()]
        held = len(oracle.held)
        assert occupancy(container, step + 1) == Occupancy(held, held, pytest.approx(np.mean(ages)), max(ages))


def test_a_ring_counts_its_identities() -> None:
    container, generator = FifoContainer(6, DIM), torch.Generator().manual_seed(0)
    assert occupancy(container, 0) == Occupancy(0, 0, 0.0, 0)
    for step, labels in enumerate([[1, 2], [2, 3]]):
        container.enqueue(centers_for(labels, generator), torch.tensor(labels), step)
    assert occupancy(container, 2) == Occupancy(4, 3, 0.5, 1)
    newest = container.slots.values[2:3]
    measured = freshness(container, torch.cat([newest, newest]), torch.tensor([2, 7]), 2)
    assert measured.conflicts == 0.5
    assert measured.cosine == pytest.approx(1)


def test_drift_is_measured_by_age() -> None:
    """Centers that turn by 0.02 radians per step, seen at ages 1 to 30, among images 60 degrees apart."""
    container = make_identity(30, 30, 1.0, False)
    labels = torch.arange(30)

    def centers_at(step: int) -> torch.Tensor:
        angle = torch.tensor(0.02 * step)
        return torch.stack([angle.cos(), angle.sin(), *torch.zeros(DIM - 2)]).repeat(30, 1)

    for step in range(30):
        container.enqueue(centers_at(step)[:1], labels[step : step + 1], step)
    spread = torch.zeros(30, DIM)
    spread[:, 2] = math.tan(math.pi / 3)
    fresh = normalize(centers_at(30) + spread, dim=1)
    measured = freshness(container, fresh, labels, 30)
    expected = [math.cos(math.pi / 3) * math.cos(0.02 * age) for age in range(1, 31)]
    assert measured.cosine.item() == pytest.approx(np.mean(expected), abs=1e-5)
    assert measured.cosine_per_step.item() == pytest.approx(np.polyfit(range(1, 31), expected, 1)[0], abs=1e-5)
    assert measured.age.item() == pytest.approx(np.mean(range(1, 31)))
    few = freshness(container, fresh[20:], labels[20:], 30)
    assert few.age.item() == pytest.approx(np.mean(range(1, 11))), "of the batch's own, not of all slots"


def watch_of(batch_size: int) -> StalenessWatch:
    return StalenessWatch(batch_size, lambda *_: "stale")


def observed(watch: StalenessWatch, lines: int, filled: float = 100, slope: float = -0.01, cosine: float = 0.4) -> list[bool]:
    return [watch.observe(filled, 30.0, cosine, slope) is not None for _ in range(lines)]


def test_stale_centers_are_said_once_in_a_while() -> None:
    told = observed(watch_of(128), 2 * LINES_BETWEEN_WARNINGS)
    assert told.index(True) == LEAST_LINES  # the first line still counts as filling
    assert sum(told) == 2


def test_small_batches_need_more_lines() -> None:
    assert observed(watch_of(16), 60).index(True) == 640 // 16


def test_no_false_alarm() -> None:
    assert not any(observed(watch_of(128), 40, slope=-0.005))
    assert not any(observed(watch_of(128), 40, slope=0.01))
    assert not any(observed(watch_of(128), 40, slope=0.02)), "older ones agree more: noise, not age"
    assert not any(observed(watch_of(128), 40, slope=math.nan, cosine=math.nan))
    watch = watch_of(128)
    assert not any(observed(watch, 1, filled=100 + line)[0] for line in range(40)), "while the container fills"


@pytest.mark.parametrize(("cosine", "slope"), [(0.01, -1e-6), (0.01, 1e-3), (0.0, 0.0), (-0.1, -1e-3), (-0.1, 1e-2)])
def test_agreement_that_is_gone_has_no_slope_but_is_said(cosine: float, slope: float) -> None:
    watch = watch_of(128)
    told = [share for _ in range(100) if (share := watch.observe(100, 1000.0, cosine, slope)) is not None]
    assert told == [1.0, 1.0]
    text = stale_text(AttFCSettings(), 0, 1000.0, 1.0)
    assert "1,000 steps old on average when a batch needs them, they agree with fresh ones no more than strangers' do" in text
    filling = (watch.observe(100 + line, 1000.0, cosine, slope) for line in range(100))
    assert not any(filling)


@pytest.mark.parametrize(
    ("settings", "momentum", "knob"),
    [
        ({}, 0.9, "raise head.encoder_momentum"),
        ({}, 0.999, "what they hold was made 2.3 refreshes before that, on average: lower head.queue_length"),
        (
            {"queue_length": 5, "queue_mode": "stored"},
            0.999,
            "made 2.0 refreshes before that, on average: lower head.queue_length",
        ),
        ({"queue_length": 3, "queue_mode": "stored"}, 0.999, "raise optim.batch_size or lower head.dcc_size"),
        ({"num_references": 0, "queue_length": 5}, 0.9, "lower head.queue_length"),
        ({"queue_length": 1}, 0.999, "raise optim.batch_size or lower head.dcc_size"),
    ],
)
def test_the_warning_names_the_knob(settings: dict[str, object], momentum: float, knob: str) -> None:
    text = stale_text(AttFCSettings.model_validate({**settings, "encoder_momentum": momentum}), 0, 40.0, 0.5)
    assert knob in text
    assert "in the 40 steps until a batch needs them again, they lose 50% of" in text
