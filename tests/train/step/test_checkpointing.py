"""A training with checkpointing is the one without it: the same losses and the same weights, bit for bit."""

from __future__ import annotations

import pytest
import torch

from attfc_train.backbones.kinds import Checkpointing
from attfc_train.step.build import build
from tests.train.profiles import small_profile
from tests.train.step.states import flat, made


@pytest.mark.parametrize("way", ["wide", True])
def test_losses_and_weights_after_three_steps_have_the_same_bits(way: Checkpointing) -> None:
    """Catches running statistics that move twice, and a block that is computed again from another input."""
    plain = small_profile("identity-30%", accumulation=2)
    model = plain.model.model_copy(update={"gradient_checkpointing": way})
    states = [build(profile, torch.device("cpu")) for profile in (plain, plain.model_copy(update={"model": model}))]
    losses = [made(state, 0, 3) for state in states]
    assert losses[1] == losses[0]
    assert torch.equal(flat(states[1]), flat(states[0]))
