"""Sizes and costs as exact functions of the knobs, learned from a few traces of small numbers.

The feature encoder's storages depend on the batch only, so the network is traced once, with one step at each of two batch
sizes. The head's storages depend on the container too; they are learned on the smallest backbone, where a trace is cheap, and
recognised in the network's trace by operator, phase and both sizes, in order. The batch sizes and slot counts are chosen so
that no layer of a network has such a size by accident; every fit must be exact in whole bytes, or `NotAffine` is raised and
the caller traces the profile itself.
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
"""Micro-batch sizes of the two steps of a trace."""
BASE = Knobs(SMALL, slots=2 * 521, chunk=521, identities=4001)
"""Two chunks of 521 slots, more slots than a batch has samples, more identities than slots."""
_OTHER_CHUNK, _MORE_IDENTITIES = 787, 502

_SIZE_TERMS = ("1", "B", "C", "K", "N", "BK", "BN")
_COST_TERMS = ("1", "B", "C", "BC", "chunks", "B chunks", "N", "BN")

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]


class NotAffine(Exception):
    """Traces of one structure do not line up, or do not lie on a plane."""


@dataclass(frozen=True, slots=True, eq=False)
class HeadModel:
    """The allocations and costs that depend on the head's knobs, in the order of the trace."""

    keys: tuple[tuple[str, str, int, int], ...]
    """(operator, phase, bytes at the base with the small batch, with the large one)."""
    coefficients: Integers
    """[len(keys), terms of a size]"""
    cost_keys: tuple[OpCost, ...]
    """Operators, at the base."""
    cost_coefficients: Floats
    """[len(cost_keys), 3 (flops, bytes, count), terms of a cost]; without those of the batch alone."""


@dataclass(frozen=True, slots=True, eq=False)
class AffineTrace:
    """A trace whose sizes are functions of the knobs; both of its steps are at the same batch size."""

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
    traces = [record(with_knobs(structure, point), _batches(structure)) for point in points]
    rows = [_aligned_sizes(traces[0], trace) for trace in traces]
    sizes = np.array([row[step] for row in rows for step in (0, 1)])
    knobs = [Knobs(batch, point.slots, point.chunk, point.identities) for point in points for batch in (SMALL, LARGE)]
    coefficients = _whole(_solved(np.array([_size_terms(knob) for knob in knobs]), sizes), knobs, sizes)
    special = np.any(coefficients[:, 2:] != 0, axis=1)
    keys = _keys(traces[0])
    cost_keys, costs = _aligned_costs([cost for trace in traces for cost in trace.costs])
    cost_coefficients = _solved(np.array([_cost_terms(knob) for knob in knobs]), costs.reshape(len(knobs), -1))
    return HeadModel(
        tuple(key for key, is_special in zip(keys, special.tolist(), strict=True) if is_special),
        coefficients[special],
        cost_keys,
        _head_share(cost_coefficients.reshape(len(cost_keys), 3, -1)),
    )


def learn(structure: TrainProfile, head: HeadModel) -> AffineTrace:
    """Traces a structure with its own backbone, and puts the head's sizes in.

    Raises:
        NotAffine: the head's allocations are not found in the trace, or a size is not affine in the batch.
    """
    trace = record(structure, _batches(structure))
    small, large = _step_sizes(trace)
    slope, rest = np.divmod(large - small, LARGE - SMALL)
    if rest.any():
        raise NotAffine("a size does not grow in whole bytes per sample")
    coefficients = np.zeros((len(small), len(_SIZE_TERMS)), np.int64)
    coefficients[:, 0], coefficients[:, 1] = small - slope * SMALL, slope
    keys, known = _keys(trace), set(head.keys)
    found = [index for index, key in enumerate(keys) if key in known]
    if tuple(keys[index] for index in found) != head.keys:
        raise NotAffine("the head's allocations are not those that it makes on the smallest backbone")
    coefficients[found] = head.coefficients
    births = trace.births(0), trace.births(1)
    rows = np.arange(len(trace.nbytes))
    rows[births[1].start :] = rows[births[0].start : births[0].stop]
    cost_keys, cost_coefficients = _with_head_costs(trace, knobs_of(structure), head)
    return AffineTrace(trace, coefficients[rows], cost_keys, cost_coefficients)


def _batches(structure: TrainProfile) -> tuple[int, int]:
    return SMALL * structure.optim.accumulation, LARGE * structure.optim.accumulation


def _head_points(structure: TrainProfile) -> list[Knobs]:
    """The base, one more chunk, other chunks, other identities: whatever this head can tell apart."""
    num = structure.num_ids
    if not isinstance(structure.head, AttFCSettings):
        return [Knobs(SMALL, 0, 0, num), Knobs(SMALL, 0, 0, num + _MORE_IDENTITIES)]
    direct = structure.dcc_size == num
    shapes = [(BASE.slots, BASE.chunk), (3 * BASE.chunk, BASE.chunk), (2 * _OTHER_CHUNK, _OTHER_CHUNK)]
    points = [Knobs(SMALL, slots, chunk, slots if direct else num) for slots, chunk in shapes]
    if structure.head.policy == "identity" and not direct:
        points.append(Knobs(SMALL, BASE.slots, BASE.chunk, num + _MORE_IDENTITIES))
    return points


def _size_terms(knobs: Knobs) -> tuple[int, ...]:
    b, c, k, n = knobs.batch, knobs.slots, knobs.chunk, knobs.identities
    return 1, b, c, k, n, b * k, b * n


def _cost_terms(knobs: Knobs) -> tuple[float, ...]:
    b, c, n = knobs.batch, knobs.slots, knobs.identities
    chunks = c / knobs.chunk if knobs.chunk else 0.0
    return 1, b, c, b * c, chunks, b * chunks, n, b * n


def _solved(terms: NDArray[np.int64] | Floats, values: NDArray[np.int64] | Floats) -> Floats:
    """[columns of values, terms]: the least coefficients that give `values` [points, columns] from `terms` [points, terms].

    Terms that never vary (a head without identities, N tied to C) are told apart by nothing and stay zero.
    """
    chosen: list[int] = []
    for column in range(terms.shape[1]):
        if np.linalg.matrix_rank(terms[:, [*chosen, column]].astype(np.float64)) == len(chosen) + 1:
            chosen.append(column)
    scale = np.abs(terms[:, chosen]).max(axis=0).astype(np.float64)
    solution = np.linalg.lstsq(terms[:, chosen] / scale, values.astype(np.float64), rcond=None)[0] / scale[:, None]
    result = np.zeros((values.shape[1], terms.shape[1]))
    result[:, chosen] = solution.T
    return result


def _whole(coefficients: Floats, knobs: Sequence[Knobs], sizes: Integers) -> Integers:
    whole = np.rint(coefficients).astype(np.int64)
    terms = np.array([_size_terms(knob) for knob in knobs], np.int64)
    if (terms @ whole.T != sizes).any():
        raise NotAffine("a size of the head is no affine function of its knobs")
    return whole


def _step_sizes(trace: Trace) -> tuple[Integers, Integers]:
    """Bytes of the construction's and one step's storages, for both steps; they must be the same storages."""
    setup, first, second = trace.births(-1), trace.births(0), trace.births(1)
    if _names(trace, first) != _names(trace, second):
        raise NotAffine("two steps make different storages")
    sizes = trace.nbytes
    return sizes[: first.stop], np.concatenate([sizes[setup.start : setup.stop], sizes[second.start : second.stop]])


def _names(trace: Trace, births: range) -> list[tuple[str, str]]:
    part = slice(births.start, births.stop)
    return list(zip(trace.ops[part], trace.phases[part], strict=True))


def _keys(trace: Trace) -> list[tuple[str, str, int, int]]:
    small, large = _step_sizes(trace)
    names = _names(trace, range(len(small)))
    return [(*name, *sizes) for name, *sizes in zip(names, small.tolist(), large.tolist(), strict=True)]


def _aligned_sizes(base: Trace, other: Trace) -> tuple[Integers, Integers]:
    """The sizes in `other` of the storages that `base` also makes; `other` may score more chunks per pass."""
    num = base.births(0).stop
    wanted, names = _names(base, range(num)), _names(other, range(other.births(0).stop))
    chosen: list[int] = []
    position = 0
    for run in _runs(wanted):
        chosen += _aligned_run(wanted, run, names, position)
        position = chosen[-1] + 1
    if position != len(names):
        raise NotAffine("a trace has storages that the base has not")
    small, large = _step_sizes(other)
    return small[chosen], large[chosen]


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


def _head_share(coefficients: Floats) -> Floats:
    """Only what varies with the head's knobs, as a difference to the base: the rest is the small backbone's."""
    share = np.where(np.abs(coefficients) < 1e-6, 0.0, coefficients)
    share[..., :2] = 0.0
    return share


def _with_head_costs(trace: Trace, base: Knobs, head: HeadModel) -> tuple[tuple[OpCost, ...], Floats]:
    """Costs of the network, affine in the batch, plus what the head adds away from the base."""
    constant = np.array(_cost_terms(replace(base, batch=0)))
    per_sample = np.array(_cost_terms(replace(base, batch=1))) - constant
    constant[0] = per_sample[1] = 0.0
    keys, figures = _aligned_costs(trace.costs)
    coefficients = np.zeros((len(keys), 3, len(_COST_TERMS)))
    slope = (figures[1] - figures[0]) / (LARGE - SMALL)
    coefficients[..., 0], coefficients[..., 1] = figures[0] - slope * SMALL, slope
    rows = {name: row for row, name in enumerate(_cost_names(keys))}
    for name, share in zip(_cost_names(head.cost_keys), head.cost_coefficients, strict=True):
        if share.any():
            coefficients[rows[name]] += share
            coefficients[rows[name], :, 0] -= share @ constant
            coefficients[rows[name], :, 1] -= share @ per_sample
    return keys, coefficients
