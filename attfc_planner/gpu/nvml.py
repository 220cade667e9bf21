"""NVML, the driver's library, and its errors in words: the question, the error's name, and what to do about it.

A question that must be answered is asked under `needed`, one that may stay open by `Answers`. Nobody else knows error codes.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pynvml

from attfc_train.errors import UsageError

OTHERWISE = "Or give --gpu a card ('attfc-plan gpus' lists them), a GPU profile file, or cpu."
_REMEDIES = {
    "NO_PERMISSION": "Use an account that may open /dev/nvidia*, and give a container the GPU (--gpus).",
    "OPERATING_SYSTEM": "Something between here and the driver forbids it: give the container, or the job, the GPU.",
    "DRIVER_NOT_LOADED": "Load the driver: nvidia-smi must list the GPU.",
    "LIB_RM_VERSION_MISMATCH": "Driver and library differ, as after an update: restart the machine.",
    "GPU_IS_LOST": "The GPU no longer answers: restart the machine, and look at its power and its seat if it happens again.",
    "RESET_REQUIRED": "Reset it with nvidia-smi --gpu-reset, or restart the machine.",
    "GPU_NOT_FOUND": "Restart the machine.",
    "INSUFFICIENT_POWER": "Plug in the GPU's power cables.",
    "IRQ_ISSUE": "The kernel gets no interrupts of the GPU: look at dmesg, and restart the machine.",
    "CORRUPTED_INFOROM": "The card's own memory is damaged: its maker can help.",
    "TIMEOUT": "Try again; if it lasts, restart the machine.",
    "IN_USE": "Try again when what holds the GPU has ended.",
    "NOT_READY": "Try again in a moment.",
    "MEMORY": "Free some of this machine's RAM.",
    "INSUFFICIENT_RESOURCES": "Free some of this machine's RAM.",
    "LIBRARY_NOT_FOUND": "Install NVIDIA's driver.",
    "FUNCTION_NOT_FOUND": "Install a newer driver of NVIDIA's.",
    "ARGUMENT_VERSION_MISMATCH": "Install a newer driver of NVIDIA's.",
    "DEPRECATED": "Install a newer attfc, which may ask otherwise.",
    "NOT_SUPPORTED": "Neither this GPU nor its driver can tell.",
}
_USUAL_REMEDY = "Look whether nvidia-smi works; restart the machine if it does not."
_NAMES: dict[int, str] = {
    value: name for name, value in vars(pynvml).items() if name.startswith("NVML_ERROR_") and isinstance(value, int)
}
_PREFIX = "NVML_ERROR_"
_LIBRARY = "libnvidia-ml.so.1"
_DEVICES = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg")
"""What a driver of NVIDIA's makes; the last of them under WSL2, for any maker's card."""
_FATAL = {f"{_PREFIX}{name}" for name in ("UNINITIALIZED", "DRIVER_NOT_LOADED", "LIB_RM_VERSION_MISMATCH", "GPU_IS_LOST")}
_FATAL |= {f"{_PREFIX}RESET_REQUIRED"}
"""After these no other answer is worth anything."""


def named(error: pynvml.NVMLError) -> str:
    """Return an error's name and text: ``NVML_ERROR_GPU_IS_LOST, GPU is lost``; its number where nobody knows a name."""
    name = name_of(error)
    try:
        said = str(error).strip().rstrip(".")
    except Exception:  # the text comes from the library, which may have failed altogether
        said = ""
    return f"{name}, {' '.join(said.split())}" if said else name


def name_of(error: pynvml.NVMLError) -> str:
    """Return an error's constant; its number where this version of NVML's interface does not know it."""
    return _NAMES.get(error.value, f"NVML error {error.value}")


def refusal(rule: str, error: pynvml.NVMLError) -> UsageError:
    """Return the user's error for an answer of NVML's.

    Args:
        rule: what NVML must do.
    """
    remedy = _REMEDIES.get(name_of(error).removeprefix(_PREFIX), _USUAL_REMEDY)
    return UsageError(rule, f"'{named(error)}'", f"{remedy} {OTHERWISE}")


@contextlib.contextmanager
def needed(rule: str) -> Iterator[None]:
    """Surround a question without whose answer nothing can be planned.

    Raises:
        UsageError: NVML does not answer it.
    """
    try:
        yield
    except pynvml.NVMLError as error:
        raise refusal(rule, error) from error
    except UnicodeDecodeError as error:
        raise UsageError(rule, "text that is not UTF-8", f"{_USUAL_REMEDY} {OTHERWISE}") from error


@dataclass
class Answers:
    """Answers to questions that may stay open, and what stayed open."""

    untold: list[str] = field(default_factory=list)
    """What was not told, with the error's name."""

    def ask(self, what: str, question: Callable[..., Any], *arguments: Any) -> Any | None:
        """Return an answer; None, with a note in `untold`, where NVML does not tell.

        Raises:
            UsageError: the driver or the GPU is gone.
        """
        try:
            return question(*arguments)
        except pynvml.NVMLError as error:
            if name_of(error) in _FATAL:
                raise refusal(f"NVML must tell {what}", error) from error
            self.untold.append(f"{what} ({named(error)})")
        except UnicodeDecodeError:
            self.untold.append(f"{what} (text that is not UTF-8)")
        return None

    @property
    def note(self) -> str | None:
        """Return the line about what stayed open."""
        return f"NVML does not tell {', '.join(self.untold)}: planning without." if self.untold else None


def _why_not_loaded() -> str:
    """Return why the driver's library is not there, where that is odd; empty as on any machine that never had a card."""
    # The interface tells of a library that is there and cannot be loaded as of none; containers have such, of no bytes.
    try:
        ctypes.CDLL(_LIBRARY)
    except OSError as error:
        if _LIBRARY not in str(error) or "No such file" not in str(error):
            return f"the driver's library cannot be loaded, '{error}': install the driver again; a container needs --gpus"
    device = next((path for path in _DEVICES if os.path.exists(path)), None)
    return f"there is {device}, and no {_LIBRARY}: install the driver's utilities; a container needs --gpus" if device else ""


@contextlib.contextmanager
def session() -> Iterator[Any]:
    """Yield NVML's interface, started; in its place the reason, as text, where there is no driver to ask.

    Raises:
        UsageError: the driver is there and does not start.
    """
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        if error.value == pynvml.NVML_ERROR_LIBRARY_NOT_FOUND:
            yield _why_not_loaded()
            return
        if error.value == pynvml.NVML_ERROR_DRIVER_NOT_LOADED:  # as on the machines without a card that share an installation
            yield f"NVML says '{named(error)}'; if there is one, load its driver"
            return
        raise refusal("NVML must start", error) from error
    try:
        yield pynvml
    finally:
        with contextlib.suppress(pynvml.NVMLError):
            pynvml.nvmlShutdown()
