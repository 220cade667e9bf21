"""Traces that need no tracing: a batch in parts, and narrower centers, computed from a whole batch with fp32 centers.

Parts. The step's phases `_WHOLE` see the whole batch, the others one part. At the last part's peak the gradients of the earlier
parts are alive already, and so are the earlier parts' new centers; its own gradients are added and freed one by one.

Narrower centers. The container's rows shrink, the 8-bit types have an fp32 scale per slot, and scoring widens each chunk of
slots into fp32, and with scales multiplies its logits by them. Rounding a batch of new centers takes a few numbers per sample
more; that is left out: it happens while no activations are alive.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from attfc_planner.trace.affine import COST_TERMS, SIZE_TERMS, AffineTrace
from attfc_planner.trace.history import OpCost, Trace
from attfc_planner.trace.structure import Knobs, head_structure_of, knobs_of
from attfc_train.document import STORAGES
from attfc_train.profile.profile import TrainProfile

_WHOLE = ("input", "momentum", "update", "enqueue")
"""Phases of the step that happen once, whatever the parts."""
_FIRST_GRADIENT = ("new_empty_strided", "copy_")
"""Operators of the backward pass that give a weight its first gradient."""
_SLOTS, _CHUNK = SIZE_TERMS.index("C"), SIZE_TERMS.index("K")


def stand_in(profile: TrainProfile) -> TrainProfile:
    """The profile to trace for `profile`: one part of the batch, fp32 centers. Itself where these are not known to scale."""
    optim = profile.optim
    head = head_structure_of(profile.head).stand_in(profile.head)
    if head is None:
        return profile
    whole = optim.model_copy(update={"accumulation": 1, "batch_size": optim.micro_batch_size})
    return profile.model_copy(update={"head": head, "optim": whole})


def scaled_trace(affine: AffineTrace, profile: TrainProfile) -> Trace:
    """The trace of `profile` from that of the structure of its stand-in."""
    affine, knobs = _narrowed(affine, profile), knobs_of(profile)
    parts = profile.optim.accumulation if stand_in(profile) is not profile else 1
    trace = affine.at(knobs)
    return trace if parts == 1 else _in_parts(trace, affine.at(replace(knobs, batch=parts * knobs.batch)).nbytes, parts)


def scaled_costs(affine: AffineTrace, profile: TrainProfile) -> tuple[OpCost, ...]:
    """Costs of the operators of one step of `profile`, likewise."""
    knobs = knobs_of(profile)
    affine = _narrowed(affine, profile)
    parts = profile.optim.accumulation if stand_in(profile) is not profile else 1
    return affine.costs_at(knobs) if parts == 1 else _costs_in_parts(affine, knobs, parts)


def _narrowed(affine: AffineTrace, profile: TrainProfile) -> AffineTrace:
    """The trace with centers in the profile's storage."""
    dim = profile.model.embedding_size
    storage = head_structure_of(profile.head).storage(profile.head)
    if stand_in(profile) is profile or storage == "fp32":
        return affine
    width, scaled = STORAGES[storage]
    scale = 4 if scaled else 0
    trace, coefficients = affine.skeleton, affine.coefficients.copy()
    coefficients[_rows(trace, affine, "zeros", "container", _SLOTS, 4 * dim), _SLOTS] = width * dim + scale
    coefficients[_rows(trace, affine, "new_zeros", "loss", _CHUNK, 4), _CHUNK] += 4 * dim
    keys = (*affine.cost_keys, OpCost("widening", "loss", "loss", 0, 0, 0))
    widening = np.zeros((1, *affine.cost_coefficients.shape[1:]))
    widening[0, 1, COST_TERMS.index("C")] = (width + 4) * dim
    widening[0, 2, COST_TERMS.index("chunks")] = 1
    if scale:
        widening[0, 1, COST_TERMS.index("BC")] = 24
        widening[0, 2, COST_TERMS.index("chunks")] = 4
    return replace(
        affine,
        coefficients=coefficients,
        cost_keys=keys,
        cost_coefficients=np.concatenate([affine.cost_coefficients, widening]),
    )


def _rows(trace: Trace, affine: AffineTrace, op: str, category: str, term: int, coefficient: int) -> NDArray[np.bool_]:
    """The storages that an operator makes for a category with this coefficient of a term."""
    named = (np.array(trace.ops) == op) & (np.array(trace.categories) == category)
    return np.asarray(named & (affine.coefficients[:, term] == coefficient))


def _in_parts(trace: Trace, whole: NDArray[np.int64], parts: int) -> Trace:
    """The second step's last part, with what the earlier parts left.

    Args:
        trace: with the sizes of one part. whole: the sizes of the whole batch.
    """
    sizes = np.where(np.isin(np.array(trace.phases), _WHOLE), whole, trace.nbytes)
    step = trace.births(1)
    gradients = [index for index in step if trace.categories[index] == "gradients"]
    kept = int(sum(sizes[index] for index in _left_over(trace, step)))
    first = next(index for index in step if trace.phases[index] not in _WHOLE)
    accumulated = range(len(sizes), len(sizes) + len(gradients))
    sizes = np.concatenate([sizes, sizes[gradients], [(parts - 1) * kept]])
    own = dict(zip(gradients, accumulated, strict=True))
    events: list[int] = []
    passing: list[int] = []  # gradients of the last part, until they are added
    for event in trace.events:
        if event == first:
            events += [*accumulated, len(sizes) - 1]
        if event in own:
            passing.append(event)
        elif event >= 0 and passing:
            events += [~index for index in passing]
            passing.clear()
        events.append(~own[~event] if ~event in own else event)
    return Trace(
        events=tuple(events),
        nbytes=sizes,
        ops=(*trace.ops, *(trace.ops[index] for index in gradients), "div"),
        phases=(*trace.phases, *(trace.phases[index] for index in gradients), "loss"),
        categories=(*trace.categories, *("gradients" for _ in gradients), "loss"),
        steps=(),
        costs=(),
    )


def _left_over(trace: Trace, step: range) -> list[int]:
    """The storages of the loss that outlive the backward pass: new centers and the loss itself."""
    update = next(index for index in step if trace.phases[index] == "update")
    gone = {~event for event in trace.events[: trace.events.index(update)] if event < 0}
    return [index for index in range(step.start, update) if trace.phases[index] == "loss" and index not in gone]


def _costs_in_parts(affine: AffineTrace, knobs: Knobs, parts: int) -> tuple[OpCost, ...]:
    """What happens once, at the whole batch; the rest for every part; gradients are copied once, and then added."""
    whole = [cost for cost in affine.costs_at(replace(knobs, batch=parts * knobs.batch)) if cost.phase in _WHOLE]
    rest = [cost for cost in affine.costs_at(knobs) if cost.phase not in _WHOLE]
    repeated = [_times(cost, 1 if cost.phase == "backward" and cost.name in _FIRST_GRADIENT else parts) for cost in rest]
    trace = affine.skeleton
    gradients = [int(trace.nbytes[index]) for index in trace.births(1) if trace.categories[index] == "gradients"]
    adding = (parts - 1) * 3 * sum(gradients), (parts - 1) * len(gradients)
    return (*whole, *repeated, OpCost("add_", "elementwise", "backward", 0, *adding))


def _times(cost: OpCost, number: int) -> OpCost:
    flops, moved, count = (number * one for one in (cost.flops, cost.bytes_read_written, cost.count))
    return replace(cost, flops=flops, bytes_read_written=moved, count=count)
