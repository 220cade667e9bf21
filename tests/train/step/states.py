"""Steps of a small training on random batches, and what it has learned."""

from __future__ import annotations

import torch
from torch import Tensor

from attfc_train.step.state import TrainState
from attfc_train.step.step import train_step
from tests.train.profiles import random_batch


def made(state: TrainState, first: int, last: int) -> list[float]:
    """Make the steps on the batches of these seeds; return their losses."""
    return [train_step(state, random_batch(state.profile, seed)).loss.item() for seed in range(first, last)]


def flat(state: TrainState) -> Tensor:
    """Return the feature encoder's parameters and buffers, one behind the other."""
    return torch.cat([value.detach().flatten().float() for value in state.feature_encoder.state_dict().values()])
