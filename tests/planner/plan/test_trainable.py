"""A plan by numbers alone can be trained, whatever data set comes to it."""

from __future__ import annotations

import pytest

from attfc_planner.commands.option_checks import MAX_COUNT, size_of_data
from attfc_train.document import MOST
from attfc_train.errors import UsageError
from attfc_train.profile.file import resolve_profile
from tests.planner.planned import planned


@pytest.mark.parametrize("num_images", [None, 10**7])
@pytest.mark.parametrize("head", ["attfc", "full_fc"])
def test_a_plan_resolves_for_any_number_of_images(num_images: int | None, head: str) -> None:
    """Catches a warm-up of the planned length that outlasts the run that comes."""
    profile = planned(num_ids=4000, num_images=num_images, head=head).profile
    for there in (4000, 4001, 9000, 10**6, 10**8):
        resolved = resolve_profile(profile, 4000, there)
        assert resolved.optim.warmup < resolved.total_steps


def test_fewer_images_than_identities_are_refused() -> None:
    assert size_of_data(None, 4000, 4000) == (4000, 4000)
    with pytest.raises(UsageError, match=r"--images must be at least --ids \(4,000\).* but got 3,999"):
        size_of_data(None, 4000, 3999)


@pytest.mark.parametrize(("ids", "images"), [(10**19, None), (4000, 10**19), (10**400, 10**400), (4000, 10**4000)])
def test_counts_that_no_data_set_has_are_refused(ids: int, images: int | None) -> None:
    with pytest.raises(UsageError, match=r"must be at most 1,000,000,000,000, but got ") as refused:
        size_of_data(None, ids, images)
    assert len(str(refused.value)) < 200
    assert MAX_COUNT == MOST
