"""Rules and numbers of the settings."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from attfc_train.heads.f2c.settings import F2CSettings
from attfc_train.profile.profile import OptimSettings, TrainProfile
from tests.train.profiles import HEADS, small_profile


@pytest.mark.parametrize(("slots", "expected"), [(2, 2), (100, 3), (15_000, 3), (20_000, 4), (49_999, 9), (10**6, 10)])
def test_hardest_slots_are_a_share_of_the_pool_within_bounds(slots: int, expected: int) -> None:
    """The released rule: clip(int(0.0002 K), 3, 10)."""
    assert F2CSettings(dcc_size=slots).num_hardest == expected


def test_a_number_of_hardest_slots_is_taken_as_it_is() -> None:
    assert F2CSettings(dcc_size=10**6, hard_negatives=40).num_hardest == 40
    assert F2CSettings(dcc_size=7, hard_negatives=40).num_hardest == 7


def test_support_vectors_need_a_margin_on_the_cosine() -> None:
    with pytest.raises(ValidationError, match=r"support_vectors needs margin\.kind 'cosface', but got 'arcface'"):
        F2CSettings.model_validate({"support_vectors": 1.2, "margin": {"kind": "arcface"}})


@pytest.mark.parametrize("optim", [{"batch_size": 9}, {"batch_size": 2}, {"batch_size": 12, "accumulation": 6}])
def test_halves_must_be_whole(optim: dict[str, Any]) -> None:
    """Catches a last image that no half has, and BatchNorm over one image."""
    with pytest.raises(ValidationError, match=r"two halves in optim\.accumulation equal parts of at least 2"):
        TrainProfile(head=HEADS["f2c"], optim=OptimSettings(**optim))


@pytest.mark.parametrize("batch_size", [4, 6, 10, 14, 250])
def test_any_even_batch_will_do(batch_size: int) -> None:
    assert small_profile("f2c", batch_size=batch_size).num_passes == 2


def test_a_pool_has_no_more_slots_than_there_are_identities() -> None:
    with pytest.raises(ValidationError, match=r"head\.dcc_size must be at most data\.num_ids, but got 50 and 40"):
        TrainProfile(head=F2CSettings(dcc_size=50)).resolve(40)
