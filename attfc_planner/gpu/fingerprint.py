"""Facts about the device that is here, from the driver and the kernel, without starting CUDA or importing torch.

NVML is asked rather than CUDA because a CUDA context would itself take memory on the card that is being measured. Whatever it
answers but success becomes one line (`attfc_planner.gpu.nvml`).
Run ``python -m attfc_planner.gpu.fingerprint`` to see this machine.
"""

from __future__ import annotations

import math
import os
import platform
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from attfc_planner.gpu.first_device import Device, first_device, uuid_of
from attfc_planner.gpu.holders import holders
from attfc_planner.gpu.nvml import OTHERWISE, Answers, name_of, needed, refusal, session
from attfc_planner.gpu.visible import VARIABLE, foreign_order, hides_all, setting_of
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
    shares_ram: bool = False
    """Whether its memory is the machine's, as of a GB10."""
    uuid: str | None = field(default=None, compare=False)
    holders: tuple[str, ...] = field(default=(), compare=False)
    """Who holds `foreign_bytes`, as far as NVML tells."""
    notes: tuple[str, ...] = field(default=(), compare=False)
    """Lines for the user."""


@dataclass(frozen=True)
class CpuFingerprint:
    """Facts about the host: processor, cores that this process may use, memory and how much of it is available."""

    name: str
    num_cores: int
    capacity_bytes: Bytes
    available_bytes: Bytes


def cuda_fingerprint() -> CudaFingerprint | None:
    """Return the first GPU that `CUDA_VISIBLE_DEVICES` shows; None without a driver or a visible GPU.

    Numbers count by PCI bus, as NVML does; attfc sets ``CUDA_DEVICE_ORDER=PCI_BUS_ID`` wherever it starts CUDA, unless the user
    has set another order, which a line tells of.

    Raises:
        UsageError: there is a driver, and it does not answer; or the variable names a device that is not here.
    """
    found = _first_visible()
    return found if isinstance(found, CudaFingerprint) else None


def why_no_gpu() -> str:
    """Return why `cuda_fingerprint` is None, in a few words; empty where the machine simply has no GPU."""
    found = _first_visible()
    return found if isinstance(found, str) else ""


def _first_visible() -> CudaFingerprint | str:
    setting = setting_of(os.environ)
    with session() as nvml:
        if isinstance(nvml, str):
            return nvml
        if hides_all(setting):
            return f"{VARIABLE} is '{setting}', which hides all"
        device = first_device(nvml, setting, foreign_order(os.environ))
        return "" if device is None else _read_device(nvml, device)


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


def holders_now(kind: Literal["cuda", "cpu"]) -> tuple[str, ...]:
    """Return the processes that hold the device's memory now, as far as NVML tells."""
    gpu = cuda_fingerprint() if kind == "cuda" else None
    return () if gpu is None else gpu.holders


def reserved_by_driver(total_bytes: Bytes) -> Bytes:
    """Return the most that a driver keeps of a card's memory from CUDA: 512 MiB and 0.5 % of its total.

    The least such line of round figures over all cards that were seen, but for Grace's; docs/planning.md has them.
    """
    return _LEAST_RESERVE + math.ceil(_RESERVED_SHARE * total_bytes)


def _read_device(nvml: Any, device: Device) -> CudaFingerprint:
    handle = device.handle
    answers = Answers()
    with needed(f"NVML must tell the name of {device.label}"):
        name = _text(nvml.nvmlDeviceGetName(handle))
    with needed(f"NVML must tell the compute capability of {device.label}"):
        compute_capability = _compute_capability(nvml, handle)
    memory = _memory(nvml, device)
    milliwatts = answers.ask("the power limit", nvml.nvmlDeviceGetPowerManagementLimit, handle)
    driver = answers.ask("the driver's version", nvml.nvmlSystemGetDriverVersion)
    pcie = _pcie_rate(nvml, handle, answers)
    notes = (device.note, memory.note, answers.note)
    return CudaFingerprint(
        name=name,
        capacity_bytes=memory.capacity_bytes,
        foreign_bytes=memory.foreign_bytes,
        driver=_text(driver) if driver else "unknown",
        compute_capability=compute_capability,
        max_power_watts=milliwatts / 1000 if milliwatts else None,
        pcie_bytes_per_second=pcie,
        shares_ram=memory.note is not None,
        uuid=uuid_of(nvml, handle) or None,
        holders=holders(nvml, handle),
        notes=tuple(note for note in notes if note),
    )


@dataclass(frozen=True)
class _Memory:
    capacity_bytes: Bytes
    foreign_bytes: Bytes
    note: str | None = None


def _memory(nvml: Any, device: Device) -> _Memory:
    """Return a device's memory; of one that NVML has no memory of, which is the machine's, the RAM."""
    rule = f"NVML must tell the memory of {device.label}"
    try:
        memory = nvml.nvmlDeviceGetMemoryInfo(device.handle)
    except nvml.NVMLError as error:
        if error.value == nvml.NVML_ERROR_NOT_SUPPORTED:
            return _shared_memory(name_of(error))
        raise refusal(rule, error) from error
    capacity = int(memory.total) - _reserve(nvml, device.handle, int(memory.total))
    if capacity <= 0:
        raise UsageError(rule, f"{int(memory.total)} bytes", f"Look whether nvidia-smi shows it. {OTHERWISE}")
    return _Memory(capacity, max(0, capacity - int(memory.free)))


def _shared_memory(error: str) -> _Memory:
    # A GB10 (DGX Spark) has no memory of its own: NVML answers "not supported", and CUDA offers the machine's RAM.
    ram = cpu_fingerprint()
    note = f"NVML knows no memory of this GPU ({error}), as of one that shares the machine's: planning with the RAM"
    return _Memory(ram.capacity_bytes, ram.capacity_bytes - ram.available_bytes, f"{note}, {format_bytes(ram.capacity_bytes)}.")


def _reserve(nvml: Any, handle: Any, total_bytes: Bytes) -> Bytes:
    """Return what the driver keeps from CUDA; drivers before 510 do not tell, and the rule stands in."""
    try:
        return int(nvml.nvmlDeviceGetMemoryInfo(handle, version=nvml.nvmlMemory_v2).reserved)
    except nvml.NVMLError:
        return reserved_by_driver(total_bytes)


def _compute_capability(nvml: Any, handle: Any) -> float:
    try:
        major, minor = nvml.nvmlDeviceGetCudaComputeCapability(handle)
    except nvml.NVMLError as error:  # a MIG instance may leave the answer to its card
        try:
            card = nvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(handle)
        except nvml.NVMLError:
            raise error from None
        major, minor = nvml.nvmlDeviceGetCudaComputeCapability(card)
    if major < 1:
        raise UsageError("NVML must tell the compute capability", f"{major}.{minor}", f"Install a newer driver. {OTHERWISE}")
    return int(major) + int(minor) / 10


def _pcie_rate(nvml: Any, handle: Any, answers: Answers) -> float | None:
    generation = answers.ask("the PCIe generation", nvml.nvmlDeviceGetMaxPcieLinkGeneration, handle)
    width = answers.ask("the PCIe width", nvml.nvmlDeviceGetMaxPcieLinkWidth, handle)
    lane = _PCIE_GIGATRANSFERS.get(generation or 0)
    return lane * width * 1e9 / 8 if lane and width else None


def _text(value: str | bytes) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


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
    print(cuda_fingerprint() or f"No NVIDIA GPU found. {why_no_gpu()}")
    cpu = cpu_fingerprint()
    print(f"{cpu.name}, {cpu.num_cores} cores, {format_bytes(cpu.available_bytes)} of {format_bytes(cpu.capacity_bytes)} free")
