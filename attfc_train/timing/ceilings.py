"""Ceilings of a device: the rates of large matrix products and of copies, measured in a fraction of a second each."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import torch

from attfc_train.document import Precision
from attfc_train.losses.card import Card
from attfc_train.timing.arithmetic import Arithmetic, arithmetic_of
from attfc_train.timing.op_cost import OpCost, OpKind
from attfc_train.units import Seconds

SECONDS_PER_PROBE: Seconds = 0.3
_DTYPES: Final[dict[Arithmetic, torch.dtype]] = {
    "fp32": torch.float32,
    "tf32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
}


@dataclass(frozen=True, slots=True)
class Ceilings:
    """The rates that no step in a precision can exceed for long."""

    precision: Precision
    has_tf32: bool
    flops: Mapping[Arithmetic, float]
    """FLOP/s of a large matrix product, in the precision and in all that the step's operators multiply in."""
    bandwidth: float
    """Bytes/s that the device's memory gives and takes together."""
    copy_rate: float | None
    """Bytes/s from the host's page-locked memory; None on a CPU, which copies nothing."""

    def arithmetic_seconds(self, cost: OpCost) -> Seconds:
        """Return the least time of an operator's FLOPs, by the rate of the arithmetic that it uses."""
        return cost.flops / self.flops[arithmetic_of(cost.kind, self.precision, self.has_tf32)] if cost.flops else 0.0

    def or_better(self, other: Ceilings) -> Ceilings:
        """Return the higher of each rate, of the same device: a machine that others use shows its own at times only."""
        copied = None if self.copy_rate is None or other.copy_rate is None else max(self.copy_rate, other.copy_rate)
        flops = {name: max(rate, other.flops[name]) for name, rate in self.flops.items()}
        return Ceilings(self.precision, self.has_tf32, flops, max(self.bandwidth, other.bandwidth), copied)


def measured_ceilings(device: torch.device, precision: Precision, kinds: Collection[OpKind]) -> Ceilings:
    """Measure a device for a run whose FLOPs are in operators of these kinds."""
    has_tf32 = device.type == "cuda" and Card.of(device).has_tensor_cores
    needed: dict[Arithmetic, None] = {precision: None, **{arithmetic_of(kind, precision, has_tf32): None for kind in kinds}}
    flops = {arithmetic: matmul_rate(device, arithmetic) for arithmetic in needed}
    copied = copy_rate(torch.device("cpu"), device) if device.type == "cuda" else None
    return Ceilings(precision, has_tf32, flops, copy_rate(device, device), copied)


def matmul_rate(device: torch.device, arithmetic: Arithmetic) -> float:
    """Return FLOP/s of a square matrix product that is large enough to fill the device: 2 n^3 FLOP, n^2 sums of n products."""
    size = 8192 if device.type == "cuda" else 1024
    left = torch.randn(size, size, device=device).to(_DTYPES[arithmetic])
    out = torch.empty_like(left)
    with _shortening(arithmetic == "tf32"):
        return 2 * size**3 / _best_seconds(lambda: torch.mm(left, left, out=out), device)


@contextmanager
def _shortening(allowed: bool) -> Iterator[None]:
    """Let products of fp32 operands be of TF32, or not, whatever the run's setting is, which comes back."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if allowed else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


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
