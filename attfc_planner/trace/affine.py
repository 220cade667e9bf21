"""Sizes and costs as exact functions of the knobs, learned from a few traces of small numbers.

The head's storages depend on the container's knobs; they are learned on the smallest backbone, where a trace is cheap, from
enough points to fit every term. A network is built once and makes two steps that differ in batch size and references: each of
its storages is a multiple of 1, B, RB or (1 + R) B, and two sizes say which. The head's storages are recognised in the
network's trace by operator, phase and sizes, in order. Every size must come out exact in whole bytes, or `NotAffine` is raised
and the caller traces the profile itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher

import numpy as np

from attfc_planner.trace.align import Floats, Integers, NotAffine, aligned_costs, aligned_sizes, names_of, rows_of, step_sizes
from attfc_planner.trace.history import OpCost, Trace
from attfc_planner.trace.record import record
from attfc_planner.trace.structure import Knobs, knobs_of, with_knobs
from attfc_train.heads.attfc.settings import AttFCSettings
from attfc_train.heads.partial_fc.settings import PartialFCSettings
from attfc_train.profile.profile import TrainProfile

SMALL, LARGE, LARGER = 22, 34, 46
"""Micro-batch sizes of the steps of a trace; the third tells B x B, a batch scored against itself, from B."""
BASE = Knobs(SMALL, slots=2 * 521, chunk=521, identities=4001)
"""Two chunks of 521 slots, more slots than a batch has samples, more identities than slots."""
_OTHER_CHUNK, _MORE_IDENTITIES = 787, 502

SIZE_TERMS = ("1", "B", "RB", "C", "K", "N", "BK", "BN", "BB")
COST_TERMS = ("1", "B", "RB", "C", "BC", "chunks", "B chunks", "N", "BN", "BB")
"""What coefficients stand before."""
_NUM_NETWORK_TERMS = 3
"""The first terms, 1, B and RB, are those of the encoders."""
_NEGLIGIBLE = 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class HeadModel:
    """The allocations and costs that depend on the head's knobs, in the order of the trace."""

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
        """The trace of a profile with these knobs."""
        return self.skeleton.with_sizes(self.coefficients @ np.array(_size_terms(knobs), np.int64))

    def costs_at(self, knobs: Knobs) -> tuple[OpCost, ...]:
        """The second step's operators with these knobs."""
        values = np.rint(self.cost_coefficients @ np.array(_cost_terms(knobs), np.float64)).astype(np.int64)
        pairs = zip(self.cost_keys, values.tolist(), strict=True)
        return tuple(OpCost(key.name, key.kind, key.phase, *(max(0, value) for value in row)) for key, row in pairs)


def learn_head(structure: TrainProfile) -> HeadModel:
    """Traces a head on the smallest backbone at enough points to tell all its knobs apart.

    Raises:
        NotAffine: the traces do not line up.
    """
    if isinstance(structure.head, PartialFCSettings):
        raise NotAffine("a sample of the classes is a rounded share of them, and at least the batch")
    points = _head_points(structure)
    steps = [_steps(point, first=point == points[0]) for point in points]
    traces = [_traced(structure, *point_steps) for point_steps in steps]
    knobs = [step for point_steps in steps for step in point_steps]
    sizes = np.concatenate([aligned_sizes(traces[0], trace) for trace in traces])
    coefficients = _fitted_sizes(knobs, sizes)
    special = np.any(coefficients[:, _NUM_NETWORK_TERMS:] != 0, axis=1)
    cost_keys, costs = aligned_costs([cost for trace in traces for cost in trace.costs])
    names = names_of(traces[0], range(len(special)))
    return HeadModel(
        tuple(name for name, is_special in zip(names, special.tolist(), strict=True) if is_special),
        coefficients[special],
        cost_keys,
        _fitted_costs(knobs, costs),
    )


def learn(structure: TrainProfile, head: HeadModel) -> AffineTrace:
    """Traces a structure with its own backbone, and puts the head's sizes in.

    Raises:
        NotAffine: the head's allocations are not found in the trace, or a size is not affine in batch and references.
    """
    steps = _network_steps(knobs_of(structure))
    trace = _traced(structure, *steps)
    sizes = step_sizes(trace)
    names = names_of(trace, range(sizes.shape[1]))
    expected = head.coefficients @ np.array([_size_terms(step) for step in steps], np.int64).T
    rows = rows_of(head.names, expected, names, sizes.T)
    coefficients = np.zeros((len(names), head.coefficients.shape[1]), np.int64)
    others = np.setdiff1d(np.arange(len(names)), rows)
    coefficients[others, :_NUM_NETWORK_TERMS] = _multiples(steps, sizes[:, others])
    coefficients[rows] = head.coefficients
    cost_keys, cost_coefficients = _network_costs(trace, steps, head)
    return AffineTrace(trace, _both_steps(trace, coefficients), cost_keys, cost_coefficients)


def with_other_head(network: AffineTrace, own: HeadModel, other: HeadModel) -> AffineTrace:
    """A network's trace in which a head makes way for one that allocates less: what the other lacks gets zero bytes.

    What does not depend on the head's knobs, a few numbers per sample, stays the first head's.

    Raises:
        NotAffine: the other head makes a storage that the first does not make.
    """
    sizes = np.zeros_like(own.coefficients)
    for block in SequenceMatcher(None, own.names, other.names, autojunk=False).get_matching_blocks():
        sizes[block.a : block.a + block.size] = other.coefficients[block.b : block.b + block.size]
    if np.any(sizes != 0, axis=1).sum() != len(other.names):
        raise NotAffine("the other head makes storages that this one does not make")
    coefficients = network.coefficients[: network.skeleton.births(0).stop].copy()
    coefficients[np.any(coefficients[:, _NUM_NETWORK_TERMS:] != 0, axis=1)] = sizes
    costs = _costs_by_name(network.cost_keys, network.cost_coefficients)
    for sign, head in ((-1.0, own), (1.0, other)):
        for name, (key, share) in _costs_by_name(head.cost_keys, head.cost_coefficients).items():
            before = costs.get(name, (key, np.zeros_like(share)))
            costs[name] = before[0], before[1] + sign * share
    kept = [(key, figures) for key, figures in costs.values() if np.abs(figures).max() > _NEGLIGIBLE]
    cost_keys, figures = tuple(key for key, _ in kept), np.array([figures for _, figures in kept])
    return AffineTrace(network.skeleton, _both_steps(network.skeleton, coefficients), cost_keys, figures)


def _traced(structure: TrainProfile, *steps: Knobs) -> Trace:
    return record(with_knobs(structure, steps[0]), [with_knobs(structure, step) for step in steps])


def _network_steps(base: Knobs) -> list[Knobs]:
    return [base, replace(base, batch=LARGE, references=base.references + 1 if base.references else 0)]


def _multiples(steps: Sequence[Knobs], sizes: Integers) -> Integers:
    """[S, 3]: how often 1, B and RB go into sizes [2, S] of which each is a multiple of one of 1, B, RB and (1 + R) B."""
    result = np.zeros((sizes.shape[1], _NUM_NETWORK_TERMS), np.int64)
    missing = np.ones(sizes.shape[1], bool)
    for direction in np.array([(1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 1, 1)], np.int64):
        values = [int(direction @ np.array(_size_terms(step)[:_NUM_NETWORK_TERMS])) for step in steps]
        if 0 in values:
            continue
        times = sizes[0] // values[0]
        fits = missing & (times * values[0] == sizes[0]) & (times * values[1] == sizes[1])
        result[fits] = times[fits, None] * direction
        missing &= ~fits
    if missing.any():
        raise NotAffine("a size is no multiple of the batch")
    return result


def _both_steps(trace: Trace, coefficients: Integers) -> Integers:
    """Coefficients of the construction and one step, repeated for the second step."""
    first = trace.births(0)
    return np.concatenate([coefficients, coefficients[first.start : first.stop]])


def _steps(point: Knobs, first: bool) -> list[Knobs]:
    """The steps of a head's trace: two batch sizes; at the first point three, and one more reference where there are any."""
    steps = [point, replace(point, batch=LARGE)]
    if not first:
        return steps
    steps.append(replace(point, batch=LARGER))
    return [*steps, replace(point, references=point.references + 1)] if point.references else steps


def _head_points(structure: TrainProfile) -> list[Knobs]:
    """The base, one more chunk, other chunks, other identities: whatever this head can tell apart."""
    base = knobs_of(structure)
    more = replace(base, identities=base.identities + _MORE_IDENTITIES)
    if not isinstance(structure.head, AttFCSettings):
        return [base, more]
    direct = base.slots == base.identities
    shapes = [(BASE.slots, BASE.chunk), (3 * BASE.chunk, BASE.chunk), (2 * _OTHER_CHUNK, _OTHER_CHUNK)]
    points = [
        replace(base, slots=slots, chunk=chunk, identities=slots if direct else base.identities) for slots, chunk in shapes
    ]
    return [*points, more] if structure.head.policy == "identity" and not direct else points


def _size_terms(knobs: Knobs) -> tuple[int, ...]:
    b, c, k, n = knobs.batch, knobs.slots, knobs.chunk, knobs.identities
    return 1, b, knobs.references * b, c, k, n, b * k, b * n, b * b


def _cost_terms(knobs: Knobs) -> tuple[float, ...]:
    b, c, n = knobs.batch, knobs.slots, knobs.identities
    chunks = c / knobs.chunk if knobs.chunk else 0.0
    return 1, b, knobs.references * b, c, b * c, chunks, b * chunks, n, b * n, b * b


def _fitted_sizes(knobs: Sequence[Knobs], sizes: Integers) -> Integers:
    """[S, terms] from the sizes [steps, S] at the knobs of each step; exact in whole bytes."""
    terms = np.array([_size_terms(knob) for knob in knobs], np.int64)
    coefficients = np.rint(_solved(terms.astype(np.float64), sizes.astype(np.float64))).astype(np.int64)
    if (terms @ coefficients.T != sizes).any():
        raise NotAffine("a size is no affine function of the knobs")
    return coefficients


def _fitted_costs(knobs: Sequence[Knobs], costs: Floats) -> Floats:
    """[operators, 3, terms] from the costs [steps, operators, 3] at the knobs of each step."""
    terms = np.array([_cost_terms(knob) for knob in knobs], np.float64)
    coefficients = _solved(terms, costs.reshape(len(knobs), -1)).reshape(*costs.shape[1:], -1)
    return np.where(np.abs(coefficients) < _NEGLIGIBLE, 0.0, coefficients)


def _solved(terms: Floats, values: Floats) -> Floats:
    """[columns of values, terms]: the coefficients that give `values` [points, columns] from `terms` [points, terms].

    Terms that these points cannot tell from earlier ones (N tied to C, a head without identities) stay zero.
    """
    chosen: list[int] = []
    for column in range(terms.shape[1]):
        if np.linalg.matrix_rank(terms[:, [*chosen, column]]) == len(chosen) + 1:
            chosen.append(column)
    scale = np.abs(terms[:, chosen]).max(axis=0)
    solution = np.linalg.lstsq(terms[:, chosen] / scale, values, rcond=None)[0] / scale[:, None]
    result = np.zeros((values.shape[1], terms.shape[1]))
    result[:, chosen] = solution.T
    return result


def _network_costs(trace: Trace, steps: Sequence[Knobs], head: HeadModel) -> tuple[tuple[OpCost, ...], Floats]:
    """The head's costs, plus the network's beyond the smallest backbone's: affine in the images that a phase sees."""
    keys, costs = aligned_costs(trace.costs)
    terms = np.array([_cost_terms(step) for step in steps])
    shares = {name: share for name, (_, share) in _costs_by_name(head.cost_keys, head.cost_coefficients).items()}
    coefficients = np.zeros((len(keys), 3, terms.shape[1]))
    for row, key in enumerate(keys):
        share = shares.get((key.name, key.phase))
        if share is not None:
            coefficients[row] = share
            costs[:, row] -= terms @ share.T
        direction = np.zeros(terms.shape[1])
        direction[:_NUM_NETWORK_TERMS] = _images(key.phase, steps[0].references)
        images = terms @ direction
        slope = (costs[1, row] - costs[0, row]) / (images[1] - images[0])
        coefficients[row] += slope[:, None] * direction
        coefficients[row, :, 0] += costs[0, row] - slope * images[0]
    return keys, coefficients


def _images(phase: str, references: int) -> tuple[int, int, int]:
    """How often 1, B and RB go into the images that a phase sees."""
    if references and phase == "references":
        return 0, 0, 1
    return (0, 1, 1) if phase == "input" else (0, 1, 0)


def _costs_by_name(keys: Sequence[OpCost], coefficients: Floats) -> dict[tuple[str, str], tuple[OpCost, Floats]]:
    return {(key.name, key.phase): (key, figures) for key, figures in zip(keys, coefficients, strict=True)}
