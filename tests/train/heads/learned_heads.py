"""Learned layers for tests, and one step of them by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from attfc_train.heads.containers.writes import commit
from attfc_train.heads.full_fc.head import FullFCHead
from attfc_train.heads.learned.layer import LearnedLayer
from attfc_train.heads.partial_fc.head import PartialFCHead
from attfc_train.losses.learned_layers import PASSES
from attfc_train.losses.learning import Descent, Rule
from attfc_train.losses.margin import Margin
from attfc_train.rounding import StorageType
from tests.oracle.learned_layer_oracle import LearnedLayerOracle

SCALE = 16.0
MOMENTUM = 0.9
DECAY = 0.01


def layer_of(
    num_ids: int,
    dim: int,
    storage: StorageType = "fp32",
    *,
    momentum: bool = True,
    sample_rate: float | None = None,
    seed: int = 0,
    scale: float = SCALE,
    interclass_filter: float = 0.0,
    chunk: int = 16,
    passes: str = "chunked",
) -> LearnedLayer:
    torch.manual_seed(seed % 2**32)
    common: dict[str, Any] = {
        "storage": storage,
        "has_momentum": momentum,
        "passes": PASSES[passes],
        "rule": Rule(scale, interclass_filter or torch.inf, chunk),
    }
    if sample_rate is None:
        return FullFCHead(num_ids, dim, **common)
    return PartialFCHead(num_ids, dim, sample_rate=sample_rate, seed=seed, **common)


def make_step(
    layer: LearnedLayer,
    features: Tensor,
    labels: Tensor,
    step: int,
    margin: Margin,
    descent: Descent,
    parts: int = 1,
) -> tuple[Tensor, Tensor, list[int]]:
    """Make a step; return the loss, its gradient by the features, and the classes that were scored."""
    weights = layer.begin_step(labels, step)
    index = layer.index
    classes = list(range(len(layer.values))) if index is None else index.tolist()
    leaf = features.clone().requires_grad_()
    pieces = zip(leaf.chunk(parts), labels.chunk(parts), weights.chunk(parts), strict=True)
    losses = [layer(piece, torch.empty(0), owners, share, margin).loss for piece, owners, share in pieces]
    loss = torch.stack(losses).sum()
    (gradient,) = torch.autograd.grad(loss, leaf)
    commit(layer.prepare_learning(descent, step))
    layer.forget_step()
    return loss.detach(), gradient, classes


def rows_of(layer: LearnedLayer) -> Tensor:
    """The rows as fp64 [N, D]."""
    values = layer.values.detach().double()
    return values if layer.scales is None else values * layer.scales.detach().double()[:, None]


def oracle_of(layer: LearnedLayer, momentum: float, weight_decay: float) -> LearnedLayerOracle:
    """An oracle that starts from what the layer holds now."""
    buffers = np.zeros(layer.values.shape) if layer.momentum is None else layer.momentum.double().numpy().copy()
    return LearnedLayerOracle(
        rows_of(layer).numpy().copy(),
        buffers,
        layer.rule.scale,
        0.0 if layer.rule.ceiling > 1 else layer.rule.ceiling,
        0.0 if layer.momentum is None else momentum,
        weight_decay,
        decays_beside_momentum=layer.scales is not None and layer.momentum is not None,
    )


def quantum_of(layer: LearnedLayer, rows: Tensor) -> Tensor:
    """The distance of neighbouring numbers of the storage around each component of fp64 rows, [N, D]."""
    dtype = layer.values.dtype
    if dtype == torch.float32:
        return torch.full_like(rows, 2e-5)
    if layer.scales is None:
        return 2.0**-7 * rows.abs() + 1e-30
    scales = layer.scales.detach().double()[:, None]
    return scales.expand_as(rows) if dtype == torch.int8 else 2.0**-3 * rows.abs() + 2.0**-9 * scales
