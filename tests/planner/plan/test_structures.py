"""The structures that a search must trace: those of the head's kind, and all values of a kind that is not registered."""

from __future__ import annotations

from dataclasses import replace

import pytest

from attfc_planner.knobs.space import SearchSpace, knobs_of
from attfc_planner.plan.problem import base_profile, structures
from attfc_planner.plan.request import PlanRequest
from attfc_planner.search.candidates import alike_in_cost
from attfc_planner.trace.affine import BASE as TRACED_AT
from attfc_planner.trace.scaled import stand_in
from attfc_planner.trace.structure import STRUCTURES, HeadStructure, Knobs, head_structure_of, structure_of
from attfc_train.heads.attfc.settings import AttFCSettings
from attfc_train.heads.kinds import HEADS
from attfc_train.heads.settings import HeadSettings
from attfc_train.profile.profile import TrainProfile
from tests.planner.fakes import make_gpu
from tests.planner.other_head import LEVELS, OtherSettings, other_profile

BASE = Knobs(batch=22, slots=0, chunk=0, identities=4001)


def ways(profile: TrainProfile) -> set[tuple[object, ...]]:
    """Return what differs between the structures of a small search."""
    space = SearchSpace(knobs_of(type(profile.head))).narrowed(batch_size=(32, 64, 128), accumulation=(1, 2))
    return {
        (each.model.gradient_checkpointing, each.optim.accumulation, each.optim.batch_size, each.head.model_dump_json())
        for each in structures(space, profile)
    }


def test_of_an_unknown_head_every_value_of_every_knob_is_a_structure() -> None:
    """Catches a default that takes an unknown knob for one that only scales sizes."""
    assert head_structure_of(OtherSettings()).knobs is None
    seen = ways(other_profile())
    assert len(seen) == len(LEVELS) * 3 * 2, "levels, checkpointing, parts"
    assert {batch_size for _, _, batch_size, _ in seen} == {32}


def test_registering_a_structure_spares_traces(monkeypatch: pytest.MonkeyPatch) -> None:
    class Plain(HeadStructure[OtherSettings]):
        knobs = ()

    monkeypatch.setitem(STRUCTURES, "other", Plain())
    assert len(ways(other_profile())) == 3 * 2, "checkpointing, parts"


@pytest.mark.parametrize(("kind", "expected"), [("full_fc", 3 * 4 * 2), ("attfc", 3 * 8 * 3 * 4)])
def test_the_structures_of_our_kinds_are_as_registered(kind: str, expected: int) -> None:
    """AttFC: checkpointing, shares, references, storage; full FC: checkpointing, storage and momentum; parts are computed.

    Catches a queue length that is traced.
    """
    base = base_profile(PlanRequest(num_ids=1000, head=kind), make_gpu())
    assert len(ways(base)) == expected


@pytest.mark.parametrize(("kind", "slot_rate"), [("attfc", 1.0), *((kind, 0.0) for kind in sorted(HEADS))])
def test_nothing_is_left_to_be_traced_during_the_search(kind: str, slot_rate: float) -> None:
    """Catches storages of slots that learn, which were traced one after the other when a setting first asked for them."""
    base = base_profile(PlanRequest(num_ids=1000, head=kind), make_gpu())
    if isinstance(base.head, AttFCSettings):
        base = base.model_copy(update={"head": base.head.model_copy(update={"slot_rate": slot_rate})})
    space = SearchSpace(knobs_of(type(base.head))).narrowed(batch_size=(64,), accumulation=(1, 2))
    prepared = {traced(each) for each in structures(space, base)}
    assert {traced(alike_in_cost(base, setting).applied_to(base)) for setting in space} <= prepared


def traced(profile: TrainProfile) -> TrainProfile:
    """Return the structure that stands for a profile, as `attfc_planner.trace.store.Traces` finds it."""
    return structure_of(stand_in(profile), TRACED_AT)


def test_an_unknown_heads_settings_are_kept_but_for_the_margins_numbers() -> None:
    """Catches a structure that drops a setting which may allocate, and one that is traced anew for each margin."""
    usual = OtherSettings(level=2, note="matters")
    structure = head_structure_of(usual)
    assert structure.plain(usual) == usual, "its margin's numbers are the defaults"
    margin = usual.margin.model_copy(update={"margin": 0.1, "scale": 30.0, "ramp_steps": 9})
    assert structure.plain(usual.model_copy(update={"margin": margin})) == usual
    exact = usual.margin.model_copy(update={"gradient": "exact"})
    assert structure.plain(usual.model_copy(update={"margin": exact})) != usual, "another gradient is another step"


def test_an_unknown_head_has_no_slots_no_stand_in_and_is_traced_at_two_numbers_of_identities() -> None:
    """Catches defaults under which a head's sizes would be computed from a trace that cannot tell."""
    head = OtherSettings()
    structure = head_structure_of(head)
    assert (structure.chunk(head), structure.storage(head), structure.stand_in(head)) == (0, "fp32", None)
    assert not structure.is_direct(head, 1000)
    first, second = structure.points(head, BASE)
    assert first == BASE
    assert second.identities > BASE.identities
    assert replace(second, identities=BASE.identities) == BASE


def test_every_kind_has_a_structure() -> None:
    assert set(STRUCTURES) == set(HEADS)
    assert all(issubclass(HEADS[kind].settings, HeadSettings) for kind in STRUCTURES)
