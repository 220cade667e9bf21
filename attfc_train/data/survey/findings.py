"""What was found among the images of a data set: kinds, counts, and some examples of each."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from attfc_train.data.formats import twins
from attfc_train.data.report import DataReport, Remark

TRUNCATED: Final = "images that are cut off"
UNDECODABLE: Final = "images that cannot be decoded"
OTHER_SIZE: Final = "images of another size"
SHARED: Final = "images with the very bytes of another person's image"
TWINS: Final = twins.TWINS
REPEATED: Final = "images with the very bytes of another image of the person"
GAPS: Final = "labels without an image"

MOST_EXAMPLES: Final = 1000
"""Of each kind: what is kept for a file must stay small where every image is damaged."""
_JPEG_START: Final = b"\xff\xd8\xff"
_JPEG_END: Final = b"\xff\xd9"
_PNG_START: Final = b"\x89PNG\r\n\x1a\n"
_PNG_END: Final = b"IEND"
_TAIL: Final = 1024
"""Bytes at a file's end among which its end is looked for: some programs write a little behind it."""


@dataclass(slots=True)
class Finding:
    """A kind of images."""

    kind: str
    count: int = 0
    examples: list[str] = field(default_factory=list)
    """Of the first `MOST_EXAMPLES`."""

    def __str__(self) -> str:
        """Return ``KIND: COUNT, e.g. EXAMPLE``."""
        return str(Remark(self.kind, self.count, self.examples[0] if self.examples else "none"))


class Findings:
    """Kinds in the order in which they were first met."""

    def __init__(self) -> None:
        self._kinds: dict[str, Finding] = {}

    def add(self, kind: str, example: str) -> None:
        """Count one image."""
        finding = self._kinds.setdefault(kind, Finding(kind))
        finding.count += 1
        if len(finding.examples) < MOST_EXAMPLES:
            finding.examples.append(example)

    def add_many(self, kind: str, count: int, examples: list[str]) -> None:
        """Count images of which only some are named."""
        if count:
            self._kinds[kind] = Finding(kind, count, examples[:MOST_EXAMPLES])

    def of(self, kind: str) -> Finding | None:
        """Return what was found of a kind; None: nothing."""
        return self._kinds.get(kind)

    def all(self) -> list[Finding]:
        """Return all kinds."""
        return [*self._kinds.values()]

    def lines(self) -> list[str]:
        """Return a line for each kind, for the screen."""
        report = DataReport()
        for finding in self.all():
            report.count(finding.kind, finding.count, finding.examples[0] if finding.examples else "none")
        return report.lines()


def is_cut_off(encoded: bytes) -> bool:
    """Return whether a file that cannot be decoded begins like an image and lacks its end."""
    tail = encoded[-_TAIL:]
    if encoded.startswith(_JPEG_START):
        return _JPEG_END not in tail
    if encoded.startswith(_PNG_START):
        return _PNG_END not in tail
    if encoded.startswith(b"RIFF") and encoded[8:12] == b"WEBP":
        return int.from_bytes(encoded[4:8], "little") + 8 > len(encoded)
    return encoded.startswith(b"BM") and len(encoded) >= 6 and int.from_bytes(encoded[2:6], "little") > len(encoded)
