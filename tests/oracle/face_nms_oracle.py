"""Face-NMS as docs/methods.md states it, one cosine at a time."""

from __future__ import annotations

import numpy as np


def kept_faces(features, threshold, least=2) -> list[bool]:
    """Return which faces of an identity are kept."""
    unit = [row / (np.sqrt((row * row).sum()) or 1.0) for row in np.asarray(features, np.float64)]
    cosine = [[float((one * other).sum()) for other in unit] for one in unit]
    density = [sum(row) / len(row) for row in cosine]
    order = sorted(range(len(unit)), key=lambda face: density[face])
    kept: list[int] = []
    for face in order:
        if all(cosine[face][other] < threshold for other in kept):
            kept.append(face)
    while len(kept) < min(least, len(unit)):
        others = [face for face in order if face not in kept]
        kept.append(min(others, key=lambda face: max([cosine[face][other] for other in kept], default=-1.0)))
    return [face in kept for face in range(len(unit))]
