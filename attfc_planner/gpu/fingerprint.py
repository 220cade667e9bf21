"""Facts about the device that is here, from the driver and the kernel, without starting CUDA or importing torch.

NVML is asked rather than CUDA because a CUDA context would itself take memory on the card that is being measured.
Run ``python -m attfc_planner.gpu.fingerprint`` to see this machine.
"""

from __future__ import annotations

import math
import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from attfc_train.errors import UsageError
from attfc_train.units import MIB, Bytes, format_bytes

_PCIE_GIGATRANSFERS = {1: 2.5 * 0.8, 2: 5 * 0.8, 3: 8 * 128 / 130, 4: 16 * 128 / 130, 5: 32 * 128 / 130, 6: 64 * 0.98}
"""Usable Gbit/s of one PCIe lane and direction, by generation (PCI-SIG)."""

_LEAST_RESERVE = 512 * MIB
_RESERVED_SHARE = 0.005


@dataclass(frozen=True)
class CudaFingerprint:
    """NVML's facts about one NVIDIA GPU."""

    name: str
    capacity_bytes: Bytes
    """What the driver leaves to CUDA: its total, which nvidia-smi shows, less its reserve."""
    foreign_bytes: Bytes
    """What of this capacity is not free now."""
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


def reserved_by_driver(total_bytes: Bytes) -> Bytes:
    """Return the most that a driver keeps of a card's memory from CUDA: 512 MiB and 0.5 % of its total.

    The least such line of round figures over all cards that were seen, but for Grace's; docs/planning.md has them.
    """
    return _LEAST_RESERVE + math.ceil(_RESERVED_SHARE * total_bytes)


def _visible_device(nvml: Any) -> Any:
    count = nvml.nvmlDeviceGetCount()
    wanted = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip()
    if not count or wanted in ("", "-1"):
        return None
    try:
        if wanted.isdecimal():
            return _first_instance(nvml, nvml.nvmlDeviceGetHandleByIndex(int(wanted)))
        return nvml.nvmlDeviceGetHandleByUUID(wanted)
    except nvml.NVMLError as error:
        raise UsageError(
            "CUDA_VISIBLE_DEVICES must name a GPU of this machine", f"'{wanted}' ({error})", "Correct it or unset it."
        ) from error


def _first_instance(nvml: Any, handle: Any) -> Any:
    """Return the first MIG instance of a card that is divided into such, as CUDA takes it; else the card."""
    try:
        mode, _ = nvml.nvmlDeviceGetMigMode(handle)
        return nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, 0) if mode == nvml.NVML_DEVICE_MIG_ENABLE else handle
    except nvml.NVMLError:  # most cards know no MIG
        return handle


def _read_device(nvml: Any, handle: Any) -> CudaFingerprint:
    try:
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
        major, minor = _compute_capability(nvml, handle)
        name = _text(nvml.nvmlDeviceGetName(handle))
    except nvml.NVMLError as error:
        remedy = "Give --gpu a card ('attfc-plan gpus' lists them), a GPU profile file, or cpu."
        raise UsageError("the driver must tell the GPU's name, memory and compute capability", f"'{error}'", remedy) from error
    capacity = int(memory.total) - _reserve(nvml, handle, int(memory.total))
    milliwatts = _ask(nvml, nvml.nvmlDeviceGetPowerManagementLimit, handle)
    return CudaFingerprint(
        name=name,
        capacity_bytes=capacity,
        foreign_bytes=max(0, capacity - int(memory.free)),
        driver=_text(nvml.nvmlSystemGetDriverVersion()),
        compute_capability=major + minor / 10,
        max_power_watts=milliwatts / 1000 if milliwatts else None,
        pcie_bytes_per_second=_pcie_rate(nvml, handle),
    )


def _reserve(nvml: Any, handle: Any, total_bytes: Bytes) -> Bytes:
    """Return what the driver keeps from CUDA; drivers before 510 do not tell, and the rule stands in."""
    try:
        return int(nvml.nvmlDeviceGetMemoryInfo(handle, version=nvml.nvmlMemory_v2).reserved)
    except nvml.NVMLError:
        return reserved_by_driver(total_bytes)


def _compute_capability(nvml: Any, handle: Any) -> tuple[int, int]:
    try:
        major, minor = nvml.nvmlDeviceGetCudaComputeCapability(handle)
    except nvml.NVMLError:  # a MIG instance may leave the answer to its card
        card = nvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(handle)
        major, minor = nvml.nvmlDeviceGetCudaComputeCapability(card)
    return int(major), int(minor)


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
