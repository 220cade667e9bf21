"""The settings of the clustering: distances between unit vectors, and sizes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from attfc_train.errors import UsageError

FUSE: Final = 0.7
CONNECT: Final = 0.99
CONNECT_WEAK: Final = 1.12
"""The distances that the one public implementation of arXiv 2103.17272 has: as cosines of unit vectors 0.755, 0.510, 0.373."""
FARTHEST: Final = 2.0
"""Of two unit vectors."""
_LARGEST_FUSE: Final = FARTHEST * FUSE / CONNECT_WEAK
"""From which on what goes with it is too far."""


@dataclass(frozen=True, slots=True)
class ClusterSettings:
    """What decides which faces are one cluster, and which clusters are one identity.

    Raises:
        UsageError: the distances are not in order, or a size is too small.
    """

    fuse: float = FUSE
    """Euclidean distance up to which a face joins a cluster, and two clusters become one unless both are robust."""
    connect: float = CONNECT
    """Distance up to which two robust clusters are connected."""
    connect_weak: float = CONNECT_WEAK
    """Distance up to which a robust and a weak cluster are connected."""
    robust: int = 5
    """Faces from which on a cluster is robust."""
    connections: int = 5
    """Connections that a cluster keeps, the nearest ones; another cluster may keep more to it."""

    def __post_init__(self) -> None:
        if not 0 < self.fuse <= self.connect <= self.connect_weak < FARTHEST:
            rule = f"distances must be 0 < --threshold <= --connect <= --connect-weak < {FARTHEST:g}"
            got = f"{self.fuse:g}, {self.connect:g}, {self.connect_weak:g}"
            raise UsageError(rule, got, self._remedy())
        if min(self.robust, self.connections) < 1:
            got = f"{self.robust} and {self.connections}"
            raise UsageError("--robust and --connections must be at least 1", got, "Leave them out.")

    def _remedy(self) -> str:
        if 0 < self.fuse < _LARGEST_FUSE:
            return "Leave --connect and --connect-weak out, and they go with --threshold."
        return f"Give a --threshold above 0 and below {_LARGEST_FUSE:g}: the other two go with it."

    @classmethod
    def scaled(
        cls,
        fuse: float,
        connect: float | None = None,
        connect_weak: float | None = None,
        robust: int = 5,
        connections: int = 5,
    ) -> ClusterSettings:
        """Return settings in which the distances that are None keep their proportion to `fuse`."""
        scale = fuse / FUSE
        return cls(
            fuse,
            CONNECT * scale if connect is None else connect,
            CONNECT_WEAK * scale if connect_weak is None else connect_weak,
            robust,
            connections,
        )
