"""Recognition of the storages and operators of one trace in another, by operator, phase and order.

Traces of one structure at other knobs make the same storages in the same order, but for the passes over chunks of slots: more
chunks repeat what a chunk makes. Whatever does not line up raises `NotAffine`; the caller then traces the profile itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from difflib import SequenceMatcher

import numpy as np
from numpy.typing import NDArray

from attfc_planner.trace.history import Trace
from attfc_train.timing.op_cost import OpCost

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]
Name = tuple[str, str]
"""Operator and phase."""


class NotAffine(Exception):
    """A structure whose traces do not line up, or whose sizes are no affine functions of the knobs."""


def names_of(trace: Trace, births: range) -> list[Name]:
    """Return the names of a stretch of a trace's storages."""
    part = slice(births.start, births.stop)
    return list(zip(trace.ops[part], trace.phases[part], strict=True))


def step_sizes(trace: Trace) -> Integers:
    """Return the bytes [steps, S] of the S storages of the construction and one step.

    Raises:
        NotAffine: two steps make different storages.
    """
    setup = trace.births(-1)
    first = trace.births(0)
    rows = []
    for births in (trace.births(step) for step in range(len(trace.steps))):
        if names_of(trace, births) != names_of(trace, first):
            raise NotAffine("two steps make different storages")
        rows.append(np.concatenate([trace.nbytes[: setup.stop], trace.nbytes[births.start : births.stop]]))
    return np.array(rows)


def aligned_sizes(base: Trace, other: Trace) -> Integers:
    """Return the bytes [steps of `other`, S] of the S storages that `base` makes; `other` may score more chunks per pass.

    Raises:
        NotAffine: `other` lacks a storage of `base`, or has one that is no repetition.
    """
    wanted = names_of(base, range(base.births(0).stop))
    names = names_of(other, range(other.births(0).stop))
    chosen: list[int] = []
    position = 0
    for run in _runs(wanted):
        chosen += _aligned_run(wanted, run, names, position)
        position = chosen[-1] + 1
    if position != len(names):
        raise NotAffine("a trace has storages that the base has not")
    return step_sizes(other)[:, chosen]


def aligned_costs(steps: Sequence[Sequence[OpCost]]) -> tuple[tuple[OpCost, ...], Floats]:
    """Return the first step's operators and their flops, bytes and counts [steps, operators, 3].

    Raises:
        NotAffine: two steps call different operators.
    """
    names = [[(cost.name, cost.phase) for cost in step] for step in steps]
    if any(step_names != names[0] for step_names in names):
        raise NotAffine("two steps call different operators")
    figures = [[(cost.flops, cost.bytes_read_written, cost.count) for cost in step] for step in steps]
    return tuple(steps[0]), np.array(figures, np.float64)


def rows_of(head_names: Sequence[Name], head_sizes: Integers, names: Sequence[Name], sizes: Integers) -> list[int]:
    """Return where the storages of a head stand among those of a network, by name and sizes.

    Args:
        head_names: [H]. head_sizes: [H, steps], bytes. names: [S]. sizes: [S, steps], bytes.

    Raises:
        NotAffine: the network does not make exactly these storages in this order.
    """
    wanted = [(name, *row) for name, row in zip(head_names, head_sizes.tolist(), strict=True)]
    keys = [(name, *row) for name, row in zip(names, sizes.tolist(), strict=True)]
    known = set(wanted)
    # The sizes at the base knobs (521, 4001, ...) are no sizes of a network, so one that looks like the head's is the head's.
    # Were one not, there would be one too many: the comparison tells.
    rows = [index for index, key in enumerate(keys) if key in known]
    if [keys[index] for index in rows] != wanted:
        raise NotAffine("the head's allocations are not those that it makes on the smallest backbone")
    return rows


def rows_in(own: Sequence[Name], other: Sequence[Name]) -> list[int]:
    """Return where the storages of a head that allocates less stand among those of one that allocates more.

    Raises:
        NotAffine: `other` is not `own` with some names left out.
    """
    # own   = a b c d e
    # other = a   c d      ->  rows 0, 2, 3
    blocks = SequenceMatcher(None, own, other, autojunk=False).get_matching_blocks()
    rows = [row for block in blocks for row in range(block.a, block.a + block.size)]
    if len(rows) != len(other):
        raise NotAffine("the other head makes storages that this one does not make")
    return rows


def _runs(names: Sequence[Name]) -> list[range]:
    """Return the stretches of one phase."""
    starts = [index for index in range(len(names)) if index == 0 or names[index][1] != names[index - 1][1]]
    return [range(start, end) for start, end in zip(starts, [*starts[1:], len(names)], strict=True)]


def _aligned_run(wanted: Sequence[Name], run: range, names: Sequence[Name], position: int) -> list[int]:
    """Return the indices into `names`, from `position` on, of a stretch of `wanted`.

    A stretch with more chunks reads: a common beginning, what `names` repeats, a common end. With `wanted` = a c d z and
    `names` = a c d c d z there are two extra; the common beginning is a c d, so the indices are 0, 1, 2, and z's is 3 + 2.
    """
    phase = wanted[run.start][1]
    # The same stretch of `names` is [position, end).
    end = position
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
