"""Ceilings of a device: the rates of large matrix products and of copies, measured in a fraction of a second each."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from attfc_train.document import Precision
from attfc_train.optim.precision import AUTOCAST_DTYPE
from attfc_train.units import Seconds

SECONDS_PER_PROBE: Seconds = 0.3


@dataclass(frozen=True, slots=True)
class Ceilings:
    """The rates that no step can exceed for long."""

    flops: float
    """FLOP/s of a matrix product in the run's precision."""
    bandwidth: float
    """Bytes/s that the device's memory gives and takes together."""
    copy_rate: float | None
    """Bytes/s from the host's page-locked memory; None on a CPU, which copies nothing."""

    def or_better(self, other: Ceilings) -> Ceilings:
        """Return the higher of each rate: a machine that others use shows its own at times only."""
        copied = None if self.copy_rate is None or other.copy_rate is None else max(self.copy_rate, other.copy_rate)
        return Ceilings(max(self.flops, other.flops), max(self.bandwidth, other.bandwidth), copied)


def measured_ceilings(device: torch.device, precision: Precision) -> Ceilings:
    """Measure a device; it must be prepared as for training (`attfc_train.optim.precision.prepare_device`)."""
    flops = matmul_rate(device, AUTOCAST_DTYPE[precision] or torch.float32)
    bandwidth = copy_rate(device, device)
    return Ceilings(flops, bandwidth, copy_rate(torch.device("cpu"), device) if device.type == "cuda" else None)


def matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Return FLOP/s of a square matrix product that is large enough to fill the device: 2 n^3 FLOP, n^2 sums of n products."""
    size = 8192 if device.type == "cuda" else 1024
    left = torch.randn(size, size, device=device).to(dtype)
    out = torch.empty_like(left)
    return 2 * size**3 / _best_seconds(lambda: torch.mm(left, left, out=out), device)


def copy_rate(source: torch.device, target: torch.device) -> float:
    """Return bytes/s of a 128 MiB copy; a copy inside one device counts twice, once read and once written."""
    num_bytes = 128 * 1024**2
    pinned = source != target
    data = torch.empty(num_bytes, dtype=torch.uint8, device=source, pin_memory=pinned).fill_(1)
    out = torch.empty(num_bytes, dtype=torch.uint8, device=target)
    return (1 if pinned else 2) * num_bytes / _best_seconds(lambda: out.copy_(data, non_blocking=True), target)


def _best_seconds(work: Callable[[], object], device: torch.device) -> Seconds:
    """Return the shortest of the repetitions that fit into `SECONDS_PER_PROBE`, after two that do not count."""
    best = float("inf")
    end = 0.0
    for repetition in range(10_000):
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        now = time.perf_counter()
        if repetition < 2:
            end = now + SECONDS_PER_PROBE
            continue
        best = min(best, now - start)
        if now > end:
            break
    return best
