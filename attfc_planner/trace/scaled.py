"""Traces that need no tracing: a batch in parts, and narrower centers, computed from a whole batch with fp32 centers.

Parts. The step's phases `_WHOLE` see the whole batch, the others one part. At the last part's peak the gradients of the earlier
parts are alive already, and so are the earlier parts' new centers; its own gradients are added and freed one by one.

Narrower centers. The container's rows shrink, the 8-bit types have an fp32 scale per slot, and scoring widens each chunk of
slots into fp32, and with scales multiplies its logits by them. Rounding a batch of new centers takes a few numbers per sample
more; that is left out: it happens while no activations are alive.

A test compares both with traces of the very step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from attfc_planner.trace.affine import COST_TERMS, SIZE_TERMS, AffineTrace
from attfc_planner.trace.history import Trace
from attfc_planner.trace.structure import Knobs, head_structure_of, knobs_of
from attfc_train.document import STORAGES
from attfc_train.profile.profile import TrainProfile
from attfc_train.timing.op_cost import BESIDE, OVER_SLOTS, OpCost

_WHOLE = ("input", "momentum", "update", "enqueue")
"""Phases of the step that happen once, whatever the parts."""
_ONCE = ("new_empty_strided", "copy_", BESIDE)
"""Of the backward passes, what one of them alone does: give a weight its first gradient, and add gradients of GPUs up."""
_BUCKET = "cat"
"""The operator that makes a bucket (`attfc_train.step.gradient_sums`); none makes a gradient so."""
_ONE = SIZE_TERMS.index("1")
_SLOTS = SIZE_TERMS.index("C")
_CHUNK = SIZE_TERMS.index("K")
_FP32_BYTES = 4


def stand_in(profile: TrainProfile) -> TrainProfile:
    """Return the profile to trace for `profile`: one part of the batch, fp32 centers; itself where these do not scale."""
    optim = profile.optim
    head = head_structure_of(profile.head).stand_in(profile.head)
    if head is None:
        return profile
    whole = optim.model_copy(update={"accumulation": 1, "batch_size": optim.micro_batch_size})
    return profile.model_copy(update={"head": head, "optim": whole})


def scaled_trace(affine: AffineTrace, profile: TrainProfile) -> Trace:
    """Return the trace of `profile` from that of the structure of its stand-in."""
    knobs = knobs_of(profile)
    affine = _narrowed(affine, profile)
    parts = profile.optim.accumulation if stand_in(profile) is not profile else 1
    trace = affine.at(knobs)
    return trace if parts == 1 else _in_parts(trace, affine.at(replace(knobs, batch=parts * knobs.batch)).nbytes, parts)


def scaled_costs(affine: AffineTrace, profile: TrainProfile) -> tuple[OpCost, ...]:
    """Return the costs of the operators of one step of `profile`, from the structure of its stand-in."""
    knobs = knobs_of(profile)
    affine = _narrowed(affine, profile)
    parts = profile.optim.accumulation if stand_in(profile) is not profile else 1
    return affine.costs_at(knobs) if parts == 1 else _costs_in_parts(affine, knobs, parts)


def _narrowed(affine: AffineTrace, profile: TrainProfile) -> AffineTrace:
    """Return the trace with centers in the profile's storage."""
    dim = profile.model.embedding_size
    storage = head_structure_of(profile.head).storage(profile.head)
    if stand_in(profile) is profile or storage == "fp32":
        return affine
    width, scaled = kind = STORAGES[storage]
    coefficients = affine.coefficients.copy()
    # A slot: D fp32 numbers -> D numbers of `width` bytes, and a scale.
    centers = _rows(affine, "zeros", "container", _SLOTS, _FP32_BYTES * dim)
    spare = coefficients[centers, _ONE] // (_FP32_BYTES * dim)  # of several GPUs each has a row that is nobody's
    coefficients[centers, _SLOTS] = kind.row_bytes(dim)
    coefficients[centers, _ONE] = spare * kind.row_bytes(dim)
    # Scoring makes an fp32 copy of a chunk (`attfc_train.losses.chunked`). No storage of the trace is it, but the mask of
    # empty slots (4 bytes a slot) is made for the same chunk: the copy's bytes, D fp32 numbers a slot, are added to it.
    coefficients[_rows(affine, "new_zeros", "loss", _CHUNK, _FP32_BYTES), _CHUNK] += _FP32_BYTES * dim
    return replace(
        affine,
        coefficients=coefficients,
        cost_keys=(*affine.cost_keys, OpCost(f"{OVER_SLOTS}widening", "loss", "loss", 0, 0, 0)),
        cost_coefficients=np.concatenate([affine.cost_coefficients, _widening(affine, width, scaled, dim)]),
    )


def _widening(affine: AffineTrace, width: int, scaled: bool, dim: int) -> NDArray[np.float64]:
    """Return the cost of widening as a row of ``affine.cost_coefficients``: [1, (FLOPs, bytes, operators), terms]."""
    row = np.zeros((1, *affine.cost_coefficients.shape[1:]))
    # Every slot is read as it is stored and written in fp32, by one operator a chunk.
    row[0, 1, COST_TERMS.index("C")] = (width + _FP32_BYTES) * dim
    row[0, 2, COST_TERMS.index("chunks")] = 1
    if scaled:
        # Logits are multiplied by scales, then masked, and weights multiplied again: each reads and writes B x C numbers.
        row[0, 1, COST_TERMS.index("BC")] = 6 * _FP32_BYTES
        row[0, 2, COST_TERMS.index("chunks")] = 4
    return row


def _rows(affine: AffineTrace, op: str, category: str, term: int, coefficient: int) -> NDArray[np.bool_]:
    """Return which storages an operator makes for a category with this coefficient of a term."""
    trace = affine.skeleton
    is_named = (np.array(trace.ops) == op) & (np.array(trace.categories) == category)
    return np.asarray(is_named & (affine.coefficients[:, term] == coefficient))


def _in_parts(trace: Trace, whole: NDArray[np.int64], parts: int) -> Trace:
    """Return the trace of a step in parts: everything before the second step, and of that the last part.

    Args:
        trace: with the sizes of one part. whole: the sizes of the whole batch.
    """
    # Phases that happen once have the sizes of the whole batch.
    sizes = np.where(np.isin(np.array(trace.phases), _WHOLE), whole, trace.nbytes)
    step = trace.births(1)
    gradients = _gradients(trace)
    # Alive when the last part begins: an accumulated gradient for every gradient of the part, and what each earlier part's loss
    # left. They are new storages behind those of the trace.
    left_bytes = int(sum(sizes[index] for index in _left_over(trace, step)))
    accumulated = range(len(sizes), len(sizes) + len(gradients))
    sizes = np.concatenate([sizes, sizes[gradients], [(parts - 1) * left_bytes]])
    return Trace(
        events=_events_in_parts(trace, step, dict(zip(gradients, accumulated, strict=True)), len(sizes) - 1),
        nbytes=sizes,
        ops=(*trace.ops, *(trace.ops[index] for index in gradients), "div"),
        phases=(*trace.phases, *(trace.phases[index] for index in gradients), "loss"),
        categories=(*trace.categories, *("gradients" for _ in gradients), "loss"),
        steps=trace.steps,  # all that is new lies in the second
        costs=(),
    )


def _gradients(trace: Trace) -> list[int]:
    """Return the gradients that a backward pass computes; without the buckets that take their place on several GPUs."""
    return [index for index in trace.births(1) if trace.categories[index] == "gradients" and trace.ops[index] != _BUCKET]


def _events_in_parts(trace: Trace, step: range, accumulated: dict[int, int], left_over: int) -> tuple[int, ...]:
    """Return the births and deaths (``~index``) of a step whose last part adds to earlier gradients.

    Args:
        accumulated: gradient of the part -> the accumulated one. left_over: the storage that stands for earlier losses.
    """
    first = next(index for index in step if trace.phases[index] not in _WHOLE)
    events: list[int] = []
    to_be_added: list[int] = []
    for event in trace.events:
        if event == first:  # the last part begins
            events += [*accumulated.values(), left_over]
        # A gradient of the part is added to the accumulated one, and freed, before the next storage is made.
        if event in accumulated:
            to_be_added.append(event)
        elif event >= 0 and to_be_added:
            events += [~index for index in to_be_added]
            to_be_added.clear()
        # The gradient that the optimiser frees is the accumulated one.
        events.append(~accumulated[~event] if ~event in accumulated else event)
    return tuple(events)


def _left_over(trace: Trace, step: range) -> list[int]:
    """Return the storages of the loss that outlive the backward pass: new centers and the loss itself."""
    update = next(index for index in step if trace.phases[index] == "update")
    freed = {~event for event in trace.events[: trace.events.index(update)] if event < 0}
    return [index for index in range(step.start, update) if trace.phases[index] == "loss" and index not in freed]


def _costs_in_parts(affine: AffineTrace, knobs: Knobs, parts: int) -> tuple[OpCost, ...]:
    """Return the costs of phases that happen once, at the whole batch, and of all others for every part."""
    whole = [cost for cost in affine.costs_at(replace(knobs, batch=parts * knobs.batch)) if cost.phase in _WHOLE]
    rest = [cost for cost in affine.costs_at(knobs) if cost.phase not in _WHOLE]
    # The first part's gradient is kept as it is; the others are added: two reads and a write each.
    repeated = [_times(cost, 1 if cost.phase == "backward" and cost.name in _ONCE else parts) for cost in rest]
    cats = [cost for cost in repeated if (cost.name, cost.phase) == (_BUCKET, "backward")]
    repeated = [_filled_once(cost, parts, rest) if cost in cats else cost for cost in repeated]
    trace = affine.skeleton
    gradients = _gradients(trace)
    added_bytes = (parts - 1) * 3 * int(sum(trace.nbytes[index] for index in gradients))
    additions = OpCost("add_", "elementwise", "backward", 0, added_bytes, (parts - 1) * len(gradients))
    return (*whole, *repeated, additions)


def _filled_once(cats: OpCost, parts: int, rest: Sequence[OpCost]) -> OpCost:
    """Return the operators of a kind of which some fill the buckets of gradients, which only the last of the parts does."""
    buckets = [cost for cost in rest if cost.name == BESIDE]
    moved = 2 * sum(cost.bytes_read_written for cost in buckets)  # read one by one, written as a bucket
    return replace(
        cats,
        bytes_read_written=cats.bytes_read_written - (parts - 1) * moved,
        count=cats.count - (parts - 1) * sum(cost.count for cost in buckets),
    )


def _times(cost: OpCost, number: int) -> OpCost:
    return replace(
        cost,
        flops=number * cost.flops,
        bytes_read_written=number * cost.bytes_read_written,
        count=number * cost.count,
    )
