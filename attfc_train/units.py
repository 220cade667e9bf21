"""Units: bytes are ints, seconds are floats; GiB (1024^3 bytes) exists only on the screen."""

from __future__ import annotations

import re
from typing import TypeAlias

Bytes: TypeAlias = int
Seconds: TypeAlias = float

KIB: Bytes = 1024
MIB: Bytes = 1024**2
GIB: Bytes = 1024**3


def format_bytes(num_bytes: Bytes) -> str:
    """Return text such as ``3221225472 -> '3.00 GiB'``, ``5242880 -> '5.0 MiB'``; the sign is kept."""
    magnitude = abs(num_bytes)
    if magnitude >= GIB:
        return f"{num_bytes / GIB:.2f} GiB"
    if magnitude >= MIB:
        return f"{num_bytes / MIB:.1f} MiB"
    return f"{num_bytes / KIB:.1f} KiB" if magnitude >= KIB else f"{num_bytes} B"


def format_seconds(seconds: Seconds) -> str:
    """Return text such as ``'4.2 s'``, ``'1 min 35 s'``, ``'2.5 h'``, ``'4.6 days'``, ``'7.3 months'``, ``'6.1 years'``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{int(seconds // 60)} min {int(seconds % 60):02d} s"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.1f} h"
    unit, length = next(((unit, length) for unit, length, below in _LONG_UNITS if seconds < below), ("years", YEAR))
    number = seconds / length
    return f"{number:.1f} {unit}" if number < 1000 else f"{number:,.0f} {unit}"


DAY: Seconds = 86400.0
YEAR: Seconds = 365.25 * DAY
_LONG_UNITS = (("days", DAY, 100 * DAY), ("months", YEAR / 12, 2 * YEAR))
"""Name, length, and the seconds from which the next one is used; years in the end."""


_MULTIPLES = {"": 0, "k": 3, "m": 6, "mio": 6, "b": 9, "g": 9}
"""Powers of ten behind a count, in either case: 2M is two million."""
_COUNT = re.compile(r"([+-]?)(\d{1,3}(?:[,_' \u00a0\u2009\u202f]\d{3})+|\d+)(\.\d*)?(?:e\+?(\d{1,3}))?\s*([a-z]*)", re.ASCII)


def parse_count(text: str) -> int:
    """Return the whole number that somebody typed: ``2059906``, ``2,059,906``, ``2_059_906``, ``2.06M``, ``20k`` or ``2e6``.

    Raises:
        ValueError: it is no number, or no whole one.
    """
    found = _COUNT.fullmatch(text.strip().lower())
    if found is None or found[5] not in _MULTIPLES:
        raise ValueError(f"no whole number: {text!r}")
    sign, digits, fraction, exponent, unit = found.groups()
    decimals = (fraction or ".")[1:].rstrip("0")
    shift = int(exponent or 0) + _MULTIPLES[unit] - len(decimals)
    if shift < 0:
        raise ValueError(f"not a whole number: {text!r}")
    number: int = int(re.sub(r"\D", "", digits) + decimals) * 10**shift
    return -number if sign == "-" else number
