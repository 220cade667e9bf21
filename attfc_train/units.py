"""Units: bytes are ints, seconds are floats; GiB (1024^3 bytes) exists only on the screen."""

from __future__ import annotations

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
    """Return text such as ``4.2 -> '4.2 s'``, ``95 -> '1 min 35 s'``, ``9000 -> '2.5 h'``, ``400000 -> '4.6 days'``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{int(seconds // 60)} min {int(seconds % 60):02d} s"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.1f} days"
