"""Short measurements of a device's real ceilings: matrix products, memory copies and host-to-device copies.

A probe repeats its work for a fraction of a second after a warm-up and reports the best rate; all together take under
three seconds. Needs torch, so it is imported only when a device is measured for the first time.
Run ``python -m attfc_planner.gpu.probes`` to measure this machine.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from attfc_train.profile import Precision

DTYPES: dict[str, tuple[Precision, torch.dtype]] = {
    "fp32_flops": ("fp32", torch.float32),
    "bf16_flops": ("bf16", torch.bfloat16),
    "fp16_flops": ("fp16", torch.float16),
}
SECONDS_PER_PROBE = 0.3


def probe(device: torch.device, precisions: tuple[Precision, ...]) -> dict[str, float]:
    """Measured rates by `GpuProfile` field name.

    Args:
        device: ``cuda`` or ``cpu``.
        precisions: those whose matrix-product rate is wanted.
    """
    rates = {field: _matmul_rate(device, dtype) for field, (name, dtype) in DTYPES.items() if name in precisions}
    rates["memory_bandwidth_bytes_per_second"] = _copy_rate(device, device)
    if device.type == "cuda":
        rates["pcie_bytes_per_second"] = _copy_rate(torch.device("cpu"), device)
    return rates


def _matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of a square matrix product that is large enough to fill the device."""
    size = 8192 if device.type == "cuda" else 1024
    left = torch.randn(size, size, device=device).to(dtype)
    out = torch.empty_like(left)
    return 2 * size**3 / _best_seconds(lambda: torch.mm(left, left, out=out), device)


def _copy_rate(source: torch.device, target: torch.device) -> float:
    """Bytes/s of a 128 MiB copy; a copy inside one device counts twice, once read and once written."""
    num_bytes = 128 * 1024**2
    pinned = source != target
    data = torch.empty(num_bytes, dtype=torch.uint8, device=source, pin_memory=pinned).fill_(1)
    out = torch.empty(num_bytes, dtype=torch.uint8, device=target)
    return (1 if pinned else 2) * num_bytes / _best_seconds(lambda: out.copy_(data, non_blocking=True), target)


def _best_seconds(work: Callable[[], object], device: torch.device) -> float:
    """The shortest of the repetitions that fit into `SECONDS_PER_PROBE`, after two that do not count."""
    best, end = float("inf"), 0.0
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


if __name__ == "__main__":
    here = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    for field_name, rate in probe(here, ("fp32", "bf16")).items():
        print(f"{field_name}: {rate / 1e9:.1f} G/s on {here}")
