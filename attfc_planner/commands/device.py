"""The device that a command is about: found, its caveats said, calibrated when it is first used."""

from __future__ import annotations

from rich.console import Console

from attfc_planner.calibrate.calibrate import calibrate
from attfc_planner.gpu import detect
from attfc_planner.gpu.profile import GpuProfile
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
    return _ready(console, detect.find_gpu(word), must_be_here)


def device_of_plan(console: Console, provenance: Provenance | None) -> GpuProfile:
    """Return the device that a profile was planned for, likewise."""
    return _ready(console, detect.find_planned_gpu(provenance))


def _ready(console: Console, found: tuple[GpuProfile, str | None], must_be_here: bool = False) -> GpuProfile:
    device, note = found
    if note:
        console.print(note, highlight=False, soft_wrap=True)
    if must_be_here:
        detect.require_here(device)
    return with_calibration(console, device)


def with_calibration(console: Console, device: GpuProfile) -> GpuProfile:
    """The device, calibrated now if it is a GPU that is here and was not before; a failure costs one line and no plan."""
    if device.kind != "cuda" or device.measured is None or device.calibration is not None or not detect.is_here(device):
        return device
    try:
        with console.status("Calibrating the GPU once, with real train steps ...") as status:
            result = calibrate(device, tell=lambda text: status.update(f"Calibrating the GPU once, {text} ..."))
    except (AttfcError, OSError) as error:
        console.print(
            f"Warning: the GPU could not be calibrated, so ranges stay wide. {error}", highlight=False, soft_wrap=True
        )
        return device
    try:
        detect.store_calibration(device, result.calibration)
        kept = f"{result.calibration.num_runs} real runs, kept for later plans."
    except StorageError as error:
        kept = f"for this plan only: {error}"
    console.print(f"Calibrated {device.name}: {kept}", highlight=False, soft_wrap=True)
    return result.gpu
