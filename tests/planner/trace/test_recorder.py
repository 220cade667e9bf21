"""A trace with fake tensors is the real step: the same storages, the same bytes, born and freed in the same order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from attfc_planner.memory.model import peak_of
from attfc_planner.trace.history import CATEGORIES, Trace
from attfc_planner.trace.record import record
from attfc_train.step.build import build
from attfc_train.timing.op_cost import OpCost
from tests.planner.trace.profiles import small_profile

CASES: dict[str, dict[str, Any]] = {
    "identity, R=1": {},
    "identity, R=0": {"head": {"num_references": 0}},
    "identity, R=2, L=1": {"head": {"num_references": 2, "queue_length": 1}},
    "one slot per identity": {"head": {"dcc_size": 300}},
    "fifo": {"head": {"policy": "fifo", "queue_length": 1}},
    "buffers copied": {"head": {"batchnorm_buffers": "copy"}},
    "fifo, int8": {"head": {"policy": "fifo", "queue_length": 1, "storage": "int8"}},
    "identity, bf16 centers": {"head": {"storage": "bf16"}},
    "identity, fp8 centers": {"head": {"storage": "fp8"}},
    "stored queue, int8 centers": {"head": {"queue_length": 3, "queue_mode": "stored", "storage": "int8"}},
    "stored queue, R=0": {"head": {"queue_length": 3, "queue_mode": "stored", "num_references": 0}},
    "one chunk": {"head": {"chunk_slots": 128}},
    "full_fc": {"head": {"kind": "full_fc"}},
    "partial_fc": {"head": {"kind": "partial_fc", "sample_rate": 0.3}},
    "checkpointing": {"checkpointing": True},
    "wide maps recomputed": {"checkpointing": "wide"},
    "fp16": {"precision": "fp16"},
    "accumulation": {"accumulation": 2},
    "checkpointing, bf16": {"checkpointing": True, "precision": "bf16", "batch_size": 2},
    "r18, bf16, R=0": {
        "backbone": "r18",
        "precision": "bf16",
        "batch_size": 2,
        "head": {"num_references": 0},
        "image_size": 32,
    },
    "mbf, bf16": {"backbone": "mbf", "precision": "bf16", "batch_size": 2, "image_size": 32},
}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("case", CASES)
def test_fake_step_is_the_real_step(case: str) -> None:
    profile = small_profile(**CASES[case])
    batches = [profile, profile]
    fake, real = record(profile, batches), record(profile, batches, torch.device("cpu"))
    assert fake.ops == real.ops
    np.testing.assert_array_equal(fake.nbytes, real.nbytes)
    assert fake.events == real.events
    assert (fake.phases, fake.categories, fake.steps) == (real.phases, real.categories, real.steps)
    assert [costs_but_statistics(step) for step in fake.costs] == [costs_but_statistics(step) for step in real.costs]


def test_meta_tensors_give_the_same_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second opinion, which runs no rule of the CPU; in fp32, as autocast does nothing on ``meta``."""
    profile = small_profile()
    fake = record(profile, [profile, profile])
    real_autocast = torch.autocast

    def autocast(device_type: str, **settings: Any) -> torch.autocast:
        return real_autocast("cpu" if device_type == "meta" else device_type, **settings)

    monkeypatch.setattr(torch, "autocast", autocast)
    meta = record(profile, [profile, profile], torch.device("meta"))
    peaks = [sum(peak_of(trace, trace.nbytes).alive.values()) for trace in (fake, meta)]
    assert peaks[1] == pytest.approx(peaks[0], rel=1e-4)


def costs_but_statistics(step: tuple[OpCost, ...]) -> list[OpCost]:
    """Without the bytes of BatchNorm, whose fake statistics are half as wide under autocast."""
    return [replace(cost, bytes_read_written=0) if "batch_norm" in cost.name else cost for cost in step]


@pytest.mark.parametrize("storage", ["fp32", "bf16", "fp8", "int8"])
@pytest.mark.parametrize("head", [{"policy": "fifo", "queue_length": 1}, {"queue_mode": "stored", "queue_length": 2}])
def test_building_holds_no_second_copy_of_the_container(head: dict[str, Any], storage: str) -> None:
    profile = small_profile({**head, "storage": storage, "dcc_size": 50_000}, num_ids=60_000)
    trace = record(profile, [])
    held, peak = 0, 0
    for event in trace.events:
        held += trace.nbytes[event] if event >= 0 else -trace.nbytes[~event]
        peak = max(peak, held)
    assert peak - held < 50_000 * profile.model.embedding_size / 4


@pytest.fixture(scope="module")
def trace() -> Trace:
    return record(small_profile(), [small_profile()] * 2)


PLACES = 2 * 4
"""Storages of the two places for batches: images, references, flips and labels."""


def test_steps_are_alike_and_leave_nothing_behind_but_the_places_of_batches(trace: Trace) -> None:
    """Catches a batch that counts in the host's memory too, and places that every step makes anew."""
    first, second = trace.births(0), trace.births(1)
    places = first[:PLACES]
    assert len(first) - PLACES == len(second) > 100
    np.testing.assert_array_equal(trace.nbytes[places.stop : first.stop], trace.nbytes[second.start : second.stop])
    freed = {~event for event in trace.events if event < 0}
    assert set(first) - freed == set(places)
    images = 8 * 3 * 64 * 64
    assert trace.nbytes[places.start : places.stop].tolist() == 2 * [images, images, 2 * 8, 8 * 8]
    assert [index for index, category in enumerate(trace.categories) if category == "input"] == list(places)


def test_every_storage_is_freed_at_most_once_and_after_its_birth(trace: Trace) -> None:
    alive: set[int] = set()
    for event in trace.events:
        if event >= 0:
            assert event not in alive
            alive.add(event)
        else:
            alive.remove(~event)


def test_bytes_belong_to_their_owners(trace: Trace) -> None:
    profile = small_profile()
    freed = {~event for event in trace.events if event < 0}
    kept = dict.fromkeys(CATEGORIES, 0)
    for index, (category, size) in enumerate(zip(trace.categories, trace.nbytes.tolist(), strict=True)):
        kept[category] += 0 if index in freed else size
    state = build(profile, torch.device("cpu"))
    encoder = [*state.feature_encoder.parameters(), *state.feature_encoder.buffers()]
    assert kept["class encoder"] == sum(tensor.nbytes for tensor in encoder)
    assert kept["weights"] == kept["class encoder"] + state.first_bad_step.nbytes + state.start.num_bytes
    assert kept["container"] == sum(tensor.nbytes for tensor in state.head.buffers())
    learned = [parameter for parameter in state.feature_encoder.parameters() if parameter.requires_grad]
    assert kept["momentum"] == sum(parameter.nbytes for parameter in learned)
    gradients = [trace.nbytes[index] for index in trace.births(1) if trace.categories[index] == "gradients"]
    assert sum(gradients) == kept["momentum"]


def test_costs_count_the_convolutions() -> None:
    profile = small_profile({"num_references": 0}, batch_size=8)
    trace = record(profile, [profile])
    costs = {(cost.name, cost.phase): cost for cost in trace.costs[0]}
    forward, backward = costs["convolution", "forward"], costs["convolution_backward", "backward"]
    layers = [(3, 32, 32), (32, 64, 16), (64, 128, 8), (128, 256, 4), (256, 256, 4), (256, 256, 4)]
    expected = sum(2 * 8 * 9 * before * after * side**2 for before, after, side in layers)
    assert forward.flops == expected
    assert forward.count == backward.count == len(layers)
    # Catches the gradient of the images, which nobody computes, and a formula that forgets to ask: 2 * expected.
    before, after, side = layers[0]
    assert backward.flops == 2 * expected - 2 * 8 * 9 * before * after * side**2
    assert forward.kind == backward.kind == "conv"
    scored = 100 + 8  # slots, and the batch's own centers
    assert costs["slots_addmm", "loss"].flops == 2 * 8 * 64 * scored  # logits
    assert costs["slots_addmm_", "loss"].flops == 2 * 8 * 64 * scored  # gradient
