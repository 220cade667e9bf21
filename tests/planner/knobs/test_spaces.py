"""The spaces of several kinds of heads as one, for studies."""

from __future__ import annotations

import random

import pytest

from attfc_planner.knobs.space import COMMON, HEAD, space_for
from attfc_planner.knobs.spaces import Spaces
from attfc_train.heads.kinds import HEADS

NUM_IDS = 100_000
ALL = Spaces(tuple(space_for(NUM_IDS, kind=kind, named=True) for kind in HEADS))
ALONE = {kind: Spaces((space_for(NUM_IDS, kind=kind),)) for kind in HEADS}


@pytest.mark.parametrize("spaces", [ALL, *ALONE.values()])
def test_indices_lead_back_to_the_setting(spaces: Spaces) -> None:
    """Catches an index of one kind's knob that is read by another kind's values."""
    for space in spaces:
        every = list(space)
        for setting in random.Random(0).sample(every, min(200, len(every))):
            indices = spaces.indices(setting)
            assert spaces.at(indices) == setting
            assert set(indices) <= set(spaces.parameters)
            assert all(0 <= index < len(spaces.parameters[name]) for name, index in indices.items())
            assert spaces.of(setting) == space


def test_settings_of_two_kinds_are_told_apart() -> None:
    firsts = [next(iter(space)) for space in ALL]
    assert len({tuple(sorted(ALL.indices(setting).items())) for setting in firsts}) == len(HEADS)
    assert [setting.head for setting in firsts] == list(HEADS)


@pytest.mark.parametrize("kind", HEADS)
def test_a_space_alone_keeps_the_parameters_of_older_studies(kind: str) -> None:
    """Catches a parameter more: a study that an older attfc began would be taken for one about something else."""
    spaces = ALONE[kind]
    own = [knob.name for knob in HEADS[kind].settings.knobs()]
    common = [knob.name for knob in COMMON if knob is not HEAD]
    assert sorted(spaces.parameters) == sorted([*own, *common])
    assert next(iter(spaces.members[0])).head is None


def test_a_knob_of_one_name_in_two_kinds_is_two_parameters() -> None:
    for kind in HEADS:
        for knob in HEADS[kind].settings.knobs():
            assert f"{kind} {knob.name}" in ALL.parameters
            assert knob.name not in ALL.parameters
    assert ALL.parameters["head"] == tuple(HEADS)
    assert ALL.num_settings == sum(len(space) for space in ALL)


@pytest.mark.parametrize("spaces", [ALL, *ALONE.values()])
def test_a_drawn_setting_has_the_knobs_of_its_head_only(spaces: Spaces) -> None:
    draw = random.Random(1)
    asked: list[str] = []

    def index(name: str) -> int:
        asked.append(name)
        return draw.randrange(len(spaces.parameters[name]))

    for _ in range(50):
        asked.clear()
        indices = spaces.drawn(index)
        assert set(asked) == set(indices), "nothing is drawn that the setting does not have"
        assert spaces.indices(spaces.at(indices)) == indices
