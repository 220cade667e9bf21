"""Which device CUDA takes for its first, by ``CUDA_VISIBLE_DEVICES``; no driver is asked here.

CUDA's programming guide (Environment Variables) has indices, UUIDs or their first characters, and MIG's names; the first
identifier that is none ends the list. Beyond the guide, as torch has found CUDA to do (`torch.cuda._parse_visible_devices`): a
number ends where its digits do, so ``NoDevFiles``, which schedulers write, is none; a name must be written as the first one is;
and a device that is listed twice leaves none.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TypeAlias

VARIABLE = "CUDA_VISIBLE_DEVICES"
ORDER = "CUDA_DEVICE_ORDER"
_BY_BUS = "PCI_BUS_ID"
GPU_PREFIX = "GPU-"
MIG_PREFIX = "MIG-"
_MOST_DIGITS = 18
"""Of a number that is read: no machine has so many devices, however it goes on."""
Listed: TypeAlias = list[int] | list[str]
"""Indices, or names with one prefix, as far as the list goes."""


def setting_of(environment: Mapping[str, str]) -> str | None:
    """Return the variable's value; None where it is not set, and all devices are visible."""
    return environment.get(VARIABLE)


def foreign_order(environment: Mapping[str, str]) -> str | None:
    """Return a setting of the devices' order by which CUDA numbers otherwise than NVML does; None: both number by PCI bus.

    attfc sets that order where nobody has set one. CUDA takes every other word for its own default, the fastest first.
    """
    setting = environment.get(ORDER, _BY_BUS)
    return None if setting == _BY_BUS else setting


def hides_all(setting: str | None) -> bool:
    """Return whether a setting begins with what is no device, which people and schedulers write to have none."""
    return setting is not None and not _read(setting)


def listed(setting: str | None) -> Listed:
    """Return the identifiers of a setting, as far as CUDA reads it; none where one is there twice."""
    if setting is None:
        return [0]
    read = _read(setting)
    return [] if len(set(read)) < len(read) else read


def match(name: str, names: Sequence[str]) -> int | None:
    """Return the index of the one name that begins with `name`; None where none or several do."""
    whole = [index for index, candidate in enumerate(names) if candidate == name]
    found = whole or [index for index, candidate in enumerate(names) if candidate.startswith(name)]
    return found[0] if len(found) == 1 else None


def is_of_a_slice(setting: str | None) -> bool:
    """Return whether a setting names a MIG slice."""
    return setting is not None and setting.startswith(MIG_PREFIX)


def _read(setting: str) -> Listed:
    for prefix in (GPU_PREFIX, MIG_PREFIX):
        if setting.startswith(prefix):
            names = setting.split(",")
            return names[: next((place for place, name in enumerate(names) if not name.startswith(prefix)), len(names))]
    numbers = []
    for word in setting.split(","):
        # As C's strtol reads it: ``1gpu2`` is 1.
        number = re.match(r"[ \t\n\v\f\r]*([+-]?[0-9]+)", word)
        if number is None or number.group(1).startswith("-"):
            break
        numbers.append(int(number.group(1)[:_MOST_DIGITS]))
    return numbers
