"""Fits of what no trace sees: hidden figures are found again, and no run of the fit is ever above its prediction."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attfc_planner.calibrate.memory_regression import MemoryRun, fit_cpu, fit_cuda, margin
from attfc_planner.calibrate.real_steps import RealSteps
from attfc_train.units import MIB
from tests.planner.calibrate.fakes import history, reserved, resident

RUNS = [
    history([w * MIB, a * MIB, c * MIB, a * MIB], ["weights", "activations", "convolution workspace", "activations"])
    for w, a, c in ((100, 40, 200), (100, 160, 800), (300, 80, 500), (20, 500, 100))
]
"""The convolution is at the peak of the first three, and below it in the last."""


@pytest.mark.parametrize("factor", [0.0, 0.25, 1.0, 1.75])
@pytest.mark.parametrize("constant", [0, 17 * MIB, 64 * MIB])
def test_a_rule_that_explains_the_peaks_is_found(factor: float, constant: int) -> None:
    runs = [MemoryRun(run, RealSteps("ran", reserved_bytes=reserved(run, factor, constant))) for run in RUNS]
    figures = fit_cuda(runs)
    again = [reserved(run, figures["convolution_workspace_factor"], int(figures["cublas_workspace_bytes"])) for run in RUNS]
    assert again == pytest.approx([run.real.reserved_bytes for run in runs], abs=2 * MIB)
    assert figures["convolution_workspace_factor"] >= factor, "of equal rules the one that asks for more"


def test_native_segments_are_replayed_as_such() -> None:
    """What they reserve beyond expandable ones is no constant: it would be counted twice, here and by the plan."""
    run = history([15 * MIB, 11 * MIB, 30 * MIB, 11 * MIB, 33 * MIB], ["weights", *["activations"] * 4])
    held = run.replay(run.trace.nbytes, expandable=False).peak_reserved
    assert held != run.replay(run.trace.nbytes).peak_reserved
    figures = fit_cuda([MemoryRun(run, RealSteps("ran", reserved_bytes=held), expandable=False)])
    assert figures["cublas_workspace_bytes"] == 0


def test_no_rule_keeps_the_most_that_was_seen() -> None:
    extra = [900 * MIB, 10 * MIB, 500 * MIB, 0]
    runs = [
        MemoryRun(run, RealSteps("ran", reserved_bytes=reserved(run, 0, more))) for run, more in zip(RUNS, extra, strict=True)
    ]
    figures = fit_cuda(runs)
    assert figures == {"convolution_workspace_factor": 0.0, "cublas_workspace_bytes": 900 * MIB}
    assert all(reserved(run.history, 0, 900 * MIB) >= (run.real.reserved_bytes or 0) for run in runs)


def test_the_largest_context_counts_that_can_be_one() -> None:
    """0 and 10 GiB are of other processes, which ended or began meanwhile."""

    def fitted(*sizes: int | None) -> dict[str, float]:
        reals = [RealSteps("ran", reserved_bytes=10**9, context_bytes=size) for size in sizes]
        return fit_cuda([MemoryRun(RUNS[0], real) for real in reals])

    assert fitted(300 * MIB, 500 * MIB, None, 0, 10_000 * MIB)["context_bytes"] == 500 * MIB
    assert "context_bytes" not in fitted(None), "where the driver did not tell, the table stays"
    assert "context_bytes" not in fitted(0, 10_000 * MIB)


@pytest.mark.parametrize(("base", "share"), [(300 * MIB, 0.5), (0, 0.2), (500 * MIB, 0.0)])
def test_base_and_share_of_a_process_are_found(base: int, share: float) -> None:
    runs = [MemoryRun(run, RealSteps("ran", process_bytes=resident(run, base, share))) for run in RUNS]
    figures = fit_cpu(runs)
    assert figures["context_bytes"] == pytest.approx(base, abs=MIB)
    assert figures["workspace_share"] == pytest.approx(share, abs=0.01)


def test_what_grows_less_than_the_tensors_has_no_negative_share() -> None:
    runs = [MemoryRun(run, RealSteps("ran", process_bytes=resident(run, 400 * MIB, -0.2))) for run in RUNS]
    figures = fit_cpu(runs)
    assert figures["workspace_share"] == 0
    assert 0 < figures["context_bytes"] < 400 * MIB


PEAKS = st.lists(st.tuples(st.integers(MIB, 10**12), st.integers(MIB, 10**12)), min_size=1, max_size=8)


@given(PEAKS)
def test_with_the_margin_no_run_is_above_its_prediction(pairs: list[tuple[int, int]]) -> None:
    predicted, measured = (list(column) for column in zip(*pairs, strict=True))
    figures = margin(predicted, measured)
    assert figures["headroom_bytes"] >= 64 * MIB
    assert figures["headroom_share"] >= 0.01
    assert all(one + figures["headroom_bytes"] >= other for one, other in pairs)


def test_the_margin_is_three_times_the_largest_residual() -> None:
    figures = margin([1000 * MIB, 2000 * MIB], [1100 * MIB, 1990 * MIB])
    assert figures["headroom_bytes"] == 300 * MIB
    assert figures["headroom_share"] == pytest.approx(100 / 1100)
    assert margin([10**9], [10**9]) == {"headroom_bytes": 64 * MIB, "headroom_share": 0.01}


def test_kept_tensors_cost_nothing_beside_themselves() -> None:
    kept = [history([size * MIB, MIB], ["weights", "activations"]) for size in (10, 1000, 5000)]
    sizes = [resident(run, 300 * MIB, 0.5) for run in kept]
    assert np.ptp([size - run.trace.nbytes.sum() for size, run in zip(sizes, kept, strict=True)]) == 0
