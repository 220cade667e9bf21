"""Partial FC: the dictionary's rows and losses; at rate 1 the full layer's; never a temporary of the weight's size."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attfc_planner.trace.record import record
from attfc_train.heads.full_fc.head import FullFCHead
from attfc_train.heads.full_fc.settings import FullFCSettings
from attfc_train.heads.partial_fc.head import PartialFCHead
from attfc_train.heads.partial_fc.settings import PartialFCSettings
from attfc_train.losses.margin import Margin
from attfc_train.optim.sgd import SGD
from attfc_train.profile.profile import OptimSettings
from attfc_train.step.build import build
from attfc_train.step.step import train_step
from tests.oracle.partial_fc_oracle import PartialFCOracle
from tests.train.profiles import random_batch, small_profile

CPU = torch.device("cpu")
DIM = 6
RATE = 0.3
MARGIN = Margin("cosface", 0.2)
SCALE = 8.0
MOMENTUM = 0.9
DECAY = 0.01


@dataclass(frozen=True)
class History:
    num_ids: int
    sample_rate: float
    seed: int
    batches: list[list[int]]


@st.composite
def histories(draw: st.DrawFn) -> History:
    """Labels repeat, and batches can be larger than the sample and than the number of identities."""
    num_ids = draw(st.integers(2, 40))
    batch_size = draw(st.integers(1, 24))
    batch = st.lists(st.integers(0, num_ids - 1), min_size=batch_size, max_size=batch_size)
    batches = draw(st.lists(batch, min_size=1, max_size=5))
    return History(num_ids, draw(st.floats(1e-3, 1)), draw(st.integers(0, 2**63 - 1)), batches)


def head_of(num_ids: int, sample_rate: float, seed: int) -> PartialFCHead:
    torch.manual_seed(seed % 2**32)
    return PartialFCHead(num_ids, DIM, sample_rate=sample_rate, seed=seed, scale=SCALE)


@settings(deadline=None, max_examples=100)
@given(histories())
def test_equals_a_dictionary_of_rows(history: History) -> None:
    head = head_of(history.num_ids, history.sample_rate, history.seed)
    optimizer = SGD([], MOMENTUM, DECAY, [head.rows])
    oracle = PartialFCOracle(head.weight.double().numpy(), MOMENTUM, DECAY, SCALE)
    for step, labels in enumerate(history.batches):
        features = torch.randn(len(labels), DIM)
        weights = head.begin_step(torch.tensor(labels), step)
        classes = head.rows.index.tolist()
        loss = head(features, torch.empty(0), torch.tensor(labels), weights, MARGIN).loss
        loss.backward()
        optimizer.step(RATE)
        expected = oracle.step(features.double().numpy(), labels, classes, MARGIN.margin, RATE)
        assert loss.item() == pytest.approx(expected, rel=1e-4, abs=1e-5)
    for actual, rows in ((head.weight, oracle.rows), (optimizer.buffers[0], oracle.buffers)):
        np.testing.assert_allclose(actual, np.stack([rows[label] for label in range(history.num_ids)]), rtol=1e-3, atol=1e-4)


def test_rows_that_were_not_sampled_keep_their_bits() -> None:
    head = head_of(500, 0.1, 7)
    optimizer = SGD([], MOMENTUM, DECAY, [head.rows])
    optimizer.buffers[0].normal_()
    labels = torch.tensor([3, 499, 3, 0])
    before = head.weight.clone()
    momentum = optimizer.buffers[0].clone()
    weights = head.begin_step(labels, 0)
    index = head.rows.index
    head(torch.randn(4, DIM), torch.empty(0), labels, weights, MARGIN).loss.backward()
    optimizer.step(RATE)
    changed = (head.weight != before).any(1)
    assert torch.equal(changed.nonzero().flatten(), index.sort().values)
    assert torch.equal((optimizer.buffers[0] != momentum).any(1), changed)
    assert len(index) == 50


def test_rate_1_is_the_full_layer_step_by_step() -> None:
    partial = head_of(37, 1.0, 0)
    full = FullFCHead(37, DIM, scale=SCALE)
    full.load_state_dict(partial.state_dict())
    optimizers = SGD([], MOMENTUM, DECAY, [partial.rows]), SGD(full.parameters(), MOMENTUM, DECAY)
    for step in range(6):
        labels = torch.randint(37, (16,))
        losses = []
        gradients = []
        features = torch.randn(16, DIM)
        for head, optimizer in zip((partial, full), optimizers, strict=True):
            own = features.clone().requires_grad_()
            loss = head(own, torch.empty(0), labels, head.begin_step(labels, step), MARGIN).loss
            loss.backward()
            optimizer.step(RATE)
            losses.append(loss.detach())
            gradients.append(own.grad)
        torch.testing.assert_close(*losses)
        torch.testing.assert_close(*gradients)
        torch.testing.assert_close(partial.weight, full.weight, check_device=False)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_rate_1_is_the_full_layer_in_the_train_step(precision: str) -> None:
    """Learning rate, clipping, loss scale and overflow reach the rows as they reach any other weight."""
    results = []
    for settings_ in (FullFCSettings(), PartialFCSettings(sample_rate=1)):
        profile = small_profile("full_fc", precision, accumulation=2, learning_rate=0.02)
        state = build(profile.model_copy(update={"head": settings_}), CPU)
        if state.scaler:
            state.scaler.scale.fill_(2.0**20)  # overflows at first
        losses = [train_step(state, random_batch(profile, seed)).loss for seed in range(6)]
        (weight,) = state.head.parameters()
        results.append((torch.stack(losses), weight.detach()))
    for full, partial in zip(*results, strict=True):
        torch.testing.assert_close(partial, full, rtol=1e-3, atol=1e-4)


def test_an_overflowing_step_keeps_rows_and_momentum() -> None:
    profile = small_profile("partial_fc", "fp16")
    state = build(profile, CPU)
    assert state.scaler is not None
    state.scaler.scale.fill_(1.0)
    train_step(state, random_batch(profile))
    state.scaler.scale.fill_(torch.inf)
    (weight,) = state.head.parameters()
    before = weight.clone()
    momentum = state.optimizer.buffers[-1].clone()
    assert momentum.abs().max() > 0
    train_step(state, random_batch(profile, 1))
    assert torch.equal(weight, before)
    assert torch.equal(state.optimizer.buffers[-1], momentum)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_no_storage_of_a_step_comes_near_the_weight(precision: str, accumulation: int) -> None:
    profile = small_profile(num_ids=1_000_000)
    profile = profile.model_copy(
        update={
            "head": PartialFCSettings(sample_rate=0.1),
            "optim": OptimSettings(batch_size=8, accumulation=accumulation),
            "run": profile.run.model_copy(update={"precision": precision}),
        }
    )
    trace = record(profile, [profile, profile])
    rows_bytes = 100_000 * profile.model.embedding_size * 4
    for step in range(2):
        births = trace.births(step)
        assert trace.nbytes[births.start : births.stop].max() == rows_bytes
    freed = {~event for event in trace.events if event < 0}
    kept = [size for index, size in enumerate(trace.nbytes.tolist()) if index not in freed]
    assert sum(size == 10 * rows_bytes for size in kept) == 2, "the weight and its momentum"
