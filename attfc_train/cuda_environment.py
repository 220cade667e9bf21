"""The environment variables that CUDA and torch's allocator read once, when CUDA starts; free of torch.

`prepare` sets what a user has left open; a user's own setting stays, and is told apart. Every process of attfc that may start
CUDA begins so: a command line before it imports torch, a child in the environment that it is started with.

With expandable segments a freed block's neighbours merge, and what the allocator reserves stays close to what is in use: the
planner's replay (`attfc_planner.memory.allocator`) assumes them, unless it was found that there are none.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, MutableMapping

PLANNED_ALLOCATOR = "expandable_segments:True"
"""The allocator setting that plans are made for."""
NATIVE_ALLOCATOR = "expandable_segments:False"
"""What a plan assumes where the user or the platform has it so, and what torch does by itself."""
_ALLOCATOR_NAMES = ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF")
"""As torch reads them: the first that is there."""

_HARMLESS = "nvmlDeviceGetGpuFabricInfoV failed"
"""From torch 2.14 with expandable segments, where NVML does not say whether the GPU has a fabric: a single GPU needs none."""


def prepare(environment: MutableMapping[str, str]) -> None:
    """Set the order of the devices and the planned allocator, each where the user has set nothing."""
    order_devices(environment)
    use_planned_allocator(environment)


def order_devices(environment: MutableMapping[str, str]) -> None:
    """Number the devices by PCI bus, as NVML does; CUDA alone would number them by speed."""
    environment.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")


def use_planned_allocator(environment: MutableMapping[str, str]) -> None:
    """Set `PLANNED_ALLOCATOR` where the user has set nothing."""
    if not any(name in environment for name in _ALLOCATOR_NAMES):
        environment[_ALLOCATOR_NAMES[-1]] = PLANNED_ALLOCATOR


def ignore_harmless_warnings() -> None:
    """Hide from users what torch warns of and neither they nor attfc can change."""
    warnings.filterwarnings("ignore", _HARMLESS, UserWarning)


def allocator_setting(environment: Mapping[str, str]) -> str:
    """Return the allocator setting in force; empty: torch's own."""
    return next((environment[name] for name in _ALLOCATOR_NAMES if name in environment), "")


def expands(setting: str) -> bool:
    """Return whether a setting asks for expandable segments; its other items change no prediction by much."""
    items = [item.replace(" ", "").lower() for item in setting.split(",")]
    return [item for item in items if item.startswith("expandable_segments:")][-1:] == [PLANNED_ALLOCATOR.lower()]


def use_native_segments(environment: MutableMapping[str, str]) -> str:
    """Put native segments in place of expandable ones, keep the setting's other items, and return it."""
    name = next((name for name in _ALLOCATOR_NAMES if name in environment), _ALLOCATOR_NAMES[-1])
    asked = environment.get(name) or PLANNED_ALLOCATOR
    environment[name] = re.sub(r"expandable_segments\s*:\s*true", NATIVE_ALLOCATOR, asked, flags=re.IGNORECASE)
    return environment[name]
