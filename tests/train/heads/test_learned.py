"""Learned layers: every storage, buffer, filter and margin against an fp64 oracle; rounding, decay, overflow, parts, memory."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from attfc_planner.trace.history import Trace
from attfc_planner.trace.record import record
from attfc_train.heads.full_fc.settings import FullFCSettings
from attfc_train.heads.learned.layer import LearnedLayer
from attfc_train.heads.learned.settings import LearnedSettings
from attfc_train.heads.partial_fc.settings import PartialFCSettings
from attfc_train.losses.learning import Descent
from attfc_train.losses.margin import Margin
from attfc_train.profile.profile import OptimSettings
from attfc_train.rounding import DTYPES, StorageType
from attfc_train.step.build import build
from attfc_train.step.step import train_step
from tests.train.heads.learned_heads import DECAY, MOMENTUM, layer_of, make_step, oracle_of, quantum_of, rows_of
from tests.train.losses.test_container_loss import MARGINS
from tests.train.profiles import random_batch, small_profile

CPU = torch.device("cpu")
STORAGES: tuple[StorageType, ...] = ("fp32", "bf16", "fp8", "int8")
DESCENT = Descent(0.02, MOMENTUM, DECAY)
ARCFACE = Margin("arcface", 0.5)


def check_against_oracle(layer: LearnedLayer, features: Tensor, labels: Tensor, step: int, margin: Margin, parts: int) -> None:
    """One step from the same rows: losses and gradients to 1e-5, rows and buffers within a quantum of the exact ones."""
    oracle = oracle_of(layer, MOMENTUM, DECAY)
    shortest = rows_of(layer).norm(dim=1).min()
    loss, gradient, classes = make_step(layer, features, labels, step, margin, DESCENT, parts)
    rate = DESCENT.rate / (1 - MOMENTUM if layer.momentum is None else 1)  # without a buffer, at once what momentum makes of it
    expected, expected_gradient = oracle.step(features.double().numpy(), labels.tolist(), classes, margin, rate)
    # A cosine of fp32 numbers is off by 1e-7, a logit by the scale s times that, and so is p; d loss / d cosine = s p.
    scale = layer.rule.scale
    off = 3e-7 * scale * scale
    assert loss.item() == pytest.approx(expected, rel=1e-5, abs=1e-6 + off / scale)
    np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-4, atol=1e-5 * np.abs(expected_gradient).max() + off)
    rows = torch.from_numpy(oracle.rows)
    # Through the row's length the same error moves the row.
    moved = rate * off / shortest
    error = (rows_of(layer) - rows).abs() / (1.01 * quantum_of(layer, rows) + 3e-5 * rows.abs().max() + moved)
    assert error.max() <= 1
    if layer.momentum is not None:
        buffers = torch.from_numpy(oracle.buffers)
        narrow = 1e-5 if layer.momentum.dtype == torch.float32 else 2.0**-7
        torch.testing.assert_close(
            layer.momentum.double(), buffers, rtol=1.01 * narrow, atol=1e-5 * float(buffers.abs().max()) + off / float(shortest)
        )


CASES = list(product(STORAGES, (False, True), (0.0, 0.4), (None, 0.4)))


@pytest.mark.parametrize("margin", MARGINS, ids=str)
@pytest.mark.parametrize(("storage", "momentum", "interclass_filter", "sample_rate"), CASES)
def test_equals_the_oracle(
    storage: StorageType, momentum: bool, interclass_filter: float, sample_rate: float | None, margin: Margin
) -> None:
    layer = layer_of(23, 8, storage, momentum=momentum, sample_rate=sample_rate, interclass_filter=interclass_filter)
    for step in range(2):
        generator = torch.Generator().manual_seed(step)
        labels = torch.randint(23, (6,), generator=generator)
        check_against_oracle(layer, torch.randn(6, 8, generator=generator), labels, step, margin, parts=1 + step)


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_any_shape_equals_the_oracle(data: st.DataObject) -> None:
    """Labels repeat; batches may be larger than the sample, than the layer, and than a chunk; a chunk may be one row short."""
    num_ids = data.draw(st.integers(2, 40))
    dim = data.draw(st.integers(2, 9))
    num = data.draw(st.integers(1, 24))
    layer = layer_of(
        num_ids,
        dim,
        data.draw(st.sampled_from(STORAGES)),
        momentum=data.draw(st.booleans()),
        sample_rate=data.draw(st.one_of(st.none(), st.floats(1e-3, 1))),
        seed=data.draw(st.integers(0, 2**63 - 1)),
        scale=data.draw(st.sampled_from([16.0, 100.0])),
        chunk=data.draw(st.integers(1, 50)),
    )
    for step in range(2):
        labels = torch.tensor(data.draw(st.lists(st.integers(0, num_ids - 1), min_size=num, max_size=num)))
        check_against_oracle(layer, torch.randn(num, dim), labels, step, Margin("cosface", 0.2), 1)


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("momentum", [False, True])
def test_rows_that_were_not_sampled_keep_their_bits(storage: StorageType, momentum: bool) -> None:
    layer = layer_of(500, 8, storage, momentum=momentum, sample_rate=0.1, seed=7)
    if layer.momentum is not None:
        layer.momentum.normal_(0, 0.01)
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    _, _, classes = make_step(layer, torch.randn(4, 8), torch.tensor([3, 499, 3, 0]), 0, ARCFACE, DESCENT)
    assert len(classes) == 50
    others = torch.ones(500, dtype=torch.bool)
    others[classes] = False
    for name, value in layer.state_dict().items():
        assert torch.equal(value.float()[others], before[name].float()[others]), name
        assert (value.float()[~others] != before[name].float()[~others]).any(), name


def asked_of_nobody(layer: LearnedLayer, step: int, descent: Descent) -> None:
    """A step whose queries have no weight: no row has a gradient."""
    labels = torch.zeros(3, dtype=torch.int64)
    layer.begin_step(labels, step)
    layer(torch.randn(3, layer.values.shape[1]), torch.empty(0), labels, torch.zeros(3), ARCFACE)
    for write in layer.prepare_learning(descent, step):
        write.make()


@pytest.mark.parametrize("momentum", [False, True])
@pytest.mark.parametrize("storage", ["fp8", "int8"])
def test_decay_moves_no_value_of_8_bits(storage: StorageType, momentum: bool) -> None:
    """1,000 steps without a gradient: values keep their bits, and rows shrink as SGD shrinks them."""
    layer = layer_of(20, 16, storage, momentum=momentum)
    values = layer.values.clone()
    before = rows_of(layer)
    descent = Descent(0.1, MOMENTUM, 5e-4)
    for step in range(1000):
        asked_of_nobody(layer, step, descent)
    assert torch.equal(layer.values.view(torch.uint8), values.view(torch.uint8))
    lasting = 5e-4 / (1 - MOMENTUM)  # with a buffer in the end, without one at once
    torch.testing.assert_close(rows_of(layer), before * (1 - 0.1 * lasting) ** 1000, rtol=1e-4, atol=0)


@pytest.mark.parametrize("storage", ["bf16", "fp8", "int8"])
def test_rounding_is_right_on_average(storage: StorageType) -> None:
    """The same step with the noise of 1,500 others: the mean of the rows is the exact one within 5 standard errors."""
    features, labels = torch.randn(5, 6, generator=torch.Generator().manual_seed(1)), torch.tensor([0, 1, 2, 3, 3])
    start = layer_of(9, 6, storage, momentum=False)
    oracle = oracle_of(start, 0.0, DECAY)
    descent = Descent(2e-5, 0.0, DECAY)
    oracle.step(features.double().numpy(), labels.tolist(), range(9), ARCFACE, descent.rate)
    kept = start.state_dict()
    draws = []
    for step in range(1500):
        draws.append(one_draw(start, kept, features, labels, step, descent))
    moved = torch.stack(draws)
    deviation = moved.mean(0) - torch.from_numpy(oracle.rows)
    error = moved.std(0) / 1500**0.5
    assert (moved.std(0) > 0).double().mean() > 0.8, "rows that are rounded at all"
    assert (deviation.abs() <= 5 * error + 1e-6 * rows_of(start).abs().max()).all()


def one_draw(
    layer: LearnedLayer, kept: dict[str, Tensor], features: Tensor, labels: Tensor, step: int, descent: Descent
) -> Tensor:
    before = {name: value.clone() for name, value in kept.items()}
    make_step(layer, features, labels, step, ARCFACE, descent)
    result = rows_of(layer)
    layer.load_state_dict(before)
    return result


@pytest.mark.parametrize("storage", ["fp8", "int8"])
def test_a_row_that_leaves_the_range_is_scaled_anew_and_a_short_one_doubled(storage: StorageType) -> None:
    """Longest components stay between half of the range and all of it; a doubled row is the same row."""
    layer = layer_of(12, 8, storage, momentum=False)
    assert layer.scales is not None
    largest = {"fp8": 448.0, "int8": 127.0}[storage]
    with torch.no_grad():
        halved = (layer.values.float() / 4).round() if storage == "int8" else layer.values.float() / 4
        layer.values.copy_(halved)
        layer.scales.mul_(4)
    before = rows_of(layer)
    for step in range(3):
        asked_of_nobody(layer, step, Descent(0.1, 0.0, 0.0))
    assert torch.equal(rows_of(layer), before)
    assert (layer.values.float().abs().amax(1) > largest / 2 - 1).all()
    for step in range(200):  # so large a rate makes every row longer
        labels = torch.arange(12)
        make_step(layer, torch.randn(12, 8), labels, step, ARCFACE, Descent(0.05, 0.0, 0.0))
        peaks = layer.values.float().abs().amax(1)
        assert ((peaks > largest / 2 - 1) & (peaks <= largest)).all()
    assert (rows_of(layer).norm(dim=1) > 4 * before.norm(dim=1)).all()


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize(("storage", "momentum", "sample_rate"), list(product(STORAGES, (False, True), (None, 0.5))))
def test_an_overflow_leaves_every_bit(storage: StorageType, momentum: bool, sample_rate: float | None, bad: float) -> None:
    """Rows with a momentum that would move them, and rows that are to be doubled, among them."""
    layer = layer_of(30, 8, storage, momentum=momentum, sample_rate=sample_rate)
    make_step(layer, torch.randn(6, 8), torch.arange(6), 0, ARCFACE, DESCENT)
    if layer.scales is not None:
        with torch.no_grad():
            layer.values[3].copy_((layer.values[3].float() / 4).round())
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    features = torch.randn(6, 8)
    features[2] = bad
    labels = torch.arange(6)
    weights = layer.begin_step(labels, 1)
    layer(features, torch.empty(0), labels, weights, ARCFACE)
    for write in layer.prepare_learning(Descent(0.1, MOMENTUM, DECAY, torch.tensor(1.0)), 1):
        write.make()
    for name, value in layer.state_dict().items():
        assert torch.equal(value.float(), before[name].float()), name


@pytest.mark.parametrize("storage", STORAGES)
def test_no_overflow_is_the_step_without_the_flag(storage: StorageType) -> None:
    layers = [layer_of(30, 8, storage) for _ in range(2)]
    for layer, overflow in zip(layers, (None, torch.tensor(0.0)), strict=True):
        descent = Descent(0.1, MOMENTUM, DECAY, overflow)
        for step in range(3):
            generator = torch.Generator().manual_seed(step)
            make_step(layer, torch.randn(6, 8, generator=generator), torch.arange(6), step, ARCFACE, descent)
    for left, right in zip(*(layer.state_dict().values() for layer in layers), strict=True):
        assert torch.equal(left.view(torch.uint8), right.view(torch.uint8))


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("settings_of", [FullFCSettings, PartialFCSettings])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_nothing_of_a_step_is_as_large_as_the_rows_or_the_logits(
    storage: StorageType, settings_of: type[LearnedSettings], precision: str, accumulation: int
) -> None:
    """Not an [N, D] tensor of any type, nor [B, N] logits."""
    others = []
    for num_ids in (200_000, 150_000):
        trace, dim = traced_layer(
            settings_of(storage=storage, momentum=True, chunk_slots=8192), num_ids, precision, accumulation
        )
        for step in range(2):
            births = trace.births(step)
            assert trace.nbytes[births.start : births.stop].max() < num_ids * min(dim, 4 * TRACED_BATCH) / 2
        freed = {~event for event in trace.events if event < 0}
        kept = sorted(size for index, size in enumerate(trace.nbytes.tolist()) if index not in freed)
        width = DTYPES[storage].itemsize
        of_rows = [num_ids * dim * width, num_ids * dim * (4 if storage == "fp32" else 2)]
        of_rows += [4 * num_ids] if width == 1 else []
        for size in of_rows:  # the rows, their momentum and their scales
            kept.remove(size)
        others.append(kept)
    assert others[0] == others[1], "nothing else grows with the identities"


TRACED_BATCH = 8


def traced_layer(head: LearnedSettings, num_ids: int, precision: str, accumulation: int) -> tuple[Trace, int]:
    """The construction and two steps of a learned layer on the tiny network, and its dimensions."""
    if isinstance(head, PartialFCSettings):
        head = head.model_copy(update={"sample_rate": 0.1})
    profile = small_profile(num_ids=num_ids)
    changes = {
        "head": head,
        "optim": OptimSettings(batch_size=TRACED_BATCH, accumulation=accumulation),
        "run": profile.run.model_copy(update={"precision": precision}),
    }
    profile = profile.model_copy(update=changes)
    return record(profile, [profile, profile]), profile.model.embedding_size


def test_8_bits_without_momentum_cost_a_byte_a_dimension_and_a_scale() -> None:
    for storage in ("fp8", "int8"):
        layer = layer_of(1000, 512, storage, momentum=False)
        assert sum(tensor.nbytes for tensor in (*layer.parameters(), *layer.buffers())) == 1000 * (512 + 4)


def test_an_overflowing_step_keeps_rows_and_momentum() -> None:
    for name in ("full_fc", "full_fc-int8", "partial_fc", "partial_fc-fp8"):
        profile = small_profile(name, "fp16")
        state = build(profile, CPU)
        assert state.scaler is not None
        state.scaler.scale.fill_(1.0)
        train_step(state, random_batch(profile))
        state.scaler.scale.fill_(torch.inf)
        before = {key: value.clone() for key, value in state.head.state_dict().items()}
        train_step(state, random_batch(profile, 1))
        for key, value in state.head.state_dict().items():
            assert torch.equal(value.view(torch.uint8), before[key].view(torch.uint8)), (name, key)


@pytest.mark.parametrize(("passes", "phases"), [("chunked", set()), ("triton", {"loss", "update"})])
def test_a_layers_kernels_are_told_by_their_phases(passes: str, phases: set[str]) -> None:
    assert layer_of(8, 4, passes=passes).kernel_phases == phases
