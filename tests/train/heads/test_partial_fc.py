"""Partial FC: at rate 1 it is the full layer, and a draw is the step's; see test_learned.py for the rows themselves."""

from __future__ import annotations

import pytest
import torch

from attfc_train.heads.full_fc.settings import FullFCSettings
from attfc_train.heads.partial_fc.settings import PartialFCSettings
from attfc_train.losses.learning import Descent
from attfc_train.losses.margin import Margin
from attfc_train.rounding import StorageType
from attfc_train.step.build import build
from attfc_train.step.step import train_step
from tests.train.heads.learned_heads import DECAY, MOMENTUM, layer_of, make_step
from tests.train.profiles import random_batch, small_profile

CPU = torch.device("cpu")
MARGIN = Margin("cosface", 0.2)


@pytest.mark.parametrize("storage", ["fp32", "bf16", "int8"])
def test_rate_1_is_the_full_layer_step_by_step(storage: StorageType) -> None:
    """The order of the rows is another one; their numbers, on which the noise depends, are the same."""
    partial = layer_of(37, 6, storage, sample_rate=1.0)
    full = layer_of(37, 6, storage)
    full.load_state_dict(partial.state_dict())
    for step in range(6):
        labels = torch.randint(37, (16,))
        features = torch.randn(16, 6)
        results = [
            make_step(layer, features, labels, step, MARGIN, Descent(0.01, MOMENTUM, DECAY)) for layer in (partial, full)
        ]
        torch.testing.assert_close(*(loss for loss, _, _ in results))
        torch.testing.assert_close(*(gradient for _, gradient, _ in results))
        if storage == "fp32":
            torch.testing.assert_close(partial.values, full.values)
        else:  # a last bit of a gradient decides here and there how a component is rounded
            assert (partial.values.float() != full.values.float()).double().mean() < 0.01


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_rate_1_is_the_full_layer_in_the_train_step(precision: str) -> None:
    """Learning rate, clipping, loss scale and overflow reach the rows of both alike."""
    results = []
    for settings in (FullFCSettings(), PartialFCSettings(sample_rate=1)):
        profile = small_profile("full_fc", precision, accumulation=2, learning_rate=0.02)
        state = build(profile.model_copy(update={"head": settings}), CPU)
        if state.scaler:
            state.scaler.scale.fill_(2.0**20)  # overflows at first
        losses = [train_step(state, random_batch(profile, seed)).loss for seed in range(6)]
        (rows,) = state.head.parameters()
        results.append((torch.stack(losses), rows.detach()))
    for full, partial in zip(*results, strict=True):
        torch.testing.assert_close(partial, full, rtol=1e-3, atol=1e-4)


def test_a_step_draws_what_its_number_and_the_seed_say() -> None:
    """Catches a draw from a generator, which a repeated step would not repeat."""
    labels = torch.tensor([3, 499, 3, 0])
    draws = []
    for seed, step in ((7, 0), (7, 0), (7, 1), (8, 0)):
        layer = layer_of(500, 6, sample_rate=0.1, seed=seed)
        layer.begin_step(labels, step)
        assert layer.index is not None
        assert layer.index.unique().numel() == 50
        assert torch.isin(labels, layer.index).all()
        draws.append(set(layer.index.tolist()))
    assert draws[0] == draws[1]
    assert len(draws[0] & draws[2]) < 20
    assert len(draws[0] & draws[3]) < 20
