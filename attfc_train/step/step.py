"""THE train step. The loop, the memory trace, the verification, the benchmarks and the tests all call this function.

Its events, in this order (docs/methods.md):

1. The head begins: the weight of every query in the mean loss, and for Partial FC the step's classes.
2. The class encoder moves towards the feature encoder, and what can be undone is copied (`attfc_train.step.rollback`).
3. For each micro-batch: features of its references, what a teacher makes of its queries, features of its queries, loss,
   backward pass. Gradients add up, in the last backward pass over the processes, too (`attfc_train.step.gradient_sums`).
4. Everything of the update and of the enqueue that needs memory is computed.
5. All processes wait for each other: where one could not compute its part, none changes anything.
6. The commit: weights, momentum buffers, slots and averaged running statistics change. It allocates nothing.

References come before queries, and without a graph: the class encoder's activations are gone before those of the feature
encoder are kept for the backward pass. Attention needs no more of a reference than its features, and the loss no more of a
teacher than its embeddings, which come before the queries too.

Two rules hold for everything that is called here:

* It can be traced with fake tensors. No value is read on the host (``.item()``, ``if tensor``), so the host never waits for the
  device; no shape depends on values; tensors are made on the state's device, never on a global one. A decision that depends on
  values is arithmetic on the device: the overflow that skips an update, the first step that was not finite.
* A step that runs out of memory is repeated (`attfc_train.run.out_of_memory`). So whatever allocates comes before the commit,
  and `TrainState.undo_step` restores all that has changed until then.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from attfc_train.data.batch import Batch, normalised
from attfc_train.heads.containers.writes import commit
from attfc_train.heads.head import Enqueue, HeadOutput
from attfc_train.losses.distillation import angular_distances
from attfc_train.losses.learning import Descent
from attfc_train.optim import schedule
from attfc_train.optim.precision import MOST_SKIPPED, autocast
from attfc_train.optim.sgd import clip_gradients
from attfc_train.phase import phase
from attfc_train.step.state import TrainState


@dataclass(frozen=True, slots=True)
class StepMetrics:
    """Device scalars, so that reading them (a sync) is the caller's choice."""

    loss: Tensor
    """Mean loss of the step's queries, fp32; a teacher's part is not in it."""
    gradient_norm: Tensor
    """L2 norm of the feature encoder's gradient before clipping, fp32."""
    learning_rate: float
    observed: Mapping[str, Tensor]
    """Figures of the head about the step, by the log's names; empty unless `Head.observes`."""
    teacher_distance: Tensor | None = None
    """Mean squared distance of the step's queries to the teacher's embeddings, fp32; None without a teacher."""


@dataclass(frozen=True, slots=True)
class _Update:
    """An optimiser update that is computed, but not made yet."""

    commit: Callable[[], None]
    gradient_norm: Tensor
    learning_rate: float


def train_step(state: TrainState, batch: Batch) -> StepMetrics:
    """Make one optimiser step on one batch (AttFC, arXiv 2503.06839); changes `state` in place."""
    with phase("input"):
        batch = _on_device(state, batch)
        joined_labels = state.ranks.gathered(batch.labels)
        weights = state.ranks.own(state.head.begin_step(joined_labels, state.step))
    with phase("momentum"):
        if not state.start.is_kept:  # a repeated step has its copies already, and its class encoder has moved
            _update_class_encoder(state)
            state.start.keep()
    outputs, distances = _accumulate(state, batch, weights)
    with phase("update"):
        loss = torch.stack([output.loss for output in outputs]).sum()
        distance = torch.stack(distances).sum() if distances else None
        _join(state, [loss] if distance is None else [loss, distance])
        objective = _objective(state, loss, distance)
        update = _prepare_update(state, objective)
    with phase("enqueue"):
        enqueue = _prepare_enqueue(state, joined_labels, outputs)
    state.ranks.all_ready()
    # From here on nothing allocates, so nothing can fail, and weights and slots change together.
    state.start.begin_commit()
    with phase("update"):
        update.commit()
    with phase("enqueue"):
        commit(enqueue.writes)
    with phase("momentum"):
        _finish_class_encoder(state)
    state.head.forget_step()
    state.rates.observe(objective)
    state.step += 1
    state.start.end_commit()
    return StepMetrics(loss, update.gradient_norm, update.learning_rate, enqueue.observed, distance)


def _on_device(state: TrainState, batch: Batch) -> Batch:
    """Return the batch on the device, with a key for each image where images are augmented."""
    moved = batch.to(state.device) if state.inputs is None else state.inputs.filled(batch)
    if state.augmenter is None:
        return moved
    views, num = batch.flips.shape
    keys = state.augmenter.keys(state.step, views, num * state.ranks.size)  # an image's, by its place in the joined batch
    return moved.with_keys(state.ranks.own(keys.t()).t())


def _update_class_encoder(state: TrainState) -> None:
    settings = state.profile.head.class_encoder
    if state.class_encoder and settings:
        state.class_encoder.update(settings.momentum_at(state.step))


def _finish_class_encoder(state: TrainState) -> None:
    settings = state.profile.head.class_encoder
    if state.class_encoder and settings:
        state.class_encoder.finish(settings.momentum_at(state.step), passes=state.profile.num_passes)


def _objective(state: TrainState, loss: Tensor, distance: Tensor | None) -> Tensor:
    """Return what is minimised: the head's loss, and the weighted distance to a teacher."""
    return loss if distance is None or state.teacher is None else loss + state.teacher.weight * distance


def _accumulate(state: TrainState, batch: Batch, weights: Tensor) -> tuple[list[HeadOutput], list[Tensor]]:
    """Add up the gradients of all micro-batches; return what each gave, without graphs.

    Returns:
        Losses and new centers, and with a teacher the shares of the mean distance to it.
    """
    outputs = []
    distances = []
    parts = state.profile.num_passes
    with phase("input"):
        micro_batches = list(batch.split(parts, state.profile.head.is_paired))
    # The weights are those of the whole batch: losses and gradients of its parts add up to its mean loss and gradient.
    for number, (part, part_weights) in enumerate(zip(micro_batches, weights.chunk(parts), strict=True), 1):
        output, distance = _forward(state, part, part_weights)
        with phase("backward"):
            if number == parts:
                state.sums.begin()
            objective = _objective(state, output.loss, distance)
            (state.scaler.scale * objective if state.scaler else objective).backward()
        outputs.append(HeadOutput(output.loss.detach(), output.centers))
        if distance is not None:
            distances.append(distance.detach())
    return outputs, distances


def _forward(state: TrainState, part: Batch, weights: Tensor) -> tuple[HeadOutput, Tensor | None]:
    """Compute references, queries and loss of one micro-batch, and its share of the mean distance to a teacher."""
    precision = state.profile.run.precision
    with phase("references"), torch.no_grad(), autocast(state.device, precision):
        references = _reference_features(state, part)
    targets = _targets(state, part)
    with phase("forward"), autocast(state.device, precision):
        features = state.feature_encoder(normalised(part.query, part.flips[0], _augmentation(state, part, slice(1))))
    with phase("loss"):  # without autocast: the head decides its own types
        margin = schedule.margin(state.profile.head.margin, state.step)
        output: HeadOutput = state.head(features, references, part.labels, weights, margin)
        if targets is None:
            return output, None
        # Every query counts alike, also one whose identity holds no slot yet: a teacher knows it already.
        return output, angular_distances(features, targets).sum() / state.profile.optim.batch_size


def _targets(state: TrainState, part: Batch) -> Tensor | None:
    """Return the teacher's embeddings [b, D] of the queries, mirrored as the student sees them."""
    if state.teacher is None:
        return None
    with phase("teacher"), torch.no_grad(), autocast(state.device, state.profile.run.precision):
        return state.teacher(normalised(part.query, part.flips[0]))


def _reference_features(state: TrainState, part: Batch) -> Tensor:
    """Return the class encoder's features [R, b, D] of all references, made in one pass: BatchNorm sees R x b images."""
    num_references, num = part.references.shape[:2]
    if state.class_encoder is None:
        return torch.empty(0, num, state.profile.model.embedding_size, device=state.device)
    change = _augmentation(state, part, slice(1, None)) if state.augmenter and state.augmenter.references else None
    images = normalised(part.references.flatten(0, 1), part.flips[1:].flatten(), change)
    features: Tensor = state.class_encoder.class_encoder(images)
    return features.view(num_references, num, -1)


def _augmentation(state: TrainState, part: Batch, views: slice) -> Callable[[Tensor], Tensor] | None:
    """Return what augments these views of a part's images; None where images stay as they are."""
    if state.augmenter is None or part.keys is None:
        return None
    return partial(state.augmenter, keys=part.keys[views].flatten())


def _join(state: TrainState, losses: list[Tensor]) -> None:
    """Add up losses and gradients of the processes, and average what their BatchNorm layers saw.

    Before anything is decided by them: a gradient that overflowed on one process then does so on all, and all skip the step.
    """
    # A query's weight is that in the joined batch, so its loss and its gradient are the sums of all shares.
    state.ranks.sum_in_place(losses)
    state.ranks.average_in_place(state.running_statistics)
    state.sums.finish()


def _prepare_update(state: TrainState, loss: Tensor) -> _Update:
    """Unscale, clip the feature encoder, and compute the update up to its commit."""
    profile = state.profile
    overflow = state.scaler.unscale(state.optimizer.gradients) if state.scaler else None
    norm = clip_gradients(state.feature_encoder.parameters(), profile.optim.clip_norm)
    rate = state.rates.rate(state.step)
    make = state.optimizer.prepare(rate, overflow)
    optimizer = state.optimizer
    descent = Descent(rate, optimizer.momentum, optimizer.weight_decay, overflow)
    learning = state.head.prepare_learning(descent, state.step)
    # With a scaler a gradient that is not finite is a step to skip; only many of them in a row are damage.
    bad = ~torch.isfinite(loss if state.scaler else loss + norm)
    if state.scaler:
        bad |= state.scaler.skipped > MOST_SKIPPED
    is_first_bad = bad & (state.first_bad_step < 0)

    def commit_update() -> None:
        make()
        commit(learning)
        state.first_bad_step.masked_fill_(is_first_bad, state.step)

    return _Update(commit_update, norm, rate)


def _prepare_enqueue(state: TrainState, joined_labels: Tensor, outputs: list[HeadOutput]) -> Enqueue:
    """Compute what the head will remember of the step, of the joined batch."""
    centers = torch.cat([output.centers for output in outputs])
    return state.head.prepare_enqueue(state.ranks.gathered(centers), joined_labels, state.step)
