"""Settings and search spaces of every kind of head."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attfc_planner.knobs.space import COMMON, SearchSpace, Setting, knobs_of, space_for
from attfc_planner.plan.problem import base_profile
from attfc_planner.plan.request import PlanRequest
from attfc_train.document import Value
from attfc_train.errors import ProfileError
from attfc_train.heads.kinds import HEADS
from attfc_train.profile.profile import TrainProfile
from tests.planner.fakes import make_gpu

SPACES = {kind: SearchSpace(knobs_of(HEADS[kind].settings)) for kind in HEADS}


def place_of(space: SearchSpace) -> st.SearchStrategy[dict[str, int]]:
    """An index for every knob."""
    return st.fixed_dictionaries({name: st.integers(0, len(values) - 1) for name, values in space.values.items()})


def base_of(kind: str, num_ids: int = 1000, num_images: int | None = None) -> TrainProfile:
    return base_profile(PlanRequest(num_ids=num_ids, num_images=num_images, head=kind), make_gpu())


def few(values: tuple[Value | None, ...]) -> tuple[Value | None, ...]:
    return tuple(dict.fromkeys((values[0], values[len(values) // 2], values[-1])))


@pytest.mark.parametrize("kind", HEADS)
@given(data=st.data())
def test_an_index_per_knob_and_a_setting_are_the_same_thing(kind: str, data: st.DataObject) -> None:
    """Catches `at` that zips indices by their own order, and `indices` by value instead of place."""
    space = SPACES[kind]
    indices = data.draw(place_of(space))
    shuffled = dict(data.draw(st.permutations(list(indices.items()))))
    setting = space.at(shuffled)
    assert space.indices(setting) == indices
    assert space.at(space.indices(setting)) == setting
    assert setting.document() == {name: space.values[name][index] for name, index in indices.items()}


@pytest.mark.parametrize("kind", HEADS)
@given(data=st.data())
def test_turning_changes_the_named_knobs_alone(kind: str, data: st.DataObject) -> None:
    """Catches `turned` that takes the name of no knob, or drops a None."""
    space = SPACES[kind]
    before, after = (space.at(data.draw(place_of(space))) for _ in range(2))
    named = data.draw(st.sets(st.sampled_from(space.names)))
    changes = {name: after[name] for name in named}
    turned = before.turned(**changes)
    with pytest.raises(KeyError, match="no_such_knob"):
        before.turned(**changes, no_such_knob=7)
    assert turned.names == before.names
    assert turned.document() == before.document() | changes
    assert turned.turned(**before.document()) == before
    assert before.turned(**after.document()) == after


@pytest.mark.parametrize("kind", HEADS)
@given(data=st.data())
def test_a_document_is_the_setting(kind: str, data: st.DataObject) -> None:
    """Catches `document` without the knobs that are None: the recipe's own."""
    space = SPACES[kind]
    setting = space.at(data.draw(place_of(space)))
    assert Setting.of(setting.document()) == setting
    assert tuple(setting.document()) == space.names
    for name in space.names:
        assert setting.get(name) == setting[name] == setting.document()[name]
    assert setting.get("no_such_knob") is None
    with pytest.raises(KeyError, match="no_such_knob"):
        setting["no_such_knob"]


@pytest.mark.parametrize("kind", HEADS)
def test_knobs_stand_in_the_order_of_their_places(kind: str) -> None:
    """Catches a head's knobs before the common ones, and two knobs in one place."""
    knobs = SPACES[kind].knobs
    places = [knob.place for knob in knobs]
    assert places == sorted(set(places))
    assert {knob.name for knob in knobs} == {knob.name for knob in (*HEADS[kind].settings.knobs(), *COMMON)}


@pytest.mark.parametrize("kind", HEADS)
@given(data=st.data())
def test_a_narrowed_space_is_the_product_of_its_values(kind: str, data: st.DataObject) -> None:
    """Catches `narrowed` that forgets the knobs that are not named, or takes the name of no knob."""
    space = SPACES[kind]
    kept = {
        name: tuple(data.draw(st.lists(st.sampled_from(space.values[name]), min_size=1, max_size=2, unique=True)))
        for name in space.names
    }
    whole = data.draw(st.sampled_from(space.names))
    narrowed = space.narrowed(**kept).narrowed(**{whole: space.values[whole]})
    expected = {**kept, whole: space.values[whole]}
    assert narrowed.values == expected
    assert list(narrowed) == [Setting(space.names, values) for values in itertools.product(*expected.values())]
    assert len(narrowed) == math.prod(map(len, expected.values()))
    assert narrowed[whole] == space[whole]
    assert space.narrowed() == space
    with pytest.raises(KeyError, match="no_such_knob"):
        space.narrowed(no_such_knob=(1, 2))


@pytest.mark.parametrize("kind", HEADS)
def test_every_setting_of_a_small_space_makes_a_valid_profile(kind: str) -> None:
    """Catches a knob whose values its own settings refuse, and one that lands in no section."""
    space = SPACES[kind]
    small = space.narrowed(**{name: few(values) for name, values in space.values.items()}).narrowed(batch_size=(32, 384))
    base = base_of(kind, num_images=64_000)
    settings = [setting for setting in small if setting.divides]
    assert len(settings) >= 6
    for setting in settings:
        profile = setting.applied_to(base)
        assert TrainProfile.model_validate(profile.model_dump()) == profile
        for knob in small.knobs:
            value = setting[knob.name]
            assert value is None or getattr(getattr(profile, knob.section), knob.name) == value
    profiles = {setting.applied_to(base).model_dump_json() for setting in settings}
    assert len(profiles) == len(settings), "no two settings are the same training"


@pytest.mark.parametrize(
    ("kind", "values", "name"),
    [
        ("full_fc", {"batch_size": 64, "dcc_share": 0.5}, "dcc_share"),
        ("partial_fc", {"batch_size": 64, "num_references": 1}, "num_references"),
        ("attfc", {"batch_size": 64, "sample_rate": 0.5}, "sample_rate"),
        ("attfc", {"batch_size": 64, "wings": 2}, "wings"),
    ],
)
def test_a_knob_of_another_head_is_refused_by_name(kind: str, values: dict[str, Any], name: str) -> None:
    """Catches a knob that `Setting.applied_to` leaves aside, so that another training is run than was asked for."""
    with pytest.raises(ProfileError) as refused:
        Setting.of(values).applied_to(base_of(kind))
    assert refused.value.rule == f"a setting of head '{kind}' must be of its knobs"
    assert (refused.value.got, refused.value.remedy) == (f"'{name}'", "Plan it anew.")


@given(num_ids=st.integers(2, 10_000))
def test_shares_of_any_head_hold_two_identities(num_ids: int) -> None:
    """Catches `space_for` that knows the share of slots alone."""
    for kind, name in (("attfc", "dcc_share"), ("partial_fc", "sample_rate")):
        shares = space_for(num_ids, kind=kind).values[name]
        assert shares == tuple(share for share in SPACES[kind].values[name] if share == 1 or share * num_ids >= 2)
    assert set(space_for(num_ids, kind="full_fc").names) == {knob.name for knob in COMMON} | {"storage", "momentum"}


def test_settings_sort_from_no_checkpointing_to_that_of_all_blocks() -> None:
    """Of settings that are equal in what counts the first is taken. Catches a word that cannot be compared with yes and no."""
    ways = [Setting.of({"batch_size": 64, "gradient_checkpointing": way, "storage": None}) for way in (False, "wide", True)]
    smaller = Setting.of({"batch_size": 32, "gradient_checkpointing": True, "storage": None})
    for shuffled in itertools.permutations([*ways, smaller]):
        assert sorted(shuffled) == [smaller, *ways]
        assert max(shuffled) == ways[-1]
