"""Bytes that a head keeps an identity, counted on the head as it is built."""

from __future__ import annotations

from functools import cache
from typing import Final

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from attfc_train.step.build import build
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
    with FakeTensorMode():
        state = build(profile, torch.device("cpu"))
        held = [*state.head.buffers(), *state.head.parameters()]
        # The optimiser's buffers are the network's, then the head's.
        trained = sum(parameter.requires_grad for parameter in state.feature_encoder.parameters())
        held += state.optimizer.buffers[trained:]
        return sum(tensor.nbytes for tensor in held) / NUM_IDS
