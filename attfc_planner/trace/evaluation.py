"""An evaluation's allocations beside what training holds: learned once a network, exact for every batch size.

Two batches are traced (`attfc_planner.trace.record`); a real evaluation has as many as verification sets make necessary, and
all of them allocate the same. Only the embeddings add up from batch to batch: their storages of the first batch stand for those
of all batches but the last.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from attfc_planner.trace.affine import LARGE, SMALL
from attfc_planner.trace.align import NotAffine
from attfc_planner.trace.history import Trace
from attfc_planner.trace.record import record_evaluation
from attfc_train.heads.full_fc.settings import FullFCSettings
from attfc_train.profile.profile import NUM_DRAWN_PAIRS, DataSettings, ModelSettings, RunSettings, TrainProfile

NUM_IMAGES = 2 * NUM_DRAWN_PAIRS
"""Images of a verification set: drawn pairs have this many at most, and so have LFW's and the usual ``.bin`` files."""


@dataclass(frozen=True, slots=True, eq=False)
class EvaluationModel:
    """An evaluation as a function of its batch size."""

    skeleton: Trace
    """Of two batches, its steps."""
    coefficients: NDArray[np.int64]
    """[S, 2]: bytes that do not depend on the batch, and bytes per image of a batch."""

    def at(self, batch_size: int) -> Trace:
        """Return the evaluation of `NUM_IMAGES` images, at most `batch_size` at a time."""
        sizes = self.coefficients @ np.array([1, batch_size], np.int64)
        return _of_all_images(self.skeleton.with_sizes(sizes), batch_size)


def evaluation_structure(profile: TrainProfile) -> TrainProfile:
    """Return the one profile that stands for all that evaluate alike: without gradients, checkpointing does not matter.

    Nor does it matter which encoder is evaluated: in inference mode autocast keeps no copy of a weight, trained or not.
    """
    model = profile.model
    return TrainProfile(
        data=DataSettings(num_ids=2),
        model=ModelSettings(backbone=model.backbone, embedding_size=model.embedding_size, image_size=model.image_size),
        head=FullFCSettings(),
        run=RunSettings(precision=profile.run.precision, steps=1000),
    )


def learn_evaluation(structure: TrainProfile) -> EvaluationModel:
    """Trace an evaluation with two batch sizes, and fit its storages' sizes.

    Raises:
        NotAffine: a size is neither constant nor a multiple of the batch.
    """
    small, large = (_collected(trace) for trace in record_evaluation(structure, [SMALL, LARGE]))
    if (small.events, small.ops) != (large.events, large.ops):
        raise NotAffine("two batch sizes make different storages")
    # A storage has either constant bytes or bytes an image: size = c0 + c1 B with one of the two zero.
    constant = small.nbytes == large.nbytes
    per_image = np.where(constant, 0, small.nbytes // SMALL)
    coefficients = np.stack([np.where(constant, small.nbytes, 0), per_image], axis=1)
    for trace, batch_size in ((small, SMALL), (large, LARGE)):
        if (coefficients @ np.array([1, batch_size]) != trace.nbytes).any():
            raise NotAffine("a size is no multiple of the batch")
    return EvaluationModel(replace(small, costs=()), coefficients)


def traced_evaluation(structure: TrainProfile, batch_size: int) -> Trace:
    """Return what `EvaluationModel.at` returns, traced with this very batch size."""
    return _of_all_images(_collected(record_evaluation(structure, [batch_size])[0]), batch_size)


def _collected(trace: Trace) -> Trace:
    """Return the trace with the category ``embeddings`` for what adds up from batch to batch."""
    # The embeddings wait for the last batch, and then are joined (``cat``). So: of all that is freed after the last birth, what
    # an operator made that also made such a storage in the first batch.
    last = max(index for index, event in enumerate(trace.events) if event >= 0)
    kept = {~event for event in trace.events[last:] if event < 0}
    names = {trace.ops[index] for index in trace.births(0) if index in kept} | {"cat"}
    categories = list(trace.categories)
    for index in kept:
        if trace.ops[index] in names:
            categories[index] = "embeddings"
    return replace(trace, categories=tuple(categories))


def _of_all_images(trace: Trace, batch_size: int) -> Trace:
    """Return a trace of two batches stretched to all: all but the last leave behind what the first does."""
    batches = max(2, -(-NUM_IMAGES // batch_size))  # rounded up
    first = trace.births(0)
    second = trace.births(1)
    # first batch's embeddings: 1 -> batches - 1;  joined ones, of the two batches that were traced: 2 -> batches.
    sizes = trace.nbytes.copy()
    for index, (category, name) in enumerate(zip(trace.categories, trace.ops, strict=True)):
        if category == "embeddings" and index in first:
            sizes[index] *= batches - 1
        elif category == "embeddings" and index in second and name == "cat":
            sizes[index] = sizes[index] // 2 * batches
    return replace(trace.with_sizes(sizes), steps=(), costs=())
