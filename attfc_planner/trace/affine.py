"""Sizes and costs as exact functions of the knobs, learned from a few traces of small numbers.

With B samples in a pass, R references, C slots scored K at a time and N identities, storage i has

    size_i = a_i 1 + b_i B + c_i RB + d_i C + e_i K + f_i N + g_i BK + h_i BN + j_i BB    bytes,

with whole coefficients, most of them zero, and for a draw of classes three terms more: columns and rows of a grid of N cells,
and the cells that are looked at. Of several GPUs each has B samples and C of T slots; how many there are is part of the
structure, and T one term more. The head's storages depend on all knobs; they are learned on the smallest backbone,
where a trace is cheap, from enough points to fit every term. A network is built once and makes two steps that differ in batch
size and references: each of its storages is a multiple of 1, B, RB or (1 + R) B, and two sizes say which; those of the head are
recognised by operator, phase and sizes. Every size must come out exact, or the caller traces the profile itself (`NotAffine`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from attfc_planner.trace import align
from attfc_planner.trace.align import Floats, Integers, NotAffine
from attfc_planner.trace.history import Trace
from attfc_planner.trace.record import record
from attfc_planner.trace.structure import Knobs, head_structure_of, knobs_of, with_knobs
from attfc_train.heads.partial_fc.settings import grid
from attfc_train.profile.profile import TrainProfile
from attfc_train.timing.op_cost import OpCost

SMALL = 22
LARGE = 34
LARGER = 46
"""Micro-batch sizes of the steps of a trace; the third tells B x B, a batch scored against itself, from B."""
BASE = Knobs(SMALL, slots=2 * 521, chunk=521, identities=4001)
"""Two chunks of 521 slots, more slots than a batch has samples, more identities than slots."""

_DRAW_TERMS = ("columns", "rows", "cells")
SIZE_TERMS = ("1", "B", "RB", "C", "K", "N", "BK", "BN", "BB", *_DRAW_TERMS, "T")
COST_TERMS = ("1", "B", "RB", "C", "BC", "chunks", "B chunks", "K", "BK", "N", "BN", "BB", *_DRAW_TERMS, "T")
"""The terms that have coefficients; "chunks" is C / K, how often slots are scored in a pass."""
_NUM_NETWORK_TERMS = 3
"""The first terms, 1, B and RB, are those of the encoders."""
_NEGLIGIBLE = 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class HeadModel:
    """Allocations and costs that depend on the head's knobs, in the order of the trace."""

    names: tuple[tuple[str, str], ...]
    """Operator and phase."""
    coefficients: Integers
    """[len(names), terms of a size]"""
    cost_keys: tuple[OpCost, ...]
    """Operators, at the base."""
    cost_coefficients: Floats
    """[len(cost_keys), 3 (flops, bytes, count), terms of a cost], with those of the smallest backbone."""


@dataclass(frozen=True, slots=True, eq=False)
class AffineTrace:
    """A trace whose sizes are functions of the knobs: the construction and two steps."""

    skeleton: Trace
    coefficients: Integers
    """[S, terms of a size]"""
    cost_keys: tuple[OpCost, ...]
    cost_coefficients: Floats

    def at(self, knobs: Knobs) -> Trace:
        """Return the trace of a profile with these knobs."""
        return self.skeleton.with_sizes(self.coefficients @ np.array(_size_terms(knobs), np.int64))

    def costs_at(self, knobs: Knobs) -> tuple[OpCost, ...]:
        """Return the costs of the second step's operators with these knobs."""
        values = np.rint(self.cost_coefficients @ np.array(_cost_terms(knobs), np.float64)).astype(np.int64)
        pairs = zip(self.cost_keys, values.tolist(), strict=True)
        return tuple(OpCost(key.name, key.kind, key.phase, *(max(0, value) for value in row)) for key, row in pairs)


def learn_head(structure: TrainProfile) -> HeadModel:
    """Trace a head on the smallest backbone at enough points to tell all its knobs apart, and fit its sizes and costs.

    Raises:
        NotAffine: the traces do not line up.
    """
    kind = head_structure_of(structure.head)
    points = kind.points(structure.head, knobs_of(structure))
    steps = [_steps(point, first=point == points[0]) for point in points]
    traces = [_traced(structure, *point_steps) for point_steps in steps]
    knobs = [step for point_steps in steps for step in point_steps]
    # All steps of all points side by side: sizes is [steps, S], for the S storages of the first point's trace.
    sizes = np.concatenate([align.aligned_sizes(traces[0], trace) for trace in traces])
    coefficients = _fitted_sizes(knobs, sizes)
    special = _is_special(coefficients)
    cost_keys, costs = align.aligned_costs([cost for trace in traces for cost in trace.costs])
    names = align.names_of(traces[0], range(len(special)))
    return HeadModel(
        tuple(name for name, is_special in zip(names, special.tolist(), strict=True) if is_special),
        coefficients[special],
        cost_keys,
        _fitted_costs(knobs, costs),
    )


def learn(structure: TrainProfile, head: HeadModel) -> AffineTrace:
    """Trace a structure with its own backbone, and put the head's coefficients in where its storages are.

    Raises:
        NotAffine: the head's allocations are not in the trace, or a size is not affine in batch and references.
    """
    steps = _network_steps(knobs_of(structure))
    trace = _traced(structure, *steps)
    sizes = align.step_sizes(trace)
    names = align.names_of(trace, range(sizes.shape[1]))
    # [H, 2]: what the head's H storages measure at the knobs of these two steps; that is how they are recognised.
    expected = head.coefficients @ np.array([_size_terms(step) for step in steps], np.int64).T
    rows = align.rows_of(head.names, expected, names, sizes.T)
    coefficients = np.zeros((len(names), head.coefficients.shape[1]), np.int64)
    others = np.setdiff1d(np.arange(len(names)), rows)
    coefficients[others, :_NUM_NETWORK_TERMS] = _multiples(steps, sizes[:, others])
    coefficients[rows] = head.coefficients
    cost_keys, cost_coefficients = _network_costs(trace, steps, head)
    return AffineTrace(trace, _both_steps(trace, coefficients), cost_keys, cost_coefficients)


def with_other_head(network: AffineTrace, own: HeadModel, other: HeadModel) -> AffineTrace:
    """Return a network's trace with another head, which allocates less: what it lacks gets zero bytes.

    What does not depend on the head's knobs, a few numbers per sample, stays the first head's. `network` was traced with `own`;
    `other` allocates some of the storages of `own`, in the same order.

    Raises:
        NotAffine: the other head makes a storage that the first does not make.
    """
    sizes = np.zeros_like(own.coefficients)
    sizes[align.rows_in(own.names, other.names)] = other.coefficients
    # The rows of the head in the network, in the same order.
    coefficients = network.coefficients[: network.skeleton.births(0).stop].copy()
    coefficients[_is_special(coefficients)] = sizes
    # cost = network - own + other, for every operator and phase; what cancels is no operator of the new step.
    costs = _costs_by_name(network.cost_keys, network.cost_coefficients)
    for sign, head in ((-1.0, own), (1.0, other)):
        for name, (key, share) in _costs_by_name(head.cost_keys, head.cost_coefficients).items():
            before = costs.get(name, (key, np.zeros_like(share)))
            costs[name] = before[0], before[1] + sign * share
    kept = [(key, figures) for key, figures in costs.values() if np.abs(figures).max() > _NEGLIGIBLE]
    cost_keys = tuple(key for key, _ in kept)
    figures = np.array([figures for _, figures in kept])
    return AffineTrace(network.skeleton, _both_steps(network.skeleton, coefficients), cost_keys, figures)


def _is_special(coefficients: Integers) -> NDArray[np.bool_]:
    """Return which of S sizes can be the head's only: not a multiple of one of 1, B and RB.

    The others may as well belong to the backbone, and a network's own trace tells them anew.
    """
    beyond = np.any(coefficients[:, _NUM_NETWORK_TERMS:] != 0, axis=1)
    is_mixed = (coefficients[:, 0] != 0) & np.any(coefficients[:, 1:_NUM_NETWORK_TERMS] != 0, axis=1)
    return np.asarray(beyond | is_mixed)


def _traced(structure: TrainProfile, *steps: Knobs) -> Trace:
    return record(with_knobs(structure, steps[0]), [with_knobs(structure, step) for step in steps])


def _network_steps(base: Knobs) -> list[Knobs]:
    return [base, replace(base, batch=LARGE, references=base.references + 1 if base.references else 0)]


def _multiples(steps: Sequence[Knobs], sizes: Integers) -> Integers:
    """Return how often 1, B and RB go into each size, [S, 3].

    Args:
        steps: two, with other batch sizes, and other references where there are any.
        sizes: [2, S], bytes; each is a multiple of one of 1, B, RB and (1 + R) B.
    """
    result = np.zeros((sizes.shape[1], _NUM_NETWORK_TERMS), np.int64)
    missing = np.ones(sizes.shape[1], bool)
    # A size is times * value at both steps. B and B + 12 are far apart, so 1 fits only a constant, B only a multiple of B, ...;
    # what fits two of them (0 bytes) belongs to the first.
    for direction in np.array([(1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 1, 1)], np.int64):
        values = [int(direction @ np.array(_size_terms(step)[:_NUM_NETWORK_TERMS])) for step in steps]
        if 0 in values:  # RB without references
            continue
        times = sizes[0] // values[0]
        fits = missing & (times * values[0] == sizes[0]) & (times * values[1] == sizes[1])
        result[fits] = times[fits, None] * direction
        missing &= ~fits
    if missing.any():
        raise NotAffine("a size is no multiple of the batch")
    return result


def _both_steps(trace: Trace, coefficients: Integers) -> Integers:
    """Return coefficients of the construction and one step, with the step's repeated for the second."""
    first = trace.births(0)
    return np.concatenate([coefficients, coefficients[first.start : first.stop]])


def _steps(point: Knobs, first: bool) -> list[Knobs]:
    """Return the steps of a head's trace at one point.

    Two batch sizes tell B from 1. B x B and RB do not depend on the point: the first alone has a third batch size and one more
    reference.
    """
    steps = [point, replace(point, batch=LARGE)]
    if not first:
        return steps
    steps.append(replace(point, batch=LARGER))
    return [*steps, replace(point, references=point.references + 1)] if point.references else steps


def _size_terms(knobs: Knobs) -> tuple[int, ...]:
    """Return the values of `SIZE_TERMS`."""
    b = knobs.batch
    c = knobs.slots
    k = knobs.chunk
    n = knobs.identities
    return 1, b, knobs.references * b, c, k, n, b * k, b * n, b * b, *_draw_terms(knobs), knobs.table or c


def _draw_terms(knobs: Knobs) -> tuple[int, int, int]:
    """Return the values of `_DRAW_TERMS`: C classes come from the first C + columns x rows - N cells."""
    columns, rows = grid(knobs.identities)
    return columns, rows, knobs.slots + columns * rows - knobs.identities


def _cost_terms(knobs: Knobs) -> tuple[float, ...]:
    """Return the values of `COST_TERMS`; a last chunk that is not full counts as the part that it is."""
    b = knobs.batch
    c = knobs.slots
    n = knobs.identities
    chunks = c / knobs.chunk if knobs.chunk else 0.0
    k = knobs.chunk
    return (
        1,
        b,
        knobs.references * b,
        c,
        b * c,
        chunks,
        b * chunks,
        k,
        b * k,
        n,
        b * n,
        b * b,
        *_draw_terms(knobs),
        knobs.table or c,
    )


def _fitted_sizes(knobs: Sequence[Knobs], sizes: Integers) -> Integers:
    """Return the coefficients [S, terms] of sizes [steps, S] at the knobs of each step, exact in whole bytes.

    Raises:
        NotAffine: the rounded coefficients do not give the sizes back.
    """
    terms = np.array([_size_terms(knob) for knob in knobs], np.int64)
    # Least squares in floating point, then whole numbers: the comparison in integers is what makes the result exact.
    coefficients = np.rint(_solved(terms.astype(np.float64), sizes.astype(np.float64))).astype(np.int64)
    if (terms @ coefficients.T != sizes).any():
        raise NotAffine("a size is no affine function of the knobs")
    return coefficients


def _fitted_costs(knobs: Sequence[Knobs], costs: Floats) -> Floats:
    """Return the coefficients [operators, 3, terms] of costs [steps, operators, 3] at the knobs of each step."""
    terms = np.array([_cost_terms(knob) for knob in knobs], np.float64)
    coefficients = _solved(terms, costs.reshape(len(knobs), -1)).reshape(*costs.shape[1:], -1)
    return np.where(np.abs(coefficients) < _NEGLIGIBLE, 0.0, coefficients)


def _solved(terms: Floats, values: Floats) -> Floats:
    """Return the coefficients x [columns, terms] with ``terms @ x.T = values``, by least squares.

    Terms that these points cannot tell from earlier ones (N tied to C, a head without identities) stay zero. The arguments are
    [points, terms] and [points, columns].
    """
    # Columns that add to the rank, from left to right: an earlier, simpler term is preferred to a later one.
    chosen: list[int] = []
    for column in range(terms.shape[1]):
        if np.linalg.matrix_rank(terms[:, [*chosen, column]]) == len(chosen) + 1:
            chosen.append(column)
    # B is some tens and BN some hundred thousands: columns of equal size keep the digits that rounding to bytes needs.
    scale = np.abs(terms[:, chosen]).max(axis=0)
    solution = np.linalg.lstsq(terms[:, chosen] / scale, values, rcond=None)[0] / scale[:, None]
    result = np.zeros((values.shape[1], terms.shape[1]))
    result[:, chosen] = solution.T
    return result


def _network_costs(trace: Trace, steps: Sequence[Knobs], head: HeadModel) -> tuple[tuple[OpCost, ...], Floats]:
    """Return operators and coefficients of their costs: the head's share, and the rest, affine in the images of the phase.

    cost(knobs) = share(knobs) + slope * images + rest, for each operator and phase of the network's trace. The head's share
    includes what the smallest backbone costs, so slope and rest are what this network costs beyond it.
    """
    keys, costs = align.aligned_costs(trace.costs)
    terms = np.array([_cost_terms(step) for step in steps])
    shares = {name: share for name, (_, share) in _costs_by_name(head.cost_keys, head.cost_coefficients).items()}
    coefficients = np.zeros((len(keys), 3, terms.shape[1]))
    for row, key in enumerate(keys):
        share = shares.get((key.name, key.phase))
        if share is not None:
            coefficients[row] = share
            costs[:, row] -= terms @ share.T
        # Two steps, two unknowns: slope = (y1 - y0) / (x1 - x0), rest = y0 - slope x0.
        direction = np.zeros(terms.shape[1])
        direction[:_NUM_NETWORK_TERMS] = _images(key.phase, steps[0].references)
        images = terms @ direction
        slope = (costs[1, row] - costs[0, row]) / (images[1] - images[0])
        coefficients[row] += slope[:, None] * direction
        coefficients[row, :, 0] += costs[0, row] - slope * images[0]
    return keys, coefficients


def _images(phase: str, references: int) -> tuple[int, int, int]:
    """Return how often 1, B and RB go into the images that a phase sees."""
    if references and phase == "references":
        return 0, 0, 1
    return (0, 1, 1) if phase == "input" else (0, 1, 0)


def _costs_by_name(keys: Sequence[OpCost], coefficients: Floats) -> dict[tuple[str, str], tuple[OpCost, Floats]]:
    return {(key.name, key.phase): (key, figures) for key, figures in zip(keys, coefficients, strict=True)}
