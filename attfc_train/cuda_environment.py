"""The environment variables that CUDA and torch's allocator read once, when CUDA starts; free of torch.

`prepare` sets what a user has left open; a user's own setting stays, and is told apart. Every process of attfc that may start
CUDA begins so: a command line before it imports torch, a child in the environment that it is started with.

With expandable segments a freed block's neighbours merge, and what the allocator reserves stays close to what is in use: the
planner's replay (`attfc_planner.memory.allocator`) assumes them.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, MutableMapping

PLANNED_ALLOCATOR = "expandable_segments:True"
"""The allocator setting that plans are made for."""
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


def satisfies(setting: str, assumed: str) -> bool:
    """Return whether `setting` holds all items of `assumed`; its other items change no prediction by much."""
    return _items(assumed) <= _items(setting)


def _items(setting: str) -> set[str]:
    return {item.replace(" ", "").lower() for item in setting.split(",") if item.strip()}
