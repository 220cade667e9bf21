"""What a plan warns of: limits that may be missed, and data that are too few."""

from __future__ import annotations

from typing import Any

import pytest

from attfc_planner.plan.notes import LEAST_IDS, USUAL_IDS
from attfc_planner.plan.plan import Plan
from tests.planner.planned import planned


def notes(**changes: Any) -> tuple[str, ...]:
    return search_of(planned(head="full_fc", num_trials=1, **changes)).notes


def search_of(made: Plan) -> Any:
    assert made.profile.search is not None
    return made.profile.search


def test_three_hundred_people_do_not_make_an_r50() -> None:
    (note,) = notes(num_ids=300, num_images=9_000)
    assert note.startswith("300 identities are too few to train r50 from scratch: it will not learn to tell strangers apart")
    for remedy in ("more identities", "--backbone mbf", "attfc-train --init MODEL"):
        assert remedy in note
    (note,) = notes(num_ids=LEAST_IDS, num_images=30_000, backbone="mbf")
    assert note.startswith("1,000 identities are few for mbf from scratch")
    assert "smaller network" not in note
    assert notes(num_ids=USUAL_IDS, num_images=300_000) == ()
    assert notes(num_ids=300, num_images=9_000, backbone="tiny", image_size=64) == ()


def test_identities_with_one_image_are_said() -> None:
    (note,) = notes(num_ids=100_000, num_images=150_000)
    assert note.startswith("150,000 images of 100,000 identities are 1.5 each")
    assert notes(num_ids=100_000, num_images=200_000) == ()


@pytest.mark.parametrize(("share", "missed"), [(1.01, True), (3.0, False)])
def test_a_limit_inside_the_interval_may_be_missed(share: float, missed: bool) -> None:
    """Catches a limit that is compared with the middle alone."""
    free = planned(head="full_fc", num_trials=1)
    interval = free.chosen.hours_interval
    assert interval is not None
    limit = share * free.chosen.hours
    assert (interval.low < limit < interval.high) == missed
    search = search_of(planned(head="full_fc", num_trials=1, max_hours=limit))
    constraint = next(each for each in search.constraints if each.name == "hours")
    assert constraint.may_be_missed == missed
    assert (constraint.low, constraint.high) == (interval.low, interval.high)
    expected = [f"Training takes about {free.chosen.hours:.1f} h ({interval.low:.1f} to {interval.high:.1f}); "]
    assert [note.partition("your limit")[0] for note in search.notes] == (expected if missed else [])
    assert all(note.endswith("may be missed.") for note in search.notes)


def test_a_plan_with_compiled_encoders_says_what_its_figures_are_of() -> None:
    written, compiled = (planned(head="full_fc", num_trials=1, compile=on) for on in (False, True))
    assert (written.profile.run.compile, compiled.profile.run.compile) == (False, True)
    (note,) = search_of(compiled).notes
    assert note.startswith("Memory and speed are those of encoders as they are written.")
    assert search_of(written).notes == ()
    assert compiled.profile.prediction == written.profile.prediction


def test_a_plan_with_channels_last_plans_its_memory_and_says_what_its_speed_is_of() -> None:
    apart, last = (planned(head="full_fc", num_trials=1, channels_last=on) for on in (False, True))
    assert (apart.profile.model.channels_last, last.profile.model.channels_last) == (False, True)
    (note,) = search_of(last).notes
    assert note.startswith("Speed is that of images and filters with their channels apart.")
