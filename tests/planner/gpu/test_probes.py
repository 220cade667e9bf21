"""What the probes report, and when a stored report counts."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
import torch

from attfc_planner.gpu import probes
from attfc_planner.gpu.measurement_cache import EXPANDABLE, Measured, read_cached, write_cached
from attfc_train.units import GIB

RATES = {
    "fp32_flops": 1e13,
    "fp16_flops": 1e14,
    "memory_bandwidth_bytes_per_second": 1e12,
    "pcie_bytes_per_second": 2e10,
    "capacity_bytes": 23.5 * GIB,
    EXPANDABLE: 0.0,
}


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> torch.device:
    """A GPU that is not there: its rates are given, and torch says that CUDA offers 23.5 GiB and no expandable segments."""
    monkeypatch.setattr(probes, "matmul_rate", lambda device, dtype: 1e13)
    monkeypatch.setattr(probes, "copy_rate", lambda source, target: 1e12 if source == target else 2e10)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (20 * GIB, 23 * GIB + GIB // 2))
    monkeypatch.setattr(probes, "claim_segments", lambda device: False)
    monkeypatch.setattr(probes, "_is_expandable", lambda device: False)
    return torch.device("cuda")


def test_a_gpu_is_measured_with_the_memory_that_cuda_offers(device: torch.device) -> None:
    """Catches the free memory in place of the capacity, and a probe that leaves it out."""
    rates = probes.probe(device, ("fp32",))
    assert rates["capacity_bytes"] == 23.5 * GIB
    assert rates["pcie_bytes_per_second"] == 2e10
    assert rates[EXPANDABLE] == 0
    assert set(probes.probe(torch.device("cpu"), ("fp32",))) == {"fp32_flops", "memory_bandwidth_bytes_per_second"}


@pytest.mark.parametrize("missing", sorted(RATES))
def test_a_gpus_measurements_without_a_figure_are_made_again(missing: str, tmp_path: Path) -> None:
    """Catches measurements of an earlier attfc, which knew no capacity."""
    path = tmp_path / "gpu.json"
    today = datetime.now(UTC).date().isoformat()
    write_cached(path, Measured(dict(RATES), today))
    assert read_cached(path, "cuda", ("fp32", "fp16")) == Measured(RATES, today)
    write_cached(path, Measured({name: rate for name, rate in RATES.items() if name != missing}, today))
    assert read_cached(path, "cuda", ("fp32", "fp16")) is None
