"""From a ``--gpu`` word to a GPU profile: the device that is here (measured once, then cached) or one of the catalogue.

Run ``python -m attfc_planner.gpu.detect`` to see what ``--gpu auto`` plans for here.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from attfc_planner.gpu.calibration import Calibration
from attfc_planner.gpu.catalog import find_card, get_card, load_gpu_profile
from attfc_planner.gpu.fingerprint import CpuFingerprint, CudaFingerprint, cpu_fingerprint, cuda_fingerprint, why_no_gpu
from attfc_planner.gpu.holders import who_holds
from attfc_planner.gpu.measurement_cache import EXPANDABLE, Measured, cache_path, read_cached, write_cached
from attfc_planner.gpu.profile import NOT_IN_CATALOGUE, THIS_HOST, Architecture, GpuProfile
from attfc_train.cuda_environment import allocator_setting, expands, prepare
from attfc_train.document import Precision
from attfc_train.errors import StorageError, UsageError
from attfc_train.processes import command
from attfc_train.profile.prediction import Provenance
from attfc_train.units import Bytes, format_bytes

NO_BUS = "a CPU reads its own memory; no bus lies between"
LEAST_COMPUTE_CAPABILITY = 7.5
"""CUDA 13 ended Maxwell, Pascal and Volta; CUDA 12.6 builds of torch, the last with them, end with 2.14 (pytorch#190385)."""
_CUDA_OFFERS = "torch.cuda.mem_get_info on this device"
_DRIVER_LEAVES = "NVML: the driver's total less its reserve"
_PROBED = "measured by a probe on this device"
_RAM_OFFERS = "the machine's RAM, which this GPU shares"
_SEVERAL = re.compile(r"([1-9]\d{0,3})\s*[x×*]\s*(\S.*)", re.IGNORECASE)
"""A number of cards, such as ``8xh100`` and ``2 x RTX 4090``."""
_MUCH_HELD = 0.1
"""Share of a device's memory that others hold which is worth a line: a desktop takes 1 to 5 %."""


def find_gpu(word: str) -> tuple[GpuProfile, str | None]:
    """Return the device to plan for, and a line for the user where it may not be what they expect.

    Args:
        word: ``auto``, ``cpu``, a card's name, or the path of a GPU profile (it ends in ``.json`` or has a slash). With a
            number before it, as in ``8xh100``, it is planned for one of them.

    Raises:
        UsageError: an unknown card; the message lists the nearest.
        ProfileError: the file is not a GPU profile.
    """
    if word.endswith(".json") or "/" in word:
        return load_gpu_profile(Path(word)), None
    several = _SEVERAL.fullmatch(word)
    if several is not None:
        device, note = find_gpu(several[2])
        return device, _lines(_several_note(int(several[1]), device), note)
    if word.lower() not in ("auto", "cpu"):
        card = get_card(word)
        return card, torch_note(card)
    cuda = cuda_fingerprint() if word.lower() == "auto" else None
    if cuda is not None:
        device = present_gpu(cuda)
        return device, _lines(*cuda.notes, _held_note(device), torch_note(device), _left_aside(device))
    cpu = present_cpu(cpu_fingerprint())
    return cpu, _lines(_no_gpu_note(cpu) if word.lower() == "auto" else None, _left_aside(cpu))


def _several_note(count: int, device: GpuProfile) -> str | None:
    """Return a line where more devices are asked for than are planned for."""
    if count == 1:
        return None
    return (
        f"{count} x {device.name}: planned for one of them. attfc-train uses one card; a training on several at once is not "
        f"planned yet, so all figures are one card's."
    )


def _no_gpu_note(cpu: GpuProfile) -> str:
    why = why_no_gpu()
    return f"No NVIDIA GPU found{f' ({why})' if why else ''}: planning for this machine's CPU ({cpu.name}) and RAM."


def _held_note(device: GpuProfile) -> str | None:
    """Return a line about memory that others hold, where there would be a larger plan without."""
    if device.foreign_bytes < _MUCH_HELD * device.capacity_bytes:
        return None
    return (
        f"Others hold {format_bytes(device.foreign_bytes)} of {device.name}, which the plan leaves to them: "
        f"{who_holds(device)}. End them for all of it."
    )


def _lines(*notes: str | None) -> str | None:
    return "\n".join(note for note in notes if note) or None


def torch_note(device: GpuProfile) -> str | None:
    """Return a line for the user where today's usual builds of torch cannot use the device; None where they can."""
    capability = device.compute_capability
    if capability is None or capability >= LEAST_COMPUTE_CAPABILITY or device.measured:
        return None
    return (
        f"{device.name} has compute capability {capability}, and torch's usual builds (CUDA 13) begin at "
        f"{LEAST_COMPUTE_CAPABILITY}: to train on it, install a CUDA 12.6 build of torch 2.11 to 2.14 "
        "(pip install --index-url https://download.pytorch.org/whl/cu126 'torch<2.15')."
    )


def find_planned_gpu(origin: Provenance | None) -> tuple[GpuProfile, str | None]:
    """Return the device that a profile was planned for: this machine's where it was that, else the catalogue's card.

    Raises:
        UsageError: it is neither here nor in the catalogue.
    """
    if origin is None:
        device, note = find_gpu("auto")
        return device, note or f"The profile names no GPU: taking the one that is here, {device.name}."
    if not origin.gpu_source.startswith("catalogue"):
        device, _ = find_gpu("cpu" if "CPU" in origin.gpu_source else "auto")
        if device.name == origin.gpu:
            return device, _left_aside(device)
    card = find_card(origin.gpu)
    if card is None:
        rule = "--gpu must be given for a profile that was planned elsewhere"
        raise UsageError(rule, f"'{origin.gpu}'", "Give a card ('attfc-plan gpus' lists them) or a GPU profile file.")
    return card, None


def present_gpu(found: CudaFingerprint) -> GpuProfile:
    """Return the GPU that is here: CUDA's memory, NVML's facts, the catalogue's ceilings of a known card, measured rates."""
    measured = _measured("cuda", f"{found.name}|{found.driver}", _precisions(found.compute_capability))
    known = _stated_rates(found, measured.rates)
    offered = [found.capacity_bytes, int(measured.rates.get("capacity_bytes", found.capacity_bytes))]
    capacity = min(*offered, *([known["capacity_bytes"]] if found.shares_ram and "capacity_bytes" in known else []))
    facts = {
        "capacity_bytes": capacity,
        # What is not free of the driver's figure and no part of CUDA's is held by nobody.
        "foreign_bytes": max(0, found.foreign_bytes - (found.capacity_bytes - capacity)),
        "compute_capability": found.compute_capability,
        "max_power_watts": found.max_power_watts,
        "pcie_bytes_per_second": found.pcie_bytes_per_second,
    }
    facts = {name: value for name, value in facts.items() if value is not None}
    host = {"num_cores": cpu_fingerprint().num_cores, "driver": found.driver, "measured": measured.rates or None}
    host["native_segments"] = _reason_for_native(measured.rates)
    sources = {**known["sources"], **dict.fromkeys(facts, "NVML"), "num_cores": THIS_HOST, "measured": measured.source}
    sources["capacity_bytes"] = _capacity_source(found, measured, capacity)
    identity = {"name": found.name, "kind": "cuda", "architecture": _architecture(found.compute_capability)}
    whole = {**known, **identity, **facts, **host, "holders": found.holders, "sources": sources}
    try:
        return _with_calibration(GpuProfile.model_validate(whole), measured)
    except ValueError as error:
        remedy = "Update the driver, or give --gpu a card or a GPU profile file."
        raise UsageError("what the driver tells of a GPU must make sense", f"'{found}'"[:200], remedy) from error


def _capacity_source(found: CudaFingerprint, measured: Measured, capacity: Bytes) -> str:
    if measured.rates.get("capacity_bytes") == capacity:
        return _CUDA_OFFERS
    return _RAM_OFFERS if found.shares_ram else _DRIVER_LEAVES


def _reason_for_native(rates: dict[str, float]) -> str | None:
    """Return why training on this GPU will have native segments; None where it will have expandable ones."""
    environment = dict(os.environ)
    prepare(environment)
    setting = allocator_setting(environment)
    if not expands(setting):
        return f"PYTORCH_ALLOC_CONF is '{setting}'"
    return None if rates.get(EXPANDABLE, 1) else "expandable ones are not supported here"


def _precisions(compute_capability: float) -> tuple[Precision, ...]:
    """Return the precisions with a rate of their own: bf16 tensor cores came with Ampere."""
    return ("fp32", "fp16", "bf16") if compute_capability >= 8 else ("fp32", "fp16")


def _stated_rates(found: CudaFingerprint, rates: dict[str, float]) -> dict[str, Any]:
    """Return the catalogue's entry for the card; for a device that it does not know, what the probes measured."""
    card = find_card(found.name, None if found.shares_ram else found.capacity_bytes)
    if card is not None:
        return card.model_dump(exclude_none=True)
    if not rates:
        held = f": {', '.join(found.holders)}" if found.holders else ""
        raise UsageError(
            f"'{found.name}' is not in the catalogue and must be measured",
            f"no measurement (a torch without CUDA, or a card that is full{held})",
            "Install a CUDA build of torch, free the card, or give --gpu a GPU profile file.",
        )
    stated = {name: rate for name, rate in rates.items() if name in GpuProfile.model_fields}
    return {**stated, "slug": NOT_IN_CATALOGUE, "sources": dict.fromkeys(stated, _PROBED)}


def present_cpu(found: CpuFingerprint) -> GpuProfile:
    """Return this machine's processor and RAM as a device to plan for; it trains in fp32."""
    measured = _measured("cpu", f"{found.name}|{found.num_cores}", ("fp32",))
    rates = measured.rates
    bandwidth = rates["memory_bandwidth_bytes_per_second"]
    device = GpuProfile(
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
            "num_cores": THIS_HOST,
            "measured": measured.source,
        },
    )
    return _with_calibration(device, measured)


def _with_calibration(device: GpuProfile, measured: Measured) -> GpuProfile:
    return device if measured.calibration is None else device.calibrated(measured.calibration)


def is_here(device: GpuProfile) -> bool:
    """Return whether this machine can train on `device`: it is a CPU, or the GPU that CUDA would choose has its name."""
    if device.kind == "cpu":
        return True
    try:
        cuda = cuda_fingerprint()
    except UsageError:  # a driver that does not answer is no reason against a plan for another machine
        return False
    if cuda is None:
        return False
    card = find_card(cuda.name, cuda.capacity_bytes)
    return device.name == cuda.name or (card is not None and card.slug == device.slug)


def require_here(device: GpuProfile) -> None:
    """Raise UsageError unless `is_here`."""
    if not is_here(device):
        cuda = cuda_fingerprint()
        raise UsageError(
            f"--train needs the GPU that was planned for ({device.name})",
            f"'{cuda.name}'" if cuda else "a machine without an NVIDIA GPU",
            "Plan with --gpu auto, or leave --train out.",
        )


def store_calibration(device: GpuProfile, calibration: Calibration) -> Path:
    """Keep the calibration of a device that is here, for all later plans, and return where.

    Raises:
        StorageError: the cache folder cannot be written.
    """
    path, precisions = _kept_at(device)
    rates = device.without_calibration().measured or {}
    # The rates keep the day on which they were probed: a calibration does not make them younger.
    former = read_cached(path, device.kind, precisions)
    probed = former.date if former is not None and former.rates == rates else datetime.now(UTC).date().isoformat()
    write_cached(path, Measured(rates, probed, calibration))
    return path


def _kept_at(device: GpuProfile) -> tuple[Path, tuple[Precision, ...]]:
    """Return the file of the measurements of a device that is here, and the precisions whose rates are in it."""
    kind = device.kind
    precisions: tuple[Precision, ...] = _precisions(device.compute_capability or 0) if kind == "cuda" else ("fp32",)
    owner = f"{device.name}|{device.driver if kind == 'cuda' else device.num_cores}"
    return cache_path(kind, owner, precisions), precisions


def _left_aside(device: GpuProfile) -> str | None:
    """Return a line about a calibration of a device that is here, where one is kept that does not count any more."""
    path, precisions = _kept_at(device)
    kept = read_cached(path, device.kind, precisions)
    return None if kept is None else kept.left_aside


def _measured(kind: Literal["cuda", "cpu"], device_key: str, precisions: tuple[Precision, ...]) -> Measured:
    """Return measurements, from the cache where this device was measured lately in the same surroundings (`cache_path`)."""
    path = cache_path(kind, device_key, precisions)
    cached = read_cached(path, kind, precisions)
    if cached is not None:
        return cached
    fresh = Measured(_probed(kind, precisions), datetime.now(UTC).date().isoformat())
    if fresh.rates:
        with contextlib.suppress(StorageError):  # a read-only home costs a probe each time, nothing else
            write_cached(path, fresh)
    return fresh


def _probed(kind: Literal["cuda", "cpu"], precisions: tuple[Precision, ...]) -> dict[str, float]:
    """Measure in a process of its own: a CUDA context and the probes' buffers would stay in this one.

    Returns:
        Rates; none where a GPU cannot be measured (a torch without CUDA, a full card).
    """
    program = command("attfc_planner.gpu.probes", "--device", kind, "--precisions", ",".join(precisions))
    environment = dict(os.environ)
    prepare(environment)
    child = subprocess.run(program, capture_output=True, text=True, env=environment, check=False)
    if child.returncode == 0:
        return {name: float(rate) for name, rate in json.loads(child.stdout).items()}
    if kind == "cuda":
        return {}
    reason = (child.stderr.strip().splitlines() or [f"exit code {child.returncode}"])[-1]
    raise UsageError("this CPU must be measured", f"'{reason}'", "Give --gpu a card of the catalogue or a GPU profile file.")


def _architecture(compute_capability: float) -> Architecture:
    """Return the architecture by NVIDIA's table of compute capabilities."""
    table: tuple[tuple[float, Architecture], ...] = ((10, "blackwell"), (9, "hopper"), (8.9, "ada"), (8, "ampere"))
    older: tuple[tuple[float, Architecture], ...] = ((7.5, "turing"), (7, "volta"), (0, "pascal"))
    return next(name for least, name in table + older if compute_capability >= least)


if __name__ == "__main__":
    device, message = find_gpu("auto")
    print(message or "NVIDIA GPU found.")
    print(device.model_dump_json(indent=2, exclude_none=True))
