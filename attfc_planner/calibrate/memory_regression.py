"""Regression of what no trace sees of a run's memory on the peaks of real runs: pure functions of traces and measured peaks.

    GPU:  reserved = replay(trace, workspaces = factor * uncalibrated rule) + constant
    CPU:  process  = tensors + share * passing + base

The constant is cuBLAS's workspaces and whatever else stays; `passing` are the tensors that come and go within a step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attfc_planner.calibrate.real_steps import RealSteps
from attfc_planner.gpu.calibration import CONTEXT, CONVOLUTION_FACTOR, CUBLAS, HEADROOM, HEADROOM_SHARE, WORKSPACE_SHARE
from attfc_planner.memory.model import WORKSPACE, peak_of
from attfc_planner.memory.overheads import uncalibrated_workspaces
from attfc_planner.memory.run import Run
from attfc_planner.trace.history import Trace
from attfc_train.units import MIB, Bytes

FACTORS = tuple(step / 8 for step in range(17))
"""Factors of the convolution workspaces that are tried: from none to twice the rule."""
EXPLAINED_SHARE = 0.02
"""A rule that misses a peak by more than this share does not explain the runs: then the most that was seen is kept."""

LEAST_MARGIN: Bytes = 64 * MIB
LEAST_MARGIN_SHARE = 0.01
TIMES_RESIDUAL = 3


@dataclass(frozen=True, eq=False)
class MemoryRun:
    """A real run beside its history, in which ``convolution workspace`` storages hold the bytes moved, and cuBLAS's none."""

    history: Run
    real: RealSteps
    expandable: bool = True
    """Whether the allocator had expandable segments."""
    device_bytes: Bytes | None = None


PLAUSIBLE_CONTEXT: tuple[Bytes, Bytes] = (64 * MIB, 2048 * MIB)
"""Bytes that a context can take; others mean that another process came or went, since the driver counts the whole device."""


def fit_cuda(runs: Sequence[MemoryRun]) -> dict[str, float]:
    """Return the figures of a GPU by the names of `attfc_planner.gpu.calibration`.

    Of factors that explain the peaks equally well, such as where no convolution is at a peak, the largest is taken. Where
    none explains them, there is no factor for the peaks: the constant is then the most that any run had beyond its trace.

    Args:
        runs: at least one, each with `reserved_bytes`.
    """
    # beyond[run, factor] = measured - replayed. With the right factor it is the same for all runs: its mean over them is the
    # constant (at least 0), and the factor is chosen whose largest deviation from its constant is least, within a MiB.
    beyond = np.array([_beyond_trace(run) for run in runs])
    peaks = np.array([run.real.reserved_bytes for run in runs])
    constants = np.maximum(beyond.mean(axis=0), 0)
    misses = np.abs(beyond - constants).max(axis=0)
    best = int(np.flatnonzero(misses <= misses.min() + MIB)[-1])
    figures = {CONVOLUTION_FACTOR: FACTORS[best], CUBLAS: float(round(constants[best]))}
    # Even the best factor misses a run: no workspaces then, and a constant that is enough for every run.
    if (np.abs(beyond[:, best] - constants[best]) > np.maximum(EXPLAINED_SHARE * peaks, LEAST_MARGIN)).any():
        figures = {CONVOLUTION_FACTOR: 0.0, CUBLAS: float(max(0, beyond[:, 0].max()))}
    least, most = PLAUSIBLE_CONTEXT
    contexts = [size for run in runs if (size := run.real.context_bytes) is not None and least <= size <= most]
    return {**figures, CONTEXT: float(max(contexts))} if contexts else figures


def fit_cpu(runs: Sequence[MemoryRun]) -> dict[str, float]:
    """Return a CPU's base and share, by least squares of relative errors, neither below zero.

    Args:
        runs: at least two that differ, each with `process_bytes`.
    """
    peaks = [peak_of(run.history.trace, _without_workspaces(run.history.trace)) for run in runs]
    measured = np.array([run.real.process_bytes for run in runs], np.float64)
    beyond = measured - [sum(peak.alive.values()) for peak in peaks]
    terms = np.array([(1.0, peak.passing) for peak in peaks])
    # min over base, share of sum ((base + share * passing - beyond) / measured)^2: every run counts by its relative error.
    base, share = np.linalg.lstsq(terms / measured[:, None], beyond / measured, rcond=None)[0]
    if share < 0:  # at the border share = 0 the same sum is least for a weighted mean
        base = float(np.average(beyond, weights=measured**-2))
        share = 0.0
    return {CONTEXT: float(round(max(base, 0))), WORKSPACE_SHARE: float(share)}


def margin(predicted: Sequence[Bytes], measured: Sequence[Bytes]) -> dict[str, float]:
    """Return the headroom that the residuals ask for: never under on these runs, and in proportion on larger ones."""
    # headroom = max(64 MiB, 3 * largest residual) bytes, or the largest relative residual, at least 1 %, if that is more.
    residuals = np.abs(np.array(predicted) - np.array(measured))
    share = max(LEAST_MARGIN_SHARE, float((residuals / np.array(measured)).max()))
    return {HEADROOM: float(max(LEAST_MARGIN, TIMES_RESIDUAL * int(residuals.max()))), HEADROOM_SHARE: share}


def _beyond_trace(run: MemoryRun) -> list[Bytes]:
    """Return for each of `FACTORS` how much more the real allocator reserved than the replay does."""
    assert run.real.reserved_bytes is not None
    trace = run.history.trace
    rows = np.array(trace.categories) == WORKSPACE
    rule = uncalibrated_workspaces(trace.nbytes[rows])
    beyond = []
    for factor in FACTORS:
        sizes = trace.nbytes.copy()
        sizes[rows] = np.rint(factor * rule).astype(np.int64)
        beyond.append(run.real.reserved_bytes - run.history.replay(sizes, run.expandable, run.device_bytes).peak_reserved)
    return beyond


def _without_workspaces(trace: Trace) -> NDArray[np.int64]:
    return np.where(np.array(trace.categories) == WORKSPACE, 0, trace.nbytes)
