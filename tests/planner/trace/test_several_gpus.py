"""One of several GPUs, traced alone: what it holds and what it exchanges, against slow formulas and its exact trace."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attfc_planner.memory.model import MemoryModel, peak_of
from attfc_planner.trace.ranks import TracedRanks, silent
from attfc_planner.trace.record import record_head
from attfc_planner.trace.structure import most_rows
from attfc_train.backbones.kinds import build_encoder
from attfc_train.profile.profile import TrainProfile
from attfc_train.ranks.shard import Shard
from attfc_train.step import gradient_sums
from attfc_train.timing.op_cost import BESIDE
from attfc_train.units import KIB
from tests.planner.trace.profiles import device, small_profile

HEADS: dict[str, dict[str, Any]] = {
    "identity": {},
    "no references, learning": {"num_references": 0, "slot_rate": 0.5},
    "a slot for everyone": {"dcc_size": 301},
    "fifo": {"policy": "fifo", "queue_length": 1},
    "stored queue": {"queue_mode": "stored", "queue_length": 3},
    "int8": {"storage": "int8"},
    "dcq": {"kind": "dcq"},
    "full_fc": {"kind": "full_fc"},
    "partial_fc": {"kind": "partial_fc", "sample_rate": 0.5},
}


def shared(head: dict[str, Any], gpus: int, share: int = 16, **given: Any) -> TrainProfile:
    profile = small_profile(head, batch_size=gpus * share, num_ids=given.pop("num_ids", 301), **given)
    return profile.model_copy(update={"run": profile.run.model_copy(update={"gpus": gpus})})


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> MemoryModel:
    return MemoryModel(small_profile(), device(), 1 << 34, tmp_path_factory.mktemp("cache"))


# 3 GPUs do not divide 301 slots and 100 rows, 8 have 12,592 slots at the largest point. Catches identities that a point of the
# head's traces has fewer of than slots (no structure is affine then), and labels of all slots that are counted as of one part.
@pytest.mark.parametrize(
    ("name", "gpus"),
    [("identity", 3), ("no references, learning", 8), ("full_fc", 3), ("partial_fc", 3), ("int8", 3)]
    + [pytest.param(name, 3, marks=pytest.mark.slow) for name in ("a slot for everyone", "fifo", "stored queue", "dcq")],
)
def test_estimate_of_one_of_several_is_exact(name: str, gpus: int, model: MemoryModel) -> None:
    profile = shared(HEADS[name], gpus)
    traces = model._traces
    estimate, exact = traces.estimated(profile), traces.exact(profile)
    assert None not in traces._networks.values()
    alive = [peak_of(trace, trace.nbytes).alive for trace in (estimate, exact)]
    slack = {"int8": 16 * 1024, "a slot for everyone": 16 * 1024}.get(name, 0)  # of some numbers a sample, as with one GPU
    for category, num_bytes in alive[1].items():
        assert abs(alive[0][category] - num_bytes) <= slack, category


def exchanges(profile: TrainProfile, model: MemoryModel) -> dict[tuple[str, str], tuple[int, int]]:
    costs = model.op_costs(profile)
    return {(each.name, each.phase): (each.bytes_read_written, each.count) for each in costs if each.kind == "exchange"}


# Catches an exchange that is not counted, one of a part of the batch alone, and rows of one GPU for those of all.
@pytest.mark.parametrize(("gpus", "parts"), [(2, 1), (3, 2), (8, 4)])
def test_bytes_of_a_full_layer_are_those_of_a_slow_formula(gpus: int, parts: int, model: MemoryModel) -> None:
    share, dim = 32, 64
    profile = shared({"kind": "full_fc"}, gpus, share, accumulation=parts)
    network = build_encoder(profile.model, torch.device("cpu"))
    weights = sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
    statistics = sum(buffer.numel() for buffer in network.buffers() if buffer.is_floating_point())
    joined = gpus * share
    found = exchanges(profile, model)
    assert found.pop(("all_reduce", "update")) == (4 * (1 + statistics), 2)  # the loss, BatchNorm's
    assert found.pop((BESIDE, "backward")) == (4 * weights, 1)
    assert found.pop(("all_gather", "input")) == (8 * joined, 1)  # labels
    # Each part: labels of 8 bytes twice (its own center, and the owners), queries of D numbers.
    assert found.pop(("all_gather", "loss")) == (joined * (8 + 8 + 4 * dim), 3 * parts)
    # Its own center (D), the sum of the exponentials (1), and the centers weighted by them (D).
    assert found.pop(("reduce_scatter", "loss")) == (joined * 4 * (dim + 1 + dim), 3 * parts)
    assert found.pop(("all_reduce", "loss")) == (joined * 4, parts)  # the largest logit
    # The second pass over the rows: query, offset and own gradient of each query, and its label.
    assert found.pop(("all_gather", "update")) == (joined * (4 * (dim + 2) + 8), 2)
    assert not found


def test_one_gpu_exchanges_nothing(model: MemoryModel) -> None:
    assert exchanges(small_profile({"kind": "full_fc"}), model) == {}


# Catches a bucket of gradients that is taken for a gradient, of which each earlier part has left one.
@pytest.mark.parametrize(("parts", "bucket_bytes"), [(1, 2**20), (2, 2**30), (4, 2**20)])
def test_buckets_of_gradients_are_in_the_estimate(parts: int, bucket_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gradient_sums, "BUCKET_BYTES", bucket_bytes)
    over = []
    for gpus in (1, 2):
        profile = shared({"kind": "full_fc"}, gpus, 32, accumulation=parts)
        traces = MemoryModel(profile, device(), 1 << 34)._traces
        estimate, exact = (
            sum(peak_of(trace, trace.nbytes).alive.values()) for trace in (traces.estimated(profile), traces.exact(profile))
        )
        over.append(estimate - exact)
        filled = [
            sum(cost.bytes_read_written for cost in costs if (cost.name, cost.phase) == ("cat", "backward"))
            for costs in (traces.costs(profile), traces.exact(profile).costs[-1])
        ]
        assert filled[0] == filled[1], "buckets are filled once, whatever the parts"
    assert over[1] == pytest.approx(over[0], abs=8 * KIB)
    assert over[0] == 0 or parts > 1, "of parts, one more gradient is taken to be alive"


@given(st.integers(1, 10**9), st.integers(1, 511))
def test_more_gpus_never_hold_more_rows_each(total: int, gpus: int) -> None:
    """Catches a part that is rounded down, which the last process's is not."""
    rows = most_rows(total, gpus)
    assert rows == max(Shard.of(total, rank, gpus).num for rank in (0, gpus // 2, gpus - 1))
    assert most_rows(total, gpus + 1) <= rows
    assert gpus * rows >= total


@settings(max_examples=6, deadline=None)
@given(st.sampled_from(sorted(set(HEADS) - {"fifo", "stored queue"})), st.integers(2, 40))
def test_more_gpus_never_need_more_bytes_of_a_head_each(name: str, gpus: int) -> None:
    """But for one row that is nobody's, which two have and one alone has not: rows are many here."""
    head = HEADS[name] if name != "a slot for everyone" else {"dcc_size": 4001}
    kept = [record_head(shared(head, count, num_ids=4001)).num_bytes for count in (gpus, gpus + 1)]
    assert kept[1] <= kept[0]


def test_the_traced_process_is_the_last_and_makes_what_the_exchange_would_make() -> None:
    told: list[tuple[str, int]] = []
    ranks = TracedRanks(2, 3, tell=lambda name, num_bytes: told.append((name, num_bytes)))
    rows = torch.zeros(4, 5)
    assert ranks.gathered(rows).shape == (12, 5)
    assert ranks.share_of_sum(torch.zeros(12, 5)).shape == (4, 5)
    assert ranks.summed(rows).shape == (4, 5)
    ranks.sum_in_place([rows])
    assert told == [("all_gather", 240), ("reduce_scatter", 240), ("all_reduce", 80), ("all_reduce", 80)]
    assert ranks.on(torch.device("cpu")) is ranks
    assert TracedRanks(2, 3).tell is silent


def test_a_trace_of_one_gpu_has_another_name_than_that_of_several(tmp_path: Path) -> None:
    """Catches a cache that gives the trace of one for several."""
    model = MemoryModel(small_profile(), device(), 1 << 34, tmp_path)
    one, several = small_profile({"kind": "full_fc"}, batch_size=16), shared({"kind": "full_fc"}, 3)
    assert model._traces._cache._path(dict, one) != model._traces._cache._path(dict, several)
