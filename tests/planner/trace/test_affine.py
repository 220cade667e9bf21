"""Sizes, peaks and costs computed from a few traces are those of a trace of the very profile, to the byte."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from attfc_planner.memory.model import MemoryModel
from attfc_train.profile.profile import TrainProfile
from attfc_train.profile.teacher import TeacherSettings
from attfc_train.units import MIB
from tests.planner.trace.profiles import device, small_profile

STRUCTURES: dict[str, dict[str, Any]] = {
    "identity": {},
    "identity, R=0, accumulation": {"head": {"num_references": 0}, "accumulation": 2},
    "one slot per identity": {"head": {"direct": True}},
    "fifo, checkpointing, bf16": {
        "head": {"policy": "fifo", "queue_length": 1},
        "checkpointing": True,
        "precision": "bf16",
    },
    "wide maps recomputed, fp16": {"checkpointing": "wide", "precision": "fp16"},
    "slots that learn, int8": {"head": {"slot_rate": 0.5, "storage": "int8"}},
    "slots that learn, R=0, accumulation": {"head": {"slot_rate": 0.5, "num_references": 0}, "accumulation": 2},
    "sizes that grow": {"head": {"first_scored_share": 0.1, "num_references": 0}},
    "stored queue, int8": {"head": {"queue_mode": "stored", "queue_length": 3, "storage": "int8"}},
    "teacher": {"teacher": TeacherSettings(backbone="mbf", image_size=112), "precision": "bf16"},
    "teacher, F2C, accumulation": {
        "teacher": TeacherSettings(backbone="tiny", image_size=64),
        "head": {"kind": "f2c"},
        "accumulation": 2,
    },
    "full_fc": {"head": {"kind": "full_fc"}},
    "full_fc, int8, accumulation": {
        "head": {"kind": "full_fc", "storage": "int8", "interclass_filter": 0.3},
        "accumulation": 2,
    },
    "partial_fc": {"head": {"kind": "partial_fc"}},
    "partial_fc, bf16, checkpointing": {"head": {"kind": "partial_fc", "storage": "bf16"}, "checkpointing": True},
    "partial_fc, fp8": {"head": {"kind": "partial_fc", "storage": "fp8", "momentum": False}, "precision": "fp16"},
    "dcq": {"head": {"kind": "dcq"}},
    "dcq, own statistics, bf16": {"head": {"kind": "dcq", "batchnorm_buffers": "own"}, "precision": "bf16"},
    "f2c, int8, accumulation": {"head": {"kind": "f2c", "storage": "int8"}, "accumulation": 2},
    "f2c, support vectors, checkpointing": {"head": {"kind": "f2c", "support_vectors": 1.2}, "checkpointing": True},
    "adaface": {"head": {"margin": {"kind": "adaface"}}},
    "full_fc, adaface, accumulation": {"head": {"kind": "full_fc", "margin": {"kind": "adaface"}}, "accumulation": 2},
    "curricularface, slots that learn": {"head": {"slot_rate": 0.5, "margin": {"kind": "curricularface"}}},
    "partial_fc, curricularface, fp8": {
        "head": {"kind": "partial_fc", "storage": "fp8", "margin": {"kind": "curricularface"}},
        "precision": "fp16",
    },
    "f2c, curricularface": {"head": {"kind": "f2c", "margin": {"kind": "curricularface"}}},
}
DERIVED = "one slot per identity"
"""Is not traced, but made of the trace with a map: equal but for a few numbers per sample."""
POINTS = [(16, 96, 32, 1000, 1), (48, 4096, 512, 60_000, 3), (8, 700, 128, 701, 2), (128, 300, 2048, 5000, 1)]
"""Queries, slots, chunk, identities, references: a few chunks, many, a partial one, fewer slots than a chunk has."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> MemoryModel:
    return MemoryModel(small_profile(), device(), 1 << 34, tmp_path_factory.mktemp("cache"))


def at_point(structure: dict[str, Any], point: tuple[int, ...]) -> Any:
    batch, slots, chunk, num_ids, references = point
    head = {"num_references": references, **structure.get("head", {}), "dcc_size": slots, "chunk_slots": chunk}
    if head.pop("direct", False) or head.get("kind") == "full_fc":
        num_ids = slots
    if head.get("kind") == "partial_fc":
        head["sample_rate"] = slots / num_ids
    return small_profile(**{**structure, "head": head, "batch_size": batch, "num_ids": num_ids})


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("name", STRUCTURES)
def test_estimate_is_exact(name: str, point: tuple[int, ...], model: MemoryModel) -> None:
    profile = at_point(STRUCTURES[name], point)
    estimate, exact = model.estimate(profile), model.exact(profile)
    if name == DERIVED:
        assert abs(estimate.total_bytes - exact.total_bytes) < 2 * MIB
        containers = ({term.name: term.bytes for term in one.terms}["container"] for one in (estimate, exact))
        assert len(set(containers)) == 1
    elif "accumulation" in name:  # scaled: see test_parts_and_storage_scale
        assert [one for one in estimate.terms if one.name != "fragmentation"] == [
            one for one in exact.terms if one.name != "fragmentation"
        ]
    else:
        assert estimate.terms == exact.terms
    assert (estimate.peak_phase, estimate.peak_operator) == (exact.peak_phase, exact.peak_operator)


@pytest.mark.parametrize("name", STRUCTURES)
def test_structure_is_affine(name: str, model: MemoryModel) -> None:
    """No structure falls back to tracing every profile, which would make the test above empty."""
    profile = at_point(STRUCTURES[name], POINTS[0])
    model.estimate(profile)
    assert None not in model._traces._networks.values()
    assert None not in model._traces._heads.values()


@pytest.mark.parametrize("name", STRUCTURES)
def test_costs_are_exact_where_chunks_are_whole(name: str, model: MemoryModel) -> None:
    profile = at_point(STRUCTURES[name], POINTS[1])
    exact = {(cost.name, cost.phase): cost for cost in model._traces.exact(profile).costs[-1]}
    estimated = {(cost.name, cost.phase): cost for cost in model.op_costs(profile)}
    if name == DERIVED:
        estimated = {key: cost for key, cost in estimated.items() if key[1] not in {"enqueue", "input"}}
        exact = {key: cost for key, cost in exact.items() if key in estimated}
    if "accumulation" in name:  # it has one loss a part to add up, and gradients to add
        different = {key for key in exact if estimated.get(key) != exact[key]}
        labels = {("stack", "input")} if profile.head.is_paired else set()  # each part puts those of both halves together
        # Each part's pull on learned rows is one more to put together.
        assert different <= {("stack", "update"), ("sum", "update"), ("cat", "update"), ("add_", "backward")} | labels
        # A paired part adds too, in its second pass: two entries of one name.
        added = [one.bytes_read_written for one in model.op_costs(profile) if (one.name, one.phase) == ("add_", "backward")]
        assert sum(added) == exact["add_", "backward"].bytes_read_written
        return
    assert estimated == exact


@pytest.mark.parametrize(("storage", "parts"), [("fp32", 2), ("bf16", 1), ("fp8", 4), ("int8", 2)])
@pytest.mark.parametrize("direct", [False, True])
def test_parts_of_slots_that_learn_scale(storage: str, parts: int, direct: bool, model: MemoryModel) -> None:
    """Their storages are traced. Catches pulls of earlier parts that are forgotten, and rows that are narrowed twice."""
    head = {"dcc_size": 4096, "chunk_slots": 512, "num_references": 0, "storage": storage, "slot_rate": 1}
    num_ids = 4096 if direct else 60_000
    profile = small_profile(head, batch_size=32 * parts, accumulation=parts, num_ids=num_ids)
    check_that_it_scales(profile, 64 * profile.optim.batch_size if direct else 0, model)
    assert all(one.optim.accumulation == 1 for one in model._traces._networks if one.head.kind == "attfc")


SCALED = [("bf16", 1, 1), ("fp8", 2, 0), ("int8", 4, 1), ("fp32", 8, 2)]
"""Storage, parts, references: none of these is traced; each comes from the trace of a whole batch with fp32 centers."""


@pytest.mark.parametrize(("storage", "parts", "references"), SCALED)
@pytest.mark.parametrize("direct", [False, True])
def test_parts_and_storage_scale(storage: str, parts: int, references: int, direct: bool, model: MemoryModel) -> None:
    """AttFC's: see `check_that_it_scales`."""
    head = {"dcc_size": 4096, "chunk_slots": 512, "num_references": references, "storage": storage}
    num_ids = 4096 if direct else 60_000
    profile = small_profile(head, batch_size=32 * parts, accumulation=parts, num_ids=num_ids)
    check_that_it_scales(profile, 64 * profile.optim.batch_size if direct else 0, model)
    assert all(one.optim.accumulation == 1 for one in model._traces._networks if one.head.kind == "attfc")
    narrow = [
        one
        for one in model._traces._networks
        if one.head.kind == "attfc" and one.head.queue_mode == "averaged" and not one.head.slot_rate
    ]
    assert all(one.head.storage == "fp32" for one in narrow)  # type: ignore[union-attr]


@pytest.mark.parametrize(("storage", "parts"), [("fp32", 2), ("bf16", 1), ("fp8", 4), ("int8", 2)])
def test_parts_and_storage_of_a_queue_scale(storage: str, parts: int, model: MemoryModel) -> None:
    """DCQ's ring. Catches a stand-in whose narrower rows are not those of the ring."""
    head = {"kind": "dcq", "dcc_size": 4096, "chunk_slots": 512, "storage": storage}
    check_that_it_scales(small_profile(head, batch_size=32 * parts, accumulation=parts, num_ids=60_000), 0, model)
    traced = [one for one in model._traces._networks if one.head.kind == "dcq"]
    assert all((one.optim.accumulation, one.head.storage) == (1, "fp32") for one in traced)  # type: ignore[attr-defined]


@pytest.mark.parametrize("parts", [1, 2, 4])
def test_parts_of_a_paired_batch_scale(parts: int, model: MemoryModel) -> None:
    """F2C's: each part is two passes. Catches knobs of a whole part, whose bytes are no whole multiples of it."""
    head = {"kind": "f2c", "dcc_size": 4096, "chunk_slots": 512, "storage": "bf16"}
    check_that_it_scales(small_profile(head, batch_size=32 * parts, accumulation=parts, num_ids=60_000), 0, model)
    assert all(one.optim.accumulation == 1 for one in model._traces._networks if one.head.kind == "f2c")


def check_that_it_scales(profile: TrainProfile, slack: int, model: MemoryModel) -> None:
    """Tensors to the byte; fragmentation to a page of the allocator's pools (2 and 20 MiB); costs to 2 %."""
    estimate, exact = model.estimate(profile), model.exact(profile)
    by_name = [{term.name: term.bytes for term in one.terms} for one in (estimate, exact)]
    fragmentation = [terms.pop("fragmentation") for terms in by_name]
    for name, num_bytes in by_name[1].items():
        assert abs(by_name[0][name] - num_bytes) <= slack, name
    assert abs(fragmentation[0] - fragmentation[1]) <= 20 * MIB
    assert (estimate.peak_phase, estimate.peak_operator) == (exact.peak_phase, exact.peak_operator)
    costs = model.op_costs(profile), model._traces.exact(profile).costs[-1]
    flops, moved = ([sum(getattr(one, what) for one in side) for side in costs] for what in ("flops", "bytes_read_written"))
    assert flops[0] == flops[1]
    assert moved[0] == pytest.approx(moved[1], rel=0.02)


def test_paths_of_the_cache_do_not_matter(model: MemoryModel, tmp_path: Path) -> None:
    other = MemoryModel(small_profile(), device(), 1 << 34, tmp_path)
    profile = small_profile(batch_size=24)
    assert other.estimate(profile) == model.estimate(profile)
