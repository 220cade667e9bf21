"""Several processes train as one process does on the joined batch: losses, gradients, weights, slots and rows, to rounding.

BatchNorm is in eval mode here, where an image knows nothing of its batch; `test_batch_norm` is about the rest.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from attfc_train.backbones.tiny import Residual
from attfc_train.data.batch import Batch
from attfc_train.device_hash import STEP_STRIDE
from attfc_train.heads.partial_fc.class_sample import draw_classes, with_positives
from attfc_train.heads.partial_fc.head import RANK_STRIDE, PartialFCHead
from attfc_train.heads.partial_fc.settings import num_sampled
from attfc_train.profile.profile import TrainProfile
from attfc_train.ranks.ranks import ALONE, Ranks
from attfc_train.ranks.shard import Shard
from attfc_train.step.build import build
from attfc_train.step.state import TrainState
from attfc_train.step.step import train_step
from tests.train.profiles import HEADS, random_batch, small_profile
from tests.train.ranks.gloo import in_processes
from tests.train.ranks.saved import as_saved

CPU = torch.device("cpu")
STEPS = 4
NUM_IDS = 41
"""No number of processes divides it, nor the container's slots."""
SHARED = [name for name, settings in HEADS.items() if settings.is_shared]


def profile_of(head: str, **optim: Any) -> TrainProfile:
    return small_profile(head, steps=STEPS, num_ids=NUM_IDS, **{"batch_size": 24, "accumulation": 2, **optim})


def fresh(profile: TrainProfile, ranks: Ranks = ALONE) -> TrainState:
    state = build(profile, CPU, ranks)
    for encoder in [state.feature_encoder, *([state.class_encoder.class_encoder] if state.class_encoder else [])]:
        smooth(encoder.eval())
    return state


def smooth(encoder: nn.Module) -> None:
    """Replace ReLUs: where an input is nearly 0, one may be open in one sum's order and shut in the other's."""
    for module in encoder.modules():
        if isinstance(module, nn.ReLU):
            module.forward = softplus  # type: ignore[method-assign, assignment]
        elif isinstance(module, Residual):
            module.forward = partial(residual, module.layers)  # type: ignore[method-assign]


def residual(layers: nn.Module, x: Tensor) -> Tensor:
    return softplus(x + layers(x))


def share_of(batch: Batch, ranks: Ranks) -> Batch:
    own = slice(ranks.rank, None, ranks.size)
    return Batch(batch.query[own], batch.references[:, own], batch.flips[:, own], batch.labels[own])


def trained(state: TrainState) -> tuple[list[list[float]], dict[str, Any]]:
    """Loss, gradient norm and observed figures of some steps, and the state after them."""
    figures = []
    for step in range(STEPS):
        batch = share_of(random_batch(state.profile, step), state.ranks)
        metrics = train_step(state, batch)
        figures.append([metrics.loss.item(), metrics.gradient_norm.item(), *map(float, metrics.observed.values())])
    return figures, as_saved(state)


def trained_from(ranks: Ranks, profile: TrainProfile, begin: dict[str, Any]) -> Any:
    state = fresh(profile, ranks)
    state.restore(begin)
    return trained(state)


def alone_with_the_same_classes(size: int) -> Any:
    """What `PartialFCHead.begin_step` draws in `size` processes, in one."""

    def begin_step(head: PartialFCHead, labels: Tensor, step: int) -> Tensor:
        head.forget_step()
        parts = []
        for rank in range(size):
            shard = Shard.of(NUM_IDS, rank, size)
            key = head.seed * STEP_STRIDE + step + rank * RANK_STRIDE
            drawn = draw_classes(shard.num, num_sampled(shard.num, head.sample_rate, len(labels)), key, CPU)
            own = [label - shard.first for label in labels.tolist() if shard.first <= label < shard.stop]
            parts.append(shard.first + (with_positives(drawn, torch.tensor(own)) if own else drawn))
        head.index = torch.cat(parts)
        return torch.full_like(labels, 1 / len(labels), dtype=torch.float32)

    return begin_step


def assert_near(actual: Any, expected: Any, where: str = "") -> None:
    """Compare nested states: floats to rounding, rounded rows to a quantum, all else exactly."""
    if isinstance(expected, dict):
        assert actual.keys() == expected.keys(), where
        for name in expected:
            assert_near(actual[name], expected[name], f"{where}/{name}")
    elif isinstance(expected, list):
        for number, (left, right) in enumerate(zip(actual, expected, strict=True)):
            assert_near(left, right, f"{where}/{number}")
    elif not isinstance(expected, Tensor):
        assert actual == expected, where
    elif expected.dtype in (torch.int8, torch.bfloat16, torch.float8_e4m3fn):
        # Sums in another order may round to the neighbour, hardly ever.
        left, right = actual.float(), expected.float()
        quantum = {torch.int8: 1.0, torch.bfloat16: 2.0**-7, torch.float8_e4m3fn: 2.0**-3}[expected.dtype]
        distance = (left - right).abs() / (1.0 if expected.dtype == torch.int8 else right.abs().clamp_min(2.0**-6))
        assert distance.max() <= 1.01 * quantum, where
        assert (distance > 0).float().mean() < 0.02, where
    elif expected.is_floating_point():
        assert (actual - expected).norm() <= 1e-3 * expected.norm() + 1e-5, where
    else:
        assert torch.equal(actual, expected), where


def check(monkeypatch: pytest.MonkeyPatch, profile: TrainProfile, size: int) -> None:
    begin = fresh(profile).saved()
    alone = fresh(profile)
    alone.restore(begin)
    with monkeypatch.context() as patched:
        if isinstance(alone.head, PartialFCHead):
            patched.setattr(PartialFCHead, "begin_step", alone_with_the_same_classes(size))
        figures, expected = trained(alone)
    results = in_processes(size, trained_from, profile, begin)
    for other, state in results:
        torch.testing.assert_close(torch.tensor(other), torch.tensor(figures), rtol=1e-3, atol=1e-5, equal_nan=True)
        assert_near(state["feature_encoder"], expected["feature_encoder"])
    assert_near(results[0][1], expected)


# Catches: labels that are not counted from the part's first row; a merge without the largest maximum (scale
# 64 keeps none: see the next test); an own row of another process that counts as 0; weights that sum to 1 on every process;
# noise by the row of the part; a center that is read where it lies on another process; fresh centers of this process alone.
@pytest.mark.parametrize("head", SHARED)
def test_three_processes_train_as_one(head: str, monkeypatch: pytest.MonkeyPatch) -> None:
    check(monkeypatch, profile_of(head), 3)


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("head", ["full_fc", "identity-30%", "fifo"])
def test_two_and_four_processes_train_as_one(head: str, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    check(monkeypatch, profile_of(head, accumulation=1), size)
