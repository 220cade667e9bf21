"""Sizes and costs as exact functions of the knobs, learned from a few traces of small numbers.

The encoders' storages depend on the batch and the references only, so a network is built once and makes one step at each of
two batch sizes and two numbers of references. The head's storages depend on the container too; they are learned on the
smallest backbone, where a trace is cheap, and recognised in the network's trace by operator, phase and sizes, in order. The
batch sizes and slot counts are chosen so that no layer of a network has such a size by accident; every fit must be exact in
whole bytes, or `NotAffine` is raised and the caller traces the profile itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from attfc_planner.structure import Knobs, knobs_of, with_knobs
from attfc_planner.trace import OpCost, Trace, record
from attfc_train.profile import AttFCSettings, TrainProfile

SMALL, LARGE = 22, 34
"""Micro-batch sizes of the steps of a trace."""
BASE = Knobs(SMALL, slots=2 * 521, chunk=521, identities=4001)
"""Two chunks of 521 slots, more slots than a batch has samples, more identities than slots."""
_OTHER_CHUNK, _MORE_IDENTITIES = 787, 502

_NUM_NETWORK_TERMS = 3
"""The first terms, 1, B and RB, are those of the encoders."""

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]


class NotAffine(Exception):
    """Traces of one structure do not line up, or do not lie on a plane."""


@dataclass(frozen=True, slots=True, eq=False)
class HeadModel:
    """The allocations and costs that depend on the head's knobs, in the order of the trace."""

    keys: tuple[tuple[str, str, tuple[int, ...]], ...]
    """(operator, phase, bytes in each step of a trace at the base)."""
    coefficients: Integers
    """[len(keys), terms of a size]"""
    cost_keys: tuple[OpCost, ...]
    """Operators, at the base."""
    cost_coefficients: Floats
    """[len(cost_keys), 3 (flops, bytes, count), terms of a cost]; without those of the encoders."""


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
    points = _head_points(structure)
    traces = [_traced(structure, point) for point in points]
    knobs = [step for point in points for step in _steps(point)]
    sizes = np.concatenate([_aligned_sizes(traces[0], trace) for trace in traces])
    coefficients = _fitted_sizes(knobs, sizes)
    special = np.any(coefficients[:, _NUM_NETWORK_TERMS:] != 0, axis=1)
    cost_keys, costs = _aligned_costs([cost for trace in traces for cost in trace.costs])
    cost_coefficients = _fitted_costs(knobs, costs)
    cost_coefficients[..., :_NUM_NETWORK_TERMS] = 0.0
    return HeadModel(
        tuple(key for key, is_special in zip(_keys(traces[0]), special.tolist(), strict=True) if is_special),
        coefficients[special],
        cost_keys,
        cost_coefficients,
    )


def learn(structure: TrainProfile, head: HeadModel) -> AffineTrace:
    """Traces a structure with its own backbone, and puts the head's sizes in.

    Raises:
        NotAffine: the head's allocations are not found in the trace, or a size is not affine in batch and references.
    """
    base = knobs_of(structure)
    trace = _traced(structure, base)
    coefficients = _fitted_sizes(_steps(base), _step_sizes(trace))
    keys, known = _keys(trace), set(head.keys)
    found = [index for index, key in enumerate(keys) if key in known]
    if tuple(keys[index] for index in found) != head.keys:
        raise NotAffine("the head's allocations are not those that it makes on the smallest backbone")
    coefficients[found] = head.coefficients
    skeleton = trace.first_steps(2)
    births = skeleton.births(0), skeleton.births(1)
    rows = np.arange(len(skeleton.nbytes))
    rows[births[1].start :] = rows[births[0].start : births[0].stop]
    cost_keys, cost_coefficients = _with_head_costs(trace, base, head)
    return AffineTrace(skeleton, coefficients[rows], cost_keys, cost_coefficients)


def _traced(structure: TrainProfile, point: Knobs) -> Trace:
    profile = with_knobs(structure, point)
    return record(profile, [with_knobs(profile, step) for step in _steps(point)])


def _steps(point: Knobs) -> list[Knobs]:
    """The steps of one trace: two batch sizes, and more references where there are any."""
    steps = [replace(point, batch=SMALL), replace(point, batch=LARGE)]
    return [*steps, replace(point, batch=SMALL, references=point.references + 1)] if point.references else steps


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
    return 1, b, knobs.references * b, c, k, n, b * k, b * n


def _cost_terms(knobs: Knobs) -> tuple[float, ...]:
    b, c, n = knobs.batch, knobs.slots, knobs.identities
    chunks = c / knobs.chunk if knobs.chunk else 0.0
    return 1, b, knobs.references * b, c, b * c, chunks, b * chunks, n, b * n


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
    return np.where(np.abs(coefficients) < 1e-6, 0.0, coefficients)


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


def _step_sizes(trace: Trace) -> Integers:
    """[steps, storages of the construction and of one step]: bytes; all steps must make the same storages."""
    setup, first = trace.births(-1), trace.births(0)
    rows = []
    for births in (trace.births(step) for step in range(len(trace.steps))):
        if _names(trace, births) != _names(trace, first):
            raise NotAffine("two steps make different storages")
        rows.append(np.concatenate([trace.nbytes[: setup.stop], trace.nbytes[births.start : births.stop]]))
    return np.array(rows)


def _names(trace: Trace, births: range) -> list[tuple[str, str]]:
    part = slice(births.start, births.stop)
    return list(zip(trace.ops[part], trace.phases[part], strict=True))


def _keys(trace: Trace) -> list[tuple[str, str, tuple[int, ...]]]:
    sizes = _step_sizes(trace)
    names = _names(trace, range(sizes.shape[1]))
    return [(*name, tuple(column)) for name, column in zip(names, sizes.T.tolist(), strict=True)]


def _aligned_sizes(base: Trace, other: Trace) -> Integers:
    """The sizes in `other` of the storages that `base` also makes; `other` may score more chunks per pass."""
    wanted, names = _names(base, range(base.births(0).stop)), _names(other, range(other.births(0).stop))
    chosen: list[int] = []
    position = 0
    for run in _runs(wanted):
        chosen += _aligned_run(wanted, run, names, position)
        position = chosen[-1] + 1
    if position != len(names):
        raise NotAffine("a trace has storages that the base has not")
    return _step_sizes(other)[:, chosen]


def _runs(names: Sequence[tuple[str, str]]) -> list[range]:
    """Stretches of one phase."""
    starts = [index for index in range(len(names)) if index == 0 or names[index][1] != names[index - 1][1]]
    return [range(start, end) for start, end in zip(starts, [*starts[1:], len(names)], strict=True)]


def _aligned_run(wanted: Sequence[tuple[str, str]], run: range, names: Sequence[tuple[str, str]], position: int) -> list[int]:
    """Indices into `names` from `position` on: a common beginning, whatever `names` repeats, a common end."""
    phase, end = wanted[run.start][1], position
    while end < len(names) and names[end][1] == phase:
        end += 1
    extra = end - position - len(run)
    if extra < 0:
        raise NotAffine("a trace has fewer storages than the base")
    common = 0
    while common < len(run) and wanted[run.start + common] == names[position + common]:
        common += 1
    if list(wanted[run.start + common : run.stop]) != list(names[position + common + extra : end]):
        raise NotAffine("the storages of two traces differ")
    return [position + index + (extra if index >= common else 0) for index in range(len(run))]


def _aligned_costs(steps: Sequence[Sequence[OpCost]]) -> tuple[tuple[OpCost, ...], Floats]:
    """The first step's operators and [steps, operators, 3] figures."""
    if any(_cost_names(step) != _cost_names(steps[0]) for step in steps):
        raise NotAffine("two steps call different operators")
    figures = [[(cost.flops, cost.bytes_read_written, cost.count) for cost in step] for step in steps]
    return tuple(steps[0]), np.array(figures, np.float64)


def _cost_names(step: Sequence[OpCost]) -> list[tuple[str, str]]:
    return [(cost.name, cost.phase) for cost in step]


def _with_head_costs(trace: Trace, base: Knobs, head: HeadModel) -> tuple[tuple[OpCost, ...], Floats]:
    """Costs of the network at the base's head, plus what the head adds away from the base."""
    keys, costs = _aligned_costs(trace.costs)
    coefficients = _fitted_costs(_steps(base), costs)
    at_zero = np.array(_cost_terms(replace(base, batch=0)))
    per_sample = np.array(_cost_terms(replace(base, batch=1))) - at_zero
    rows = {name: row for row, name in enumerate(_cost_names(keys))}
    for name, share in zip(_cost_names(head.cost_keys), head.cost_coefficients, strict=True):
        if share.any():
            coefficients[rows[name]] += share
            coefficients[rows[name], :, 0] -= share @ at_zero
            coefficients[rows[name], :, 1] -= share @ per_sample
    return keys, coefficients
