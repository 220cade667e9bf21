"""``--set`` on profiles: another kind of head, whatever else is set and in whatever order."""

from __future__ import annotations

import itertools

import pytest

from attfc_train.errors import UsageError
from attfc_train.heads.full_fc.settings import FullFCSettings
from attfc_train.heads.partial_fc.settings import PartialFCSettings
from attfc_train.profile.file import load_preset, preset_names, with_overrides
from attfc_train.profile.profile import TrainProfile


@pytest.mark.parametrize("preset", preset_names())
@pytest.mark.parametrize("kind", ["attfc", "full_fc", "partial_fc"])
def test_every_preset_takes_every_head_and_keeps_its_margin(preset: str, kind: str) -> None:
    base = load_preset(preset)
    changed = with_overrides(base, [f"head.kind={kind}"])
    assert changed.head.kind == kind
    assert changed.head.margin == base.head.margin
    assert changed.model_copy(update={"head": base.head}) == base
    if kind == base.head.kind:
        assert changed == base


def test_the_order_of_assignments_does_not_matter() -> None:
    base = load_preset("tiny")
    margin = base.head.margin.model_copy(update={"margin": 0.25})
    assignments = ['head.kind="partial_fc"', "head.sample_rate=0.5", "head.margin.margin=0.25"]
    for ordered in itertools.permutations(assignments):
        assert with_overrides(base, ordered).head == PartialFCSettings(margin=margin, sample_rate=0.5)


def test_the_last_kind_counts() -> None:
    base = load_preset("tiny")
    assert with_overrides(base, ["head.kind=full_fc", "head.kind=attfc", "head.dcc_share=0.5"]).head == base.head.model_copy(
        update={"dcc_share": 0.5}
    )
    assert isinstance(with_overrides(base, ["head.kind=partial_fc", "head.kind=full_fc"]).head, FullFCSettings)


def test_a_setting_of_the_old_head_is_refused() -> None:
    with pytest.raises(UsageError, match=r"got 'head\.dcc_share'\. It is one of --set head\.kind=attfc"):
        with_overrides(load_preset("tiny"), ["head.kind=full_fc", "head.dcc_share=0.5"])


def test_a_window_that_says_what_is_so_anyway_is_no_error() -> None:
    assert TrainProfile.model_validate({"data": {"draw": "permutation", "window_share": 1.0}}).data.draw == "permutation"


@pytest.mark.parametrize(
    ("document", "window"),
    [
        ({}, 300),
        ({"data": {"window_share": 1.0}}, 1000),
        ({"data": {"window_share": 1e-9}}, 1),
        ({"head": {"kind": "attfc", "dcc_share": 0.05}}, 50),
        ({"head": {"kind": "attfc", "dcc_size": 5}}, 5),
        ({"head": {"kind": "attfc", "dcc_size": 5}, "data": {"window_share": 1.0}}, 5),
        ({"head": {"kind": "full_fc"}}, None),
        ({"head": {"kind": "dcq"}}, None),
        ({"head": {"kind": "dcq"}, "data": {"window_share": 0.3}}, 300),
        ({"head": {"kind": "full_fc"}, "data": {"window_share": 0.3}}, 300),
    ],
)
def test_a_window_is_a_share_of_the_identities_and_at_most_the_slots(document: dict[str, object], window: int | None) -> None:
    assert TrainProfile.model_validate(document).resolve(1000).window == window
