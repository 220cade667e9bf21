"""Facts about the device that is here, from the driver and the kernel, without starting CUDA or importing torch.

NVML is asked rather than CUDA because a CUDA context would itself take memory on the card that is being measured.
Run ``python -m attfc_planner.gpu.fingerprint`` to see this machine.
"""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from attfc_train.errors import UsageError
from attfc_train.units import Bytes, format_bytes

_PCIE_GIGATRANSFERS = {1: 2.5 * 0.8, 2: 5 * 0.8, 3: 8 * 128 / 130, 4: 16 * 128 / 130, 5: 32 * 128 / 130, 6: 64 * 0.98}
"""Usable Gbit/s of one PCIe lane and direction, by generation (PCI-SIG)."""


@dataclass(frozen=True)
class CudaFingerprint:
    """NVML's facts about one NVIDIA GPU."""

    name: str
    capacity_bytes: Bytes
    foreign_bytes: Bytes
    """All memory that is not free now, the driver's reserve included."""
    driver: str
    compute_capability: float
    max_power_watts: float | None
    pcie_bytes_per_second: float | None


@dataclass(frozen=True)
class CpuFingerprint:
    """Facts about the host: processor, cores that this process may use, memory and how much of it is available."""

    name: str
    num_cores: int
    capacity_bytes: Bytes
    available_bytes: Bytes


def cuda_fingerprint() -> CudaFingerprint | None:
    """Return the first GPU that `CUDA_VISIBLE_DEVICES` shows; None without a driver or a visible GPU.

    Numbers count by PCI bus, as NVML does; attfc sets ``CUDA_DEVICE_ORDER=PCI_BUS_ID`` wherever it starts CUDA.
    """
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    try:
        handle = _visible_device(pynvml)
        return None if handle is None else _read_device(pynvml, handle)
    finally:
        pynvml.nvmlShutdown()


def cpu_fingerprint() -> CpuFingerprint:
    """Return this machine's processor and memory; a container's limit counts as the machine's."""
    info = _meminfo()
    limit = _container_limit() or info["MemTotal"]
    capacity = min(info["MemTotal"], limit)
    return CpuFingerprint(_cpu_name(), len(os.sched_getaffinity(0)), capacity, min(info["MemAvailable"], capacity))


def foreign_bytes(kind: Literal["cuda", "cpu"]) -> Bytes | None:
    """Return the bytes that others hold of the device's memory now; None where there is no such device."""
    if kind == "cpu":
        cpu = cpu_fingerprint()
        return cpu.capacity_bytes - cpu.available_bytes
    gpu = cuda_fingerprint()
    return None if gpu is None else gpu.foreign_bytes


def _visible_device(nvml: Any) -> Any:
    count = nvml.nvmlDeviceGetCount()
    wanted = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip()
    if not count or wanted in ("", "-1"):
        return None
    try:
        if wanted.isdecimal():
            return nvml.nvmlDeviceGetHandleByIndex(int(wanted))
        return nvml.nvmlDeviceGetHandleByUUID(wanted)
    except nvml.NVMLError as error:
        raise UsageError(
            "CUDA_VISIBLE_DEVICES must name a GPU of this machine", f"'{wanted}' ({error})", "Correct it or unset it."
        ) from error


def _read_device(nvml: Any, handle: Any) -> CudaFingerprint:
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    major, minor = nvml.nvmlDeviceGetCudaComputeCapability(handle)
    milliwatts = _ask(nvml, nvml.nvmlDeviceGetPowerManagementLimit, handle)
    return CudaFingerprint(
        name=_text(nvml.nvmlDeviceGetName(handle)),
        capacity_bytes=int(memory.total),
        foreign_bytes=int(memory.total - memory.free),
        driver=_text(nvml.nvmlSystemGetDriverVersion()),
        compute_capability=major + minor / 10,
        max_power_watts=milliwatts / 1000 if milliwatts else None,
        pcie_bytes_per_second=_pcie_rate(nvml, handle),
    )


def _pcie_rate(nvml: Any, handle: Any) -> float | None:
    generation = _ask(nvml, nvml.nvmlDeviceGetMaxPcieLinkGeneration, handle)
    width = _ask(nvml, nvml.nvmlDeviceGetMaxPcieLinkWidth, handle)
    lane = _PCIE_GIGATRANSFERS.get(generation or 0)
    return lane * width * 1e9 / 8 if lane and width else None


def _ask(nvml: Any, question: Any, handle: Any) -> int | None:
    """Return NVML's answer; None where a card or a virtual GPU does not support the question."""
    try:
        return int(question(handle))
    except nvml.NVMLError:
        return None


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _meminfo() -> dict[str, Bytes]:
    lines = Path("/proc/meminfo").read_text().splitlines()
    return {name: int(rest.split()[0]) * 1024 for name, rest in (line.split(":", 1) for line in lines)}


def _container_limit() -> Bytes | None:
    try:
        text = Path("/sys/fs/cgroup/memory.max").read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None


def _cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


if __name__ == "__main__":
    gpu = cuda_fingerprint()
    print(gpu if gpu else "No NVIDIA GPU found.")
    cpu = cpu_fingerprint()
    print(f"{cpu.name}, {cpu.num_cores} cores, {format_bytes(cpu.available_bytes)} of {format_bytes(cpu.capacity_bytes)} free")
