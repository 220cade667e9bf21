"""Shares of ceilings, and the line about the limit."""

from __future__ import annotations

import pytest

from attfc_train.document import Precision
from attfc_train.profile.prediction import PhaseSeconds
from attfc_train.timing.ceilings import Ceilings
from attfc_train.timing.limits import limit_line, phase_times
from attfc_train.timing.marks import BETWEEN, WAITING
from attfc_train.timing.op_cost import OpCost, OpKind

CEILINGS = Ceilings("fp32", has_tf32=False, flops={"fp32": 1e12}, bandwidth=1e11, copy_rate=1e10)
CONV = OpCost("convolution", "conv", "forward", 10**9, 10**7, 4)
NORM = OpCost("native_batch_norm", "norm", "forward", 0, 10**8, 2)
COSTS = (CONV, NORM, OpCost("convolution_backward", "conv", "backward", 2 * 10**9, 2 * 10**7, 4))
SECONDS = {"backward": 0.004, "forward": 0.004, BETWEEN: 0.001, "input": 0.001}


def test_a_row_has_its_own_work_and_its_shares() -> None:
    """Catches a share of the other ceiling, and a least time that adds what overlaps."""
    rows = {row.phase: row for row in phase_times(SECONDS, COSTS, CEILINGS, copied_bytes=10**6)}
    assert list(rows) == ["input", "forward", "backward", BETWEEN]
    forward = rows["forward"]
    assert (forward.flops, forward.bytes, forward.operators) == (10**9, 11 * 10**7, 6)
    assert forward.matrix_share == pytest.approx(1e9 / 0.004 / 1e12)
    assert forward.memory_share == pytest.approx(1.1e8 / 0.004 / 1e11)
    assert forward.least_seconds == pytest.approx(1e9 / 1e12 + 1e8 / 1e11), "1 ms of arithmetic, then 1 ms of traffic"
    assert rows["input"].copied_bytes == 10**6
    assert rows["input"].least_seconds == 0, "the copy needs 0.1 ms, beside a step that needs 5.1"
    assert sum(row.share for row in rows.values()) == pytest.approx(1)
    assert forward.share == pytest.approx(0.4)


def test_a_step_waits_at_least_for_what_its_copy_takes_longer_than_it() -> None:
    """Catches a copy that adds to the step, and one that is forgotten."""
    rows = phase_times(SECONDS, COSTS, CEILINGS, copied_bytes=2 * 10**8)
    assert sum(row.least_seconds for row in rows) == pytest.approx(2e8 / 1e10)


def test_a_prediction_stands_in_the_row_of_its_phase() -> None:
    predicted = PhaseSeconds(phase="backward", low=0.001, high=0.002)
    rows = {row.phase: row for row in phase_times(SECONDS, COSTS, CEILINGS, predicted=[predicted])}
    assert rows["backward"].predicted == predicted
    assert rows["forward"].predicted is None


@pytest.mark.parametrize(
    ("precision", "kind", "rate"),
    [
        ("fp32", "wide kernel", 4e12),
        ("fp32", "conv", 4e12),
        ("fp32", "loss", 1e12),
        ("fp32", "narrow kernel", 8e12),
        ("bf16", "wide kernel", 4e12),
        ("bf16", "optimizer", 4e12),
        ("bf16", "conv", 8e12),
    ],
)
def test_a_share_is_of_the_ceiling_of_the_arithmetic_that_is_used(precision: Precision, kind: OpKind, rate: float) -> None:
    """Catches three passes of TF32 held against plain fp32, which would be at 400 %, in each figure of a report."""
    ceilings = Ceilings(precision, True, {"fp32": 1e12, "tf32": 4e12, "bf16": 8e12}, bandwidth=1e11, copy_rate=1e10)
    costs = [OpCost("scores", kind, "loss", 10**10, 10**6, 12), OpCost("copy_", "elementwise", "loss", 0, 10**3, 1)]
    (row,) = phase_times({"loss": 0.02}, costs, ceilings)
    assert row.matrix_share == pytest.approx(1e10 / rate / 0.02)
    assert row.least_seconds == pytest.approx(1e10 / rate + 1e3 / 1e11)
    assert f"at {1e10 / rate / 0.02:.0%} of the matrix rate" in limit_line([row], costs, ceilings)


def test_a_phase_of_two_arithmetics_reaches_the_sum_of_both_shares() -> None:
    """Catches a mean of rates, or the FLOPs of all at the rate of one."""
    ceilings = Ceilings("fp32", True, {"fp32": 1e12, "tf32": 4e12}, bandwidth=1e11, copy_rate=1e10)
    costs = [OpCost("scores", "wide kernel", "loss", 4 * 10**9, 0, 1), OpCost("bmm", "loss", "loss", 10**9, 0, 1)]
    (row,) = phase_times({"loss": 0.01}, costs, ceilings)
    assert row.matrix_share == pytest.approx(0.1 + 0.1)


def line(seconds: dict[str, float], costs: tuple[OpCost, ...] = COSTS, copied: int = 0) -> str:
    return limit_line(phase_times(seconds, costs, CEILINGS, copied), costs, CEILINGS)


def test_the_largest_part_and_its_ceiling_are_named() -> None:
    assert line(SECONDS) == "query forward and backward: 80%, at 38% of the matrix rate (most of its work: convolutions)"


def test_what_moves_more_than_it_computes_is_bound_by_memory() -> None:
    update = (OpCost("_foreach_add_", "optimizer", "update", 0, 10**9, 3),)
    said = line({"update": 0.02, "forward": 0.001}, update)
    assert said == "momentum, optimiser and enqueue: 95%, at 50% of the memory bandwidth (most of its traffic: updates)"


def test_neither_ceiling_is_blamed_where_both_are_far() -> None:
    said = line({"forward": 1.0})
    assert said.endswith("; far from both ceilings, with 6 calls of operators")


def test_waiting_and_copying_have_no_operators_to_blame() -> None:
    assert line({WAITING: 0.5, "forward": 0.1}).startswith("waiting for data: 83%")
    said = line({"input": 0.01, "forward": 0.0025}, copied=5 * 10**7)
    assert said == "batch copy: 80%, at 40% of the copy rate from the host, or more", "50 MB within 12.5 ms"
    assert line({BETWEEN: 1.0}) == "the host between phases: 100%, with no operator in it"
