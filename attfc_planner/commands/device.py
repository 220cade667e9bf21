"""The device that a command is about: found, its caveats said, calibrated when it is first used."""

from __future__ import annotations

from rich.console import Console

from attfc_planner.calibrate.calibrate import calibrate
from attfc_planner.gpu import detect
from attfc_planner.gpu.calibration import Calibration
from attfc_planner.gpu.profile import GpuProfile
from attfc_planner.screens.tracing import tracing
from attfc_train.errors import AttfcError, StorageError
from attfc_train.profile.prediction import Provenance


def device_for(console: Console, word: str, *, must_be_here: bool = False) -> GpuProfile:
    """Print any detection warning, calibrate if needed, and return the device that `word` names.

    Args:
        word: a value of ``--gpu``.
        must_be_here: whether steps will run on it.

    Raises:
        UsageError: no such device, or it is not here.
    """
    device, note = detect.find_gpu(word)
    return _prepared(console, device, note, must_be_here)


def device_of_plan(console: Console, provenance: Provenance | None) -> GpuProfile:
    """Return the device that a profile was planned for, after the same steps as `device_for`."""
    device, note = detect.find_planned_gpu(provenance)
    return _prepared(console, device, note)


def _prepared(console: Console, device: GpuProfile, note: str | None, must_be_here: bool = False) -> GpuProfile:
    for line in (note or "").splitlines():
        console.print(line, highlight=False, soft_wrap=True)
    if must_be_here:
        detect.require_here(device)
    return with_calibration(console, device)


def with_calibration(console: Console, device: GpuProfile) -> GpuProfile:
    """Return the device, calibrated now if it is a GPU that is here and was not; a failure costs one line and no plan."""
    if device.kind != "cuda" or device.measured is None or device.calibration is not None or not detect.is_here(device):
        return device
    try:
        with tracing(console, "Calibrating the GPU once") as line:
            result = calibrate(device, tell=line.tell)
    except (AttfcError, OSError) as error:
        warning = f"Warning: the GPU could not be calibrated, so ranges stay wide. {error}"
        console.print(warning, highlight=False, soft_wrap=True)
        return device
    console.print(f"Calibrated {device.name}: {_stored(device, result.calibration)}", highlight=False, soft_wrap=True)
    return result.gpu


def _stored(device: GpuProfile, calibration: Calibration) -> str:
    """Store a calibration; return how long it is kept, in words."""
    try:
        detect.store_calibration(device, calibration)
    except StorageError as error:
        return f"for this plan only: {error}"
    return f"{calibration.num_runs} real runs, kept for later plans."
