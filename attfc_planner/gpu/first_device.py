"""The device that CUDA would take for its first, as a handle of NVML's: a GPU, or a slice of one (MIG)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from attfc_planner.gpu.nvml import OTHERWISE, named, needed, refusal
from attfc_planner.gpu.visible import ORDER, VARIABLE, is_of_a_slice, listed, match
from attfc_train.errors import UsageError

_MOST_SLICES = 7
"""Of one card, where NVML does not tell."""
_MOST_LISTED = 64
"""Slices that are looked for, whatever NVML tells."""


@dataclass(frozen=True)
class Device:
    """A device by NVML's handle."""

    handle: Any
    label: str
    """As messages call it."""
    note: str | None = None
    """A line for the user."""


def first_device(nvml: Any, setting: str | None, order: str | None = None) -> Device | None:
    """Return the first device that CUDA sees with a setting of ``CUDA_VISIBLE_DEVICES``; None on a machine without a GPU.

    Args:
        setting: not one that hides all devices.
        order: of ``CUDA_DEVICE_ORDER``, if it is another than NVML's.

    Raises:
        UsageError: the setting names no device of this machine, or NVML does not open it.
    """
    with needed("NVML must count this machine's GPUs"):
        count = nvml.nvmlDeviceGetCount()
    if not count:
        return None
    names = listed(setting)
    if not names:
        raise _not_here(setting, "with one device twice, of which CUDA shows none")
    if is_of_a_slice(setting):
        return _called(nvml, setting, [str(name) for name in names], _slices(nvml, count))
    first = names[0]
    if isinstance(first, int):
        device = Device(_numbered(nvml, count, first, setting), f"GPU {first}")
        return _doubtful(nvml, _divided(nvml, device), device, count, order)
    gpus = ((device, (uuid_of(nvml, device.handle),)) for device in _opened(nvml, count))
    return _divided(nvml, _called(nvml, setting, [str(name) for name in names], gpus))


def _doubtful(nvml: Any, taken: Device, device: Device, count: int, order: str | None) -> Device:
    """Return the device that was taken, with a line where CUDA may count to another one of this machine's."""
    if order is None:
        return taken
    kinds = [_kind(nvml, each.handle) for each in _opened(nvml, count)]
    others = [name for name in dict.fromkeys(kinds) if name != _kind(nvml, device.handle)]
    if not others:  # equally fast ones stay as they are on the bus
        return taken
    note = (
        f"{ORDER} is '{order}', so that CUDA may take {others[0]} for {device.label}; planning for the one that NVML numbers "
        f"so, by PCI bus. Unset {ORDER}, or name a GPU by its UUID ({VARIABLE}=GPU-...; 'nvidia-smi -L' lists them)."
    )
    return replace(taken, note=f"{taken.note}\n{note}" if taken.note else note)


def _kind(nvml: Any, handle: Any) -> str:
    """Return what is equal for cards that are alike: the name; empty where NVML does not tell."""
    try:
        name = nvml.nvmlDeviceGetName(handle)
    except (nvml.NVMLError, UnicodeDecodeError):
        return ""
    return name.decode(errors="replace") if isinstance(name, bytes) else str(name)


def _not_here(setting: str | None, why: str) -> UsageError:
    remedy = f"Correct it ('nvidia-smi -L' lists them) or unset it. {OTHERWISE}"
    return UsageError(f"{VARIABLE} must name a device of this machine", f"'{setting}', {why}", remedy)


def _numbered(nvml: Any, count: int, number: int, setting: str | None) -> Any:
    """Return the handle of a device by CUDA's number, which passes over devices that this account may not open."""
    refused = None
    passed = 0
    for index in range(count):
        try:
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
        except nvml.NVMLError as error:
            if error.value == nvml.NVML_ERROR_NO_PERMISSION:
                refused = error
                continue
            if passed == number:
                raise refusal(f"NVML must open GPU {index}", error) from error
            handle = None  # one that is lost keeps its number
        if passed == number:
            return handle
        passed += 1
    if refused is not None:
        raise refusal("NVML must open a GPU of this machine", refused) from refused
    raise _not_here(setting, f"where there are {count}, numbered from 0")


def _called(nvml: Any, setting: str | None, wanted: Sequence[str], devices: Iterator[tuple[Device, Sequence[str]]]) -> Device:
    """Return the first device of a list of names, each a device's or its beginning.

    Args:
        devices: each with its names.
    """
    if len(wanted) == 1:
        try:
            return Device(nvml.nvmlDeviceGetHandleByUUID(wanted[0]), wanted[0])
        except nvml.NVMLError as error:
            if error.value not in (nvml.NVML_ERROR_NOT_FOUND, nvml.NVML_ERROR_INVALID_ARGUMENT):
                raise refusal(f"NVML must open {wanted[0]}", error) from error
    named_devices = [(device, name) for device, names in devices for name in names if name]
    places = [match(name, [other for _, other in named_devices]) for name in wanted]
    found = [named_devices[place][0] for place in places[: places.index(None) if None in places else None] if place is not None]
    if not found:
        raise _not_here(setting, f"and none, or several, are called so or begin so: {_listed([n for _, n in named_devices])}")
    if len({device.label for device in found}) < len(found):
        raise _not_here(setting, "with one device twice, of which CUDA shows none")
    return found[0]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "") if names else "there is none"


def _opened(nvml: Any, count: int) -> Iterator[Device]:
    for index in range(count):
        try:
            yield Device(nvml.nvmlDeviceGetHandleByIndex(index), f"GPU {index}")
        except nvml.NVMLError:  # it has no name then
            continue


def _slices(nvml: Any, count: int) -> Iterator[tuple[Device, Sequence[str]]]:
    """Yield every slice of every GPU with its names, today's and that of drivers before 470."""
    for gpu in _opened(nvml, count):
        for index in range(_most_slices(nvml, gpu.handle)):
            try:
                handle = nvml.nvmlDeviceGetMigDeviceHandleByIndex(gpu.handle, index)
            except nvml.NVMLError:
                continue
            yield Device(handle, f"slice {index} of {gpu.label}"), (uuid_of(nvml, handle), _older_name(nvml, gpu, handle))


def _divided(nvml: Any, device: Device) -> Device:
    """Return the first slice of a card that is divided, as CUDA takes it, with a line that says so; else the card."""
    try:
        mode, _ = nvml.nvmlDeviceGetMigMode(device.handle)
    except nvml.NVMLError:  # most cards know no MIG
        return device
    if mode != nvml.NVML_DEVICE_MIG_ENABLE:
        return device
    which = f"{device.label} is divided (MIG is on), and {VARIABLE} names no slice"
    remedy = f"Name one by {VARIABLE}=MIG-... ('nvidia-smi -L' lists them)."
    for index in range(_most_slices(nvml, device.handle)):
        try:
            handle = nvml.nvmlDeviceGetMigDeviceHandleByIndex(device.handle, index)
        except nvml.NVMLError as error:
            if error.value == nvml.NVML_ERROR_NOT_FOUND:
                continue
            note = f"{which}; NVML does not list them ({named(error)}): planning for the whole card. {remedy}"
            return Device(device.handle, device.label, note)
        return Device(
            handle, f"slice {index} of {device.label}", f"{which}: planning for the first, as CUDA takes it. {remedy}"
        )
    mend = f"Make one (nvidia-smi mig -cgi 0 -C) or turn MIG off (nvidia-smi -mig 0). {OTHERWISE}"
    raise UsageError(f"{device.label} must have a slice while MIG is on", "none", mend)


def _most_slices(nvml: Any, handle: Any) -> int:
    try:
        return min(_MOST_LISTED, int(nvml.nvmlDeviceGetMaxMigDeviceCount(handle)))
    except nvml.NVMLError:
        return _MOST_SLICES


def uuid_of(nvml: Any, handle: Any) -> str:
    """Return a device's UUID; empty where NVML does not tell."""
    try:
        return str(nvml.nvmlDeviceGetUUID(handle))
    except (nvml.NVMLError, UnicodeDecodeError):
        return ""


def _older_name(nvml: Any, gpu: Device, handle: Any) -> str:
    try:
        gpu_instance = nvml.nvmlDeviceGetGpuInstanceId(handle)
        return f"MIG-{uuid_of(nvml, gpu.handle)}/{gpu_instance}/{nvml.nvmlDeviceGetComputeInstanceId(handle)}"
    except nvml.NVMLError:
        return ""
