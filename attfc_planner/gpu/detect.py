"""From a ``--gpu`` word to a GPU profile: the device that is here (measured once, then cached) or one of the catalogue.

Run ``python -m attfc_planner.gpu.detect`` to see what ``--gpu auto`` plans for here.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

from attfc_planner.cache import cache_folder
from attfc_planner.gpu.catalog import find_card, get_card, load_gpu_profile
from attfc_planner.gpu.fingerprint import CpuFingerprint, CudaFingerprint, cpu_fingerprint, cuda_fingerprint
from attfc_planner.gpu.profile import Architecture, GpuProfile
from attfc_train.errors import StorageError, UsageError
from attfc_train.files import write_text_atomically
from attfc_train.profile import Precision

NO_BUS = "a CPU reads its own memory; no bus lies between"
_PROBED = "measured by a probe on this device"
_AFFINITY = "sched_getaffinity of this process"


def find_gpu(word: str) -> tuple[GpuProfile, str | None]:
    """The device to plan for, and a line to tell the user where it is not what he may expect.

    Args:
        word: ``auto``, ``cpu``, a card's name, or the path of a GPU profile (``.json``).

    Raises:
        UsageError: an unknown card; the message lists the nearest.
        ProfileError: the file is not a GPU profile.
    """
    if word.endswith(".json"):
        return load_gpu_profile(Path(word)), None
    if word.lower() not in ("auto", "cpu"):
        return get_card(word), None
    found = cuda_fingerprint() if word.lower() == "auto" else None
    if found is not None:
        return present_gpu(found), None
    cpu = present_cpu(cpu_fingerprint())
    note = f"No NVIDIA GPU found: planning for this machine's CPU ({cpu.name}) and RAM."
    return cpu, note if word.lower() == "auto" else None


def present_gpu(found: CudaFingerprint) -> GpuProfile:
    """The GPU that is here: NVML's facts, the catalogue's ceilings where the card is known, and measured rates."""
    rates = _measured("cuda", f"{found.name}|{found.driver}", _precisions(found.compute_capability))
    known = _stated_rates(found.name, rates)
    facts = {
        "capacity_bytes": found.capacity_bytes,
        "foreign_bytes": found.foreign_bytes,
        "compute_capability": found.compute_capability,
        "max_power_watts": found.max_power_watts,
        "pcie_bytes_per_second": found.pcie_bytes_per_second,
    }
    facts = {name: value for name, value in facts.items() if value is not None}
    host = {"num_cores": cpu_fingerprint().num_cores, "driver": found.driver, "measured": rates}
    sources = {**known["sources"], **dict.fromkeys(facts, "NVML"), "num_cores": _AFFINITY}
    identity = {"name": found.name, "kind": "cuda", "architecture": _architecture(found.compute_capability)}
    return GpuProfile.model_validate({**known, **identity, **facts, **host, "sources": sources})


def _precisions(compute_capability: float) -> tuple[Precision, ...]:
    """bf16 tensor cores came with Ampere."""
    return ("fp32", "fp16", "bf16") if compute_capability >= 8 else ("fp32", "fp16")


def _stated_rates(name: str, rates: dict[str, float]) -> dict[str, Any]:
    """The catalogue's entry for `name`; for a card that it does not know, what the probes measured."""
    card = find_card(name)
    if card is not None:
        return card.model_dump(exclude_none=True)
    if not rates:
        raise UsageError(
            f"'{name}' is not in the catalogue and must be measured",
            "a torch without CUDA",
            "Install a CUDA build of torch, or give --gpu a GPU profile file.",
        )
    return {**rates, "slug": "this-gpu", "sources": dict.fromkeys(rates, _PROBED)}


def present_cpu(found: CpuFingerprint) -> GpuProfile:
    """This machine's processor and RAM as a device to plan for; it trains in fp32."""
    rates = _measured("cpu", f"{found.name}|{found.num_cores}", ("fp32",))
    bandwidth = rates["memory_bandwidth_bytes_per_second"]
    return GpuProfile(
        name=found.name,
        slug="cpu",
        kind="cpu",
        architecture="cpu",
        capacity_bytes=found.capacity_bytes,
        foreign_bytes=found.capacity_bytes - found.available_bytes,
        memory_bandwidth_bytes_per_second=bandwidth,
        fp32_flops=rates["fp32_flops"],
        pcie_bytes_per_second=bandwidth,
        num_cores=found.num_cores,
        measured=rates,
        sources={
            "capacity_bytes": "/proc/meminfo MemTotal, or the container's limit",
            "foreign_bytes": "/proc/meminfo: MemTotal less MemAvailable",
            "memory_bandwidth_bytes_per_second": _PROBED,
            "fp32_flops": _PROBED,
            "pcie_bytes_per_second": NO_BUS,
            "num_cores": _AFFINITY,
        },
    )


def _measured(kind: str, device_key: str, precisions: tuple[Precision, ...]) -> dict[str, float]:
    """Probe results, from the cache where this device, driver and torch were measured before."""
    key = f"{kind}|{device_key}|{version('torch')}|{','.join(precisions)}"
    path = cache_folder() / f"gpu-{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"
    with contextlib.suppress(OSError, ValueError, TypeError, AttributeError):
        return {str(name): float(rate) for name, rate in json.loads(path.read_text()).items()}
    import torch

    from attfc_planner.gpu.probes import probe

    if kind == "cuda" and not torch.cuda.is_available():
        return {}
    rates = probe(torch.device(kind), precisions)
    with contextlib.suppress(StorageError):  # a read-only home costs a probe each time, nothing else
        write_text_atomically(path, json.dumps(rates, indent=2) + "\n")
    return rates


def _architecture(compute_capability: float) -> Architecture:
    """NVIDIA's table of compute capabilities."""
    table: tuple[tuple[float, Architecture], ...] = ((10, "blackwell"), (9, "hopper"), (8.9, "ada"), (8, "ampere"))
    older: tuple[tuple[float, Architecture], ...] = ((7.5, "turing"), (7, "volta"), (0, "pascal"))
    return next(name for least, name in table + older if compute_capability >= least)


if __name__ == "__main__":
    device, message = find_gpu("auto")
    print(message or "NVIDIA GPU found.")
    print(device.model_dump_json(indent=2, exclude_none=True))
