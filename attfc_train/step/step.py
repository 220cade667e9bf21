"""THE train step. The loop, the memory trace, the verification, the benchmarks and the tests all call this function.

It is trace-clean (DESIGN 3): no host sync, no shape that depends on values, no global device. Order of events: the momentum
update, then the references' features, *then* the queries' forward pass, so that the class encoder's activations are gone
before those of the feature encoder are kept for backward; the attention needs only the features.

A step that runs out of memory is repeated (`attfc_train.run.out_of_memory`). Hence its second rule: whatever allocates comes
before the commit, which is the first change of a weight or a slot, and `TrainState.undo_step` knows of everything that
changes before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from attfc_train.data.batch import Batch, normalised
from attfc_train.heads.containers.writes import commit
from attfc_train.heads.head import HeadOutput
from attfc_train.optim import schedule
from attfc_train.optim.precision import MOST_SKIPPED, autocast
from attfc_train.optim.sgd import clip_gradients
from attfc_train.phase import phase
from attfc_train.step.state import TrainState


@dataclass(frozen=True, slots=True)
class StepMetrics:
    """Device scalars, so that reading them (a sync) is the caller's choice."""

    loss: Tensor
    """Mean loss of the step's queries, fp32."""
    gradient_norm: Tensor
    """L2 norm of the feature encoder's gradient before clipping, fp32."""
    learning_rate: float
    observed: Mapping[str, Tensor]
    """What the head observed of the step, by the log's names; empty unless `Head.observes`."""


def train_step(state: TrainState, batch: Batch) -> StepMetrics:
    """One optimiser step on one batch (AttFC, DESIGN 5 steps 1-8); changes `state` in place."""
    with phase("input"):
        batch = batch.to(state.device)
        weights = state.head.begin_step(batch.labels, state.step)
    with phase("momentum"):
        if not state.start.is_kept:  # else this step is being repeated, and it has moved
            _update_class_encoder(state)
            state.start.keep()
    outputs = []
    parts = state.profile.optim.accumulation
    for part, part_weights in zip(batch.split(parts), weights.chunk(parts), strict=True):
        output = _forward(state, part, part_weights)
        with phase("backward"):
            (state.scaler.scale * output.loss if state.scaler else output.loss).backward()
        outputs.append(HeadOutput(output.loss.detach(), output.centers))
    with phase("update"):
        loss = torch.stack([output.loss for output in outputs]).sum()
        update, norm, rate = _prepare_update(state, loss)
    with phase("enqueue"):
        centers = torch.cat([output.centers for output in outputs])
        ranks = state.ranks
        enqueue = state.head.prepare_enqueue(ranks.gathered(centers), ranks.gathered(batch.labels), state.step)
    state.start.begin_commit()
    with phase("update"):
        update()
    with phase("enqueue"):
        commit(enqueue.writes)
    state.rates.observe(loss)
    state.step += 1
    state.start.end_commit()
    return StepMetrics(loss, norm, rate, enqueue.observed)


def _update_class_encoder(state: TrainState) -> None:
    wanted = state.profile.head.class_encoder
    if state.class_encoder and wanted:
        state.class_encoder.update(wanted.momentum_at(state.step))


def _forward(state: TrainState, part: Batch, weights: Tensor) -> HeadOutput:
    """References, queries and loss of one micro-batch."""
    precision = state.profile.run.precision
    with phase("references"), torch.no_grad(), autocast(state.device, precision):
        references = _reference_features(state, part)
    with phase("forward"), autocast(state.device, precision):
        features = state.feature_encoder(normalised(part.query, part.flips[0]))
    with phase("loss"):
        margin = schedule.margin(state.profile.head.margin, state.step)
        output: HeadOutput = state.head(features, references, part.labels, weights, margin)
    return output


def _reference_features(state: TrainState, part: Batch) -> Tensor:
    """Class-encoder features [R, b, D] of all references in one pass: BatchNorm sees R x b images (methods 1.2, step 4)."""
    num_references, num = part.references.shape[:2]
    if state.class_encoder is None:
        return torch.empty(0, num, state.profile.model.embedding_size, device=state.device)
    images = normalised(part.references.flatten(0, 1), part.flips[1:].flatten())
    features: Tensor = state.class_encoder.class_encoder(images)
    return features.view(num_references, num, -1)


def _prepare_update(state: TrainState, loss: Tensor) -> tuple[Callable[[], None], Tensor, float]:
    """Unscale, clip the feature encoder; then SGD, and whether the step was finite. The commit, gradient norm and rate."""
    profile = state.profile
    state.ranks.average(state.optimizer.gradients)
    overflow = state.scaler.unscale(state.optimizer.gradients) if state.scaler else None
    norm = clip_gradients(state.feature_encoder.parameters(), profile.optim.clip_norm)
    rate = state.rates.rate(state.step)
    update = state.optimizer.prepare(rate, overflow)
    bad = ~torch.isfinite(loss if state.scaler else loss + norm)
    if state.scaler:
        bad |= state.scaler.skipped > MOST_SKIPPED
    first = bad & (state.first_bad_step < 0)

    def commit_update() -> None:
        update()
        state.first_bad_step.masked_fill_(first, state.step)

    return commit_update, norm, rate
