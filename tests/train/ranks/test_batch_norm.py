"""BatchNorm of several processes: each normalises by its own share of the batch, and all keep the mean of what they saw."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm

from attfc_train.profile.profile import TrainProfile
from attfc_train.ranks.ranks import ALONE, Ranks
from attfc_train.step.build import build
from attfc_train.step.state import TrainState
from attfc_train.step.step import train_step
from tests.train.profiles import random_batch, small_profile
from tests.train.ranks.gloo import in_processes
from tests.train.ranks.saved import as_saved
from tests.train.ranks.test_equality import CPU, assert_near, share_of, smooth

SIZE = 3
STEPS = 2


def in_shares(layer: nn.BatchNorm2d, views: int, x: Tensor) -> Tensor:
    """What `SIZE` processes make of a batch of so many views of each image, in one."""
    momentum = layer.momentum
    assert momentum is not None
    result = torch.empty_like(x)
    kept = []
    for rank in range(SIZE):
        statistics = [each.clone() for each in (layer.running_mean, layer.running_var) if each is not None]
        share = x.view(views, -1, *x.shape[1:])[:, rank::SIZE].flatten(0, 1)
        out = batch_norm(share, *statistics, layer.weight, layer.bias, True, momentum, layer.eps)
        result.view(views, -1, *x.shape[1:])[:, rank::SIZE] = out.view(views, -1, *x.shape[1:])
        kept.append(statistics)
    for buffer, seen in zip((layer.running_mean, layer.running_var), zip(*kept, strict=True), strict=True):
        assert buffer is not None
        buffer.copy_(torch.stack(seen).mean(0))
    assert layer.num_batches_tracked is not None
    layer.num_batches_tracked.add_(1)
    return result


def fresh(profile: TrainProfile, ranks: Ranks = ALONE) -> TrainState:
    state = build(profile, CPU, ranks)
    smooth(state.feature_encoder)
    assert state.class_encoder is not None
    smooth(state.class_encoder.class_encoder)
    return state


def trained_from(ranks: Ranks, profile: TrainProfile, begin: dict[str, Any]) -> Any:
    state = fresh(profile, ranks)
    state.restore(begin)
    for step in range(STEPS):
        train_step(state, share_of(random_batch(profile, step), ranks))
    return as_saved(state)


# Catches running statistics of rank 0's share alone, or that are added up; and those of one encoder only.
def test_every_process_normalises_by_its_share() -> None:
    profile = small_profile("identity-30%", num_ids=41, batch_size=24)
    alone = fresh(profile)
    begin = alone.saved()
    results = in_processes(SIZE, trained_from, profile, begin)
    alone.restore(begin)
    assert alone.class_encoder is not None
    for encoder, views in ((alone.feature_encoder, 1), (alone.class_encoder.class_encoder, profile.num_references)):
        for layer in encoder.modules():
            if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)):
                layer.forward = partial(in_shares, layer, views)  # type: ignore[method-assign, assignment, arg-type]
    for step in range(STEPS):
        train_step(alone, random_batch(profile, step))
    expected = alone.saved()
    for result in results:
        assert_near(result["feature_encoder"], expected["feature_encoder"])
        assert_near(result["class_encoder"], expected["class_encoder"])
