"""``attfc-plan calibrate``, once its options are checked."""

from __future__ import annotations

from rich.console import Console

from attfc_planner.calibrate.calibrate import calibrate
from attfc_planner.gpu.detect import find_gpu, store_calibration
from attfc_planner.screens.calibrate import show_calibration
from attfc_planner.screens.tracing import tracing
from attfc_train.errors import UsageError


def calibrate_device(console: Console, word: str) -> None:
    """Measure the device that is here, show the figures and keep them for later plans.

    Raises:
        UsageError: `word` is neither ``auto`` nor ``cpu``: what is not here cannot be measured.
        StorageError: the result cannot be kept.
    """
    if word.lower() not in ("auto", "cpu"):
        rule = "--gpu must be 'auto' or 'cpu', because only a device that is here can be measured"
        raise UsageError(rule, f"'{word}'", "Run it where the device is.")
    device, note = find_gpu(word)
    for line in (note or "").splitlines():
        console.print(line.replace("planning for", "calibrating"), highlight=False, soft_wrap=True)
    with tracing(console, "Calibrating") as shown:
        result = calibrate(device, tell=shown.tell)
    show_calibration(console, result)
    path = store_calibration(device, result.calibration)
    console.print(f"Stored for later plans: {path}", highlight=False, soft_wrap=True)
