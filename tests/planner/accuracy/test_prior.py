from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attfc_planner.accuracy.prior import BACKBONE, accuracy_parts, accuracy_prior, midpoint
from attfc_train.heads.attfc.settings import AttFCSettings
from attfc_train.heads.full_fc.settings import FullFCSettings
from attfc_train.heads.partial_fc.settings import PartialFCSettings
from attfc_train.profile.profile import BACKBONE_NAMES, DataSettings, ModelSettings, OptimSettings, TrainProfile


def profile(
    share: float = 1.0,
    batch_size: int = 384,
    references: int = 1,
    queue: float = 3.3,
    num_ids: int = 100_000,
    draw: str = "residency",
    **head_settings: Any,
) -> TrainProfile:
    head = AttFCSettings(dcc_share=share, num_references=references, queue_length=queue, **head_settings)
    data = DataSettings.model_validate({"draw": draw})
    return TrainProfile(data=data, head=head, optim=OptimSettings(batch_size=batch_size)).resolve(num_ids)


def points(**changes: Any) -> float:
    return midpoint(accuracy_prior(profile(**changes)))


@pytest.mark.parametrize(("share", "published"), [(1.0, 0), (0.3, 0), (0.2, 0), (0.1, -0.2), (0.05, -0.64)])
def test_coverage_passes_through_the_published_table(share: float, published: float) -> None:
    assert accuracy_parts(profile(share=share, draw="permutation"))[0].points == pytest.approx(published)


@pytest.mark.parametrize("share", [0.3, 0.1, 0.05])
def test_with_residency_and_batch_negatives_the_truth_is_between_nothing_and_the_published_loss(share: float) -> None:
    published = accuracy_parts(profile(share=share, draw="permutation"))[0].points
    part = accuracy_parts(profile(share=share))[0]
    assert part.points == pytest.approx(published / 2)
    assert part.points - part.half_band <= published
    assert part.points + part.half_band >= 0


@given(st.sampled_from([0.02, 0.1, 0.3, 0.5, 1.0]), st.integers(0, 2), st.sampled_from([1.0, 3.3]))
def test_eviction_costs_more_in_uniform_order_or_without_batch_negatives(share: float, references: int, queue: float) -> None:
    kept = points(share=share, references=references, queue=queue)
    assert kept >= points(share=share, references=references, queue=queue, draw="permutation")
    assert kept >= points(share=share, references=references, queue=queue, batch_negatives=False)


def test_the_published_ring_is_far_behind() -> None:
    ring = points(share=0.3, references=2, queue=1, policy="fifo", draw="reference", batch_negatives=False)
    assert ring < points(share=0.3, references=2, queue=3.3) - 3


def test_narrower_centers_cost_little_and_the_narrower_the_more() -> None:
    by_type = [points(storage=storage) for storage in ("fp32", "bf16", "int8", "fp8")]
    assert by_type == sorted(by_type, reverse=True)
    assert by_type[0] - by_type[-1] <= 0.11


@pytest.mark.parametrize(("name", "distance"), [("r100", 0), ("r50", 2.66), ("r18", 17.56)])
def test_backbones_are_as_far_apart_as_published(name: str, distance: float) -> None:
    r100 = profile()
    other = r100.model_copy(update={"model": ModelSettings(backbone=name)})
    against = midpoint(accuracy_prior(other, "r100"))
    assert against == pytest.approx(midpoint(accuracy_prior(r100.model_copy(update={"model": other.model}))) - distance)


def test_backbones_that_can_be_compared_exist() -> None:
    assert set(BACKBONE) <= set(BACKBONE_NAMES)


@given(st.floats(0.001, 1), st.floats(0.001, 1))
def test_more_identities_scored_are_never_worse(a: float, b: float) -> None:
    less, more = (accuracy_parts(profile(share=share))[0].points for share in sorted((a, b)))
    assert less <= more + 1e-9


@given(st.sampled_from([0.01, 0.1, 0.5, 1.0]), st.integers(2, 4096), st.integers(0, 4), st.floats(1, 20), st.integers(2, 10**7))
def test_nothing_beats_a_full_fc_layer_in_the_prior(
    share: float, batch: int, references: int, queue: float, num_ids: int
) -> None:
    prior = accuracy_prior(profile(share, batch, references, queue, num_ids))
    assert midpoint(prior) <= 1e-9
    assert prior.low <= prior.high
    assert "prior" in prior.source


def test_partial_fc_is_its_own_table() -> None:
    def points(sample_rate: float, batch_size: int = 128) -> list[float]:
        profile = TrainProfile(head=PartialFCSettings(sample_rate=sample_rate), optim=OptimSettings(batch_size=batch_size))
        return [part.points for part in accuracy_parts(profile.resolve(2_059_906))]

    assert points(0.1) == [-0.20]
    assert points(0.2) == points(1.0) == [0.0]
    assert points(1e-6, 2**16)[0] > points(1e-6)[0], "a sample is at least the batch"


def test_a_full_fc_layer_is_the_measure() -> None:
    prior = accuracy_prior(TrainProfile(head=FullFCSettings()).resolve(1000))
    assert (prior.low, prior.high) == (0, 0)


def test_rows_of_fewer_bits_and_without_momentum_are_no_measure() -> None:
    """Catches a search that takes the smallest rows because nothing is said of them."""
    for kind in (FullFCSettings, PartialFCSettings):
        plain, bits, bare = (
            accuracy_prior(TrainProfile(head=kind(**changes)).resolve(1000))
            for changes in ({}, {"storage": "int8"}, {"momentum": False})
        )
        assert midpoint(bits) < midpoint(plain)
        assert bare.low < plain.low


def test_stale_centers_cost_and_a_larger_batch_refreshes_them() -> None:
    assert points(num_ids=10**7, batch_size=128) < points(num_ids=10**7, batch_size=1024) < points(num_ids=10**5)


def test_no_references_cost_more_when_slots_are_evicted() -> None:
    assert points(references=0, draw="permutation") == pytest.approx(-0.64)
    assert points(references=0, share=0.3, draw="permutation") == pytest.approx(-1.84 - 0.33)
    assert points(references=0) == pytest.approx(-0.11)
    assert points(references=0, share=0.3) == pytest.approx(-0.33)
    assert points(references=2) == points(references=1), "what it gains is not credited"


def test_the_queue_length_has_its_best_at_what_was_measured_best() -> None:
    by_length = {queue: points(queue=queue) for queue in (1, 2, 3.3, 5, 8)}
    assert max(by_length, key=by_length.__getitem__) == 3.3
