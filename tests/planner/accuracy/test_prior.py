"""The accuracy prior: fitted to what is recorded, true for data sets that were left out, and silent where it knows nothing."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from functools import cache
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attfc_planner.accuracy.fitted import Fitted, fitted, stored
from attfc_planner.accuracy.prior import (
    BACKBONE,
    POINTS_PER_LOG_ODDS,
    Z,
    accuracy_parts,
    accuracy_prior,
    assumptions,
    midpoint,
)
from attfc_planner.accuracy.prior_features import FEATURES, FEWEST_VIEWS, LEVELS, PARTS, PRIORS, prior_features
from attfc_train.heads.attfc.settings import AttFCSettings
from attfc_train.heads.full_fc.settings import FullFCSettings
from attfc_train.heads.kinds import HEADS
from attfc_train.heads.partial_fc.settings import PartialFCSettings
from attfc_train.profile.prediction import Interval
from attfc_train.profile.profile import BACKBONE_NAMES, DataSettings, ModelSettings, OptimSettings, RunSettings, TrainProfile
from benchmarks.heads.page import ROOT
from benchmarks.heads.variants import VARIANTS, profile_of
from benchmarks.prior import LOG_ODDS_PER_D, PUBLISHED, Cell, HeldOut, cells, counts, fit, held_out


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


@cache
def known() -> tuple[Cell, ...]:
    return tuple(cells())


@cache
def left_out() -> tuple[HeldOut, ...]:
    return tuple(held_out(known()))


def test_the_package_holds_what_the_records_say() -> None:
    """Catches a record that came after the fit, and a fit of something else: run ``python -m benchmarks.prior``."""
    anew = stored(FEATURES, fit(known()), counts(known()))
    assert anew.features == fitted().features
    assert anew.data_sets == fitted().data_sets
    np.testing.assert_allclose(anew.mean, fitted().mean, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(anew.covariance, fitted().covariance, rtol=1e-3, atol=1e-6)
    assert anew.between_sets_variance == pytest.approx(fitted().between_sets_variance, rel=1e-3)
    assert anew.own_variance == pytest.approx(fitted().own_variance, rel=1e-3)


def test_bands_hold_on_data_sets_that_were_left_out() -> None:
    """The prior is asked about data on which nobody compared: 95 % are claimed, of few data sets."""
    rows = left_out()
    assert len(rows) > 30
    assert {row.cell.data for row in rows} >= {"lfw", "glyphs-5k", "glyphs-25k", "WebFace12M"}

    def covered(share: float) -> float:
        return float(np.mean([abs(row.observed - row.expected) <= share * row.half_band for row in rows]))

    assert covered(1.0) >= 0.9
    assert covered(0.25) < 0.9, "a quarter of the band would not do"


def test_the_docs_say_how_many_were_inside() -> None:
    """Catches figures in the text that a new fit has left behind."""
    rows = left_out()
    inside = sum(abs(row.expected - row.observed) <= row.half_band for row in rows)
    for page, text in (
        (
            "docs/planning.md",
            f"Of {len(rows)} heads on data sets that were left out of the fit, {inside} lie in their 95 % bands",
        ),
        ("CHANGELOG.md", f"{inside} of {len(rows)} heads on data sets that were left out lie in their bands"),
    ):
        assert text in " ".join((ROOT / page).read_text(encoding="utf-8").split())


def test_the_fit_knows_heads_on_data_sets_that_were_left_out() -> None:
    """Catches a fit that knows nothing: it must beat calling all heads alike."""
    rows = left_out()

    def root_mean_square(values: Iterable[float]) -> float:
        return math.sqrt(np.mean(np.square(list(values))))

    missed = root_mean_square(row.observed - row.expected for row in rows)
    assert missed < 0.75 * root_mean_square(row.observed for row in rows)


def test_a_fit_finds_what_was_put_into_cells() -> None:
    """Catches levels that leak between data sets, and noise that is taken for differences."""
    truth = {
        "identities seen rarely": 1.0,
        "sampled, to 10 %": -0.1,
        "slots, to 10 %": -0.15,
        "one slot an identity": 0.2,
        "shorter queue": -0.3,
    }
    rng = np.random.default_rng(0)
    heads = [profile_of(variant, 256, 2000, 0).resolve(5000, 116_223) for variant in VARIANTS.values()]
    rows = []
    for number in range(12):
        level = rng.normal(3, 1)
        for head in heads:
            values = prior_features(head)
            change = sum(truth.get(name, 0.0) * value for name, value in values.items())
            vector = tuple(values.get(name, 0.0) for name in FEATURES)
            rows.append(Cell(f"set {number}", 1, "", head.head.kind, vector, level + change + rng.normal(0, 0.01), 1e-4))
    found = fit(rows)
    for name, value in zip(FEATURES, found.mean, strict=True):
        if name != "age of centers":  # hardly differs among these heads
            assert value == pytest.approx(truth.get(name, 0.0), abs=0.06), name


@pytest.mark.parametrize("data", PUBLISHED)
def test_published_losses_of_partial_fc_lie_in_the_band(data: str) -> None:
    num_ids, num_images, batch_size, table = PUBLISHED[data]
    best = max(table)

    def log_odds(percent: float) -> float:
        return LOG_ODDS_PER_D * NormalDist().inv_cdf(percent / 100)  # the table's figures are true accept rates

    def prior(rate: float) -> Interval:
        head, optim = PartialFCSettings(sample_rate=rate), OptimSettings(batch_size=batch_size)
        return accuracy_prior(TrainProfile(head=head, optim=optim).resolve(num_ids, num_images))

    for rate, percent in table.items():
        published = POINTS_PER_LOG_ODDS * (log_odds(percent) - log_odds(table[best]))
        low, high = (end - midpoint(prior(best)) for end in (prior(rate).low, prior(rate).high))
        assert low <= published <= high


def test_every_kind_of_head_has_features_that_are_fitted_and_shown() -> None:
    """Catches a feature that no part shows, one that the file does not have, and a full FC layer that is not the measure."""
    assert fitted().features == FEATURES
    assert len(FEATURES) == len(set(FEATURES)) == sum(map(len, PARTS.values()))
    for kind, head in HEADS.items():
        values = prior_features(TrainProfile(head=head.settings()).resolve(1000))
        assert set(values) <= set(FEATURES), kind
        assert any(values.get(name) for name in LEVELS) == (kind not in ("full_fc", "partial_fc"))


def test_parts_add_up_and_hang_together() -> None:
    """Catches a part that is left out of the sum, and a band that is put together as if parts were independent."""
    for each in (profile(), profile(0.05, references=0, storage="int8"), profile(0.3, draw="permutation", batch_size=64)):
        parts, prior = accuracy_parts(each), accuracy_prior(each)
        assert sum(part.points for part in parts) == pytest.approx(midpoint(prior), abs=2e-3)
        half = (prior.high - prior.low) / 2
        mean, variance = fitted().moments(prior_features(each))
        others = math.hypot(*(part.half_band for part in parts if part.name in ("your data and setting", "batch size")))
        assert half == pytest.approx(math.hypot(POINTS_PER_LOG_ODDS * Z * math.sqrt(variance), others), abs=2e-3)
        assert POINTS_PER_LOG_ODDS * mean == pytest.approx(sum(part.points for part in parts if part.name != "batch size"))


def test_what_the_comparisons_showed_is_in_the_prior() -> None:
    """Orders that every comparison so far has found."""
    ring = points(share=0.3, references=2, queue=1, policy="fifo", draw="reference", batch_negatives=False)
    assert ring < points(share=0.3, references=2)
    assert points(share=0.1, references=0) > points(share=0.1)
    assert points(references=0, slot_rate=1.0) > points(references=0)
    assert points(queue=1) < points(queue=2) < points()
    assert points(share=0.05) < points(share=0.3)
    assert points(share=0.05, draw="permutation") < points(share=0.05)
    assert points(share=0.05, batch_negatives=False) < points(share=0.05)


@given(st.floats(0.001, 1), st.floats(0.001, 1))
def test_more_identities_scored_are_never_worse(a: float, b: float) -> None:
    less, more = (
        sum(part.points for part in accuracy_parts(profile(share)) if part.name == "identities scored")
        for share in sorted((a, b))
    )
    assert less <= more + 1e-9


def test_rows_are_the_rows_of_a_full_fc_layer() -> None:
    whole = accuracy_prior(TrainProfile(head=FullFCSettings()).resolve(1000))
    assert (whole.low, whole.high) == (0, 0)
    assert accuracy_parts(TrainProfile(head=PartialFCSettings(sample_rate=1.0)).resolve(1000)) == ()
    small = accuracy_prior(TrainProfile(head=FullFCSettings(momentum=False, storage="int8")).resolve(1000))
    assert small.low < small.high


def test_a_sample_is_at_least_the_batch() -> None:
    def points(sample_rate: float, batch_size: int = 128) -> float:
        profile = TrainProfile(head=PartialFCSettings(sample_rate=sample_rate), optim=OptimSettings(batch_size=batch_size))
        return midpoint(accuracy_prior(profile.resolve(2_059_906)))

    assert points(1e-6, 2**16) > points(1e-6)


def test_the_more_views_the_less_a_container_gains_by_being_generated() -> None:
    """Catches epochs or images that are not read: a learned row needs views."""

    def views(num_images: int | None, **run: Any) -> float:
        value = TrainProfile(head=AttFCSettings(), run=RunSettings(**run)).resolve(1000, num_images)
        return prior_features(value)["identities seen rarely"]

    assert views(5000, epochs=1) > views(5000, epochs=20) > views(100_000, epochs=20) > 0
    assert views(None) == pytest.approx(views(20_000, epochs=5), rel=0.01), "five epochs of 20 images are taken"
    steps = round(4 * 20_000 / OptimSettings().batch_size)
    assert views(20_000, steps=steps) == pytest.approx(views(20_000, epochs=4), rel=0.01)
    assert views(None, steps=steps) == views(20_000, steps=steps), "steps and batch say it without images"


def seen(views: float, head: AttFCSettings | FullFCSettings = AttFCSettings(num_references=0)) -> TrainProfile:  # noqa: B008
    return TrainProfile(head=head, run=RunSettings(epochs=views)).resolve(10**6, 10**6)


def test_fewer_views_than_were_compared_promise_no_more() -> None:
    """Catches a lead that grows in a straight line where nobody has looked, and a band that stays as narrow there."""
    edge = accuracy_prior(seen(FEWEST_VIEWS))
    width = edge.high - edge.low
    for views in (2.0, 1.0):
        held = accuracy_prior(seen(views))
        assert midpoint(held) == pytest.approx(midpoint(edge), abs=0.02)
        assert held.high - held.low > 1.3 * width
        assert held.low < 0, "it may as well be behind"
        said = "taken as at 4 views of an identity, the fewest that were compared, with a wider band, because yours are seen"
        assert f"{said} {views:.2g} times" in held.source
        parts = accuracy_parts(seen(views))
        assert sum(part.points for part in parts) == pytest.approx(midpoint(held), abs=2e-3)
        width = held.high - held.low
    straight, _ = fitted().moments({"identities seen rarely": math.log2(1 + 5 / 1)})
    assert width > 2 * POINTS_PER_LOG_ODDS * straight, "what a straight line would say lies in the band"
    assert "views" not in edge.source
    assert "fewer views than 4" not in [part.name for part in accuracy_parts(seen(FEWEST_VIEWS))]


def test_a_layer_without_generated_centers_is_not_held() -> None:
    assert accuracy_prior(seen(1.0, FullFCSettings())).high == 0
    assert "views" not in accuracy_prior(seen(1.0, FullFCSettings(momentum=False))).source


@pytest.mark.parametrize(("name", "distance"), [("r100", 0), ("r50", 2.66), ("r18", 17.56)])
def test_backbones_are_as_far_apart_as_published(name: str, distance: float) -> None:
    r100 = profile()
    other = r100.model_copy(update={"model": ModelSettings(backbone=name)})
    same = r100.model_copy(update={"model": other.model})
    assert midpoint(accuracy_prior(other, "r100")) == pytest.approx(midpoint(accuracy_prior(same)) - distance, abs=2e-3)


def test_backbones_that_can_be_compared_exist() -> None:
    assert set(BACKBONE) <= set(BACKBONE_NAMES)


def test_a_small_batch_costs() -> None:
    assert points(batch_size=32) < points(batch_size=128) == pytest.approx(points(batch_size=130), abs=0.02)


@given(
    st.sampled_from(sorted(PRIORS)),
    st.sampled_from([0.01, 0.1, 0.5, 1.0]),
    st.integers(2, 2048).map(lambda half: 2 * half),
    st.integers(2, 10**9),
    st.none() | st.integers(2, 10**10),
)
def test_every_setting_has_a_finite_band(kind: str, share: float, batch: int, num_ids: int, num_images: int | None) -> None:
    settings = HEADS[kind].settings()
    head = settings.model_copy(update={"dcc_share": share} if hasattr(settings, "dcc_share") else {})
    prior = accuracy_prior(TrainProfile(head=head, optim=OptimSettings(batch_size=batch)).resolve(num_ids, num_images))
    assert -100 < prior.low <= prior.high < 100
    assert prior.source.startswith("prior: ")


def test_what_is_taken_for_granted_names_every_data_set() -> None:
    text = "\n".join(assumptions())
    assert all(name in text for name in fitted().data_sets)
    assert not any("\n" in line for line in assumptions())


def test_figures_go_by_name() -> None:
    """Catches moments that go by place: a file may have features that a setting lacks, and the other way round."""
    file = {
        "features": ["b", "a"],
        "mean": [2.0, 1.0],
        "covariance": [[4.0, 0.0], [0.0, 1.0]],
        "own_variance": 0.0,
        "between_sets_variance": 0.0,
        "data_sets": {},
    }
    read = Fitted.model_validate_json(json.dumps(file))
    assert read.moments({"a": 3.0, "c": 5.0}) == (3.0, 9.0)
    assert read.moments({"a": 3.0, "b": 1.0}, only=("b",)) == (2.0, 4.0)
