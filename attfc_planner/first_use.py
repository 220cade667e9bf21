"""A GPU that is here is calibrated when it is first planned for; the command calibrates whatever is here."""

from __future__ import annotations

from rich.console import Console

from attfc_planner.gpu.detect import find_gpu, is_here, store_calibration
from attfc_planner.gpu.profile import GpuProfile
from attfc_train.errors import AttfcError, StorageError, UsageError


def calibrate_device(console: Console, word: str) -> None:
    """Measures the device that is here, shows what was found and keeps it for later plans.

    Raises:
        UsageError: `word` is neither ``auto`` nor ``cpu``: what is not here cannot be measured.
        StorageError: the result cannot be kept.
    """
    if word.lower() not in ("auto", "cpu"):
        rule = "--gpu must be 'auto' or 'cpu', because only a device that is here can be measured"
        raise UsageError(rule, f"'{word}'", "Run it where the device is.")
    device, note = find_gpu(word)
    if note:
        console.print(note.replace("planning for", "calibrating"), highlight=False, soft_wrap=True)
    from attfc_planner.calibrate import calibrate
    from attfc_planner.calibrate_screen import show_calibration

    with console.status("Calibrating ...") as status:
        result = calibrate(device, tell=lambda text: status.update(f"Calibrating, {text} ..."))
    show_calibration(console, result)
    path = store_calibration(device, result.calibration)
    console.print(f"Stored for later plans: {path}", highlight=False, soft_wrap=True)


def with_calibration(console: Console, device: GpuProfile) -> GpuProfile:
    """The device, calibrated now if it is a GPU that is here and was not before; a failure costs one line and no plan."""
    if device.kind != "cuda" or device.measured is None or device.calibration is not None or not is_here(device):
        return device
    from attfc_planner.calibrate import calibrate

    try:
        with console.status("Calibrating the GPU once, with real train steps ...") as status:
            result = calibrate(device, tell=lambda text: status.update(f"Calibrating the GPU once, {text} ..."))
    except (AttfcError, OSError) as error:
        console.print(
            f"Warning: the GPU could not be calibrated, so ranges stay wide. {error}", highlight=False, soft_wrap=True
        )
        return device
    try:
        store_calibration(device, result.calibration)
        kept = f"{result.calibration.num_runs} real runs, kept for later plans."
    except StorageError as error:
        kept = f"for this plan only: {error}"
    console.print(f"Calibrated {device.name}: {kept}", highlight=False, soft_wrap=True)
    return result.gpu
