"""Bytes that a head keeps an identity, as a plan counts them."""

from __future__ import annotations

from functools import cache
from typing import Final

from attfc_planner.trace.record import record_head
from benchmarks.heads.variants import VARIANTS, profile_of

NUM_IDS: Final = 2_059_906
DIM: Final = 512
"""WebFace42M's identities, and the usual embedding."""


@cache
def bytes_per_identity(name: str) -> float:
    """Return what a head keeps between steps: centers, momentum, maps; without the class encoder, which no identity adds to."""
    base = profile_of(VARIANTS[name], 512, 1000, 0)
    model = base.model.model_copy(update={"embedding_size": DIM})
    profile = base.model_copy(update={"model": model}).resolve(NUM_IDS)
    return record_head(profile).num_bytes / NUM_IDS
