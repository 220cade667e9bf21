"""The second pass over a learned layer in plain torch: chunks of rows, on any device.

A chunk's rows x (8-bit ones without their scale), queries q and the derivatives P of the loss by the cosines give

    cos = x . q / |x|,   P = exp(s cos - offset), own where the row is the query's own
          (where negatives weigh more, P = exp(s f(cos) - offset) f'(cos): `attfc_train.losses.margin.HardNegatives`)
    G   = P^T q,         d row = (G - (unit . G) unit) / |row|,   unit . G = sum_b P_b cos_b

and then SGD moves the row in fp32 and it is rounded stochastically into its type. Everything is written into scratch that
`learner` allocates: a commit must not.

The 8-bit types. A row is x r, with a scale r. Weight decay multiplies r alone, so a row without gradient keeps its values x bit
for bit, where rounding it anew at every step would be a random walk. r is else left as it is, because x moves by less than it
rounds by: only where the largest component leaves the type's range are x and r set so that it is at `_FILLED` of the range, and
where it is in the lower half x is doubled, which is exact. With momentum the decay is none of the buffer's: its share there
would be decay / (1 - momentum) after as many steps, and that is what r is multiplied by.

Legend: B queries, K rows in a chunk, k of them in the last, D dimensions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from attfc_train.losses.learning import Descent, LearnedRows, Pull, Rule
from attfc_train.losses.margin import HardNegatives
from attfc_train.losses.slots import EMPTY, LEAST_NORM
from attfc_train.phase import pass_over_slots
from attfc_train.rounding import LARGEST, fill_noise_, fill_row_keys_, indexable, round_

FILLED = 0.75
"""How much of its type's range a row's largest component takes after the row was scaled anew."""
LEAST_SCALE = 1e-30
"""A row of zeros is doubled for ever; its scale must not become 0."""
MOMENTUM_STREAM = 0x85EBCA6B
"""Sets the noise of momentum buffers apart from that of rows."""


@dataclass(frozen=True, slots=True)
class Rates:
    """A step of SGD in fp32 scalars on the device: after an overflow they are those of a step that changes nothing."""

    rate: Tensor
    momentum: Tensor
    decay: Tensor
    shrink: Tensor
    """What decay multiplies a scale with: ``1 - rate decay / (1 - momentum)``."""
    lower_half: Tensor
    """Largest component up to which a row is doubled; below 0: none is."""
    tolerance: Tensor
    """How far the length of a row that keeps length 1 may be from it."""

    @staticmethod
    def of(descent: Descent, rows: LearnedRows) -> Rates:
        """Return a descent's."""
        has_momentum = rows.momentum is not None
        lasting = descent.weight_decay / (1 - descent.momentum) if has_momentum else descent.weight_decay
        lower_half = LARGEST.get(rows.values.dtype, 0.0) / 2
        # bf16 rows that were divided at every step would be rounded at every step, which is a random walk.
        tolerance = 2.0**-6 if rows.values.dtype == torch.bfloat16 else 0.0
        moved = (descent.rate, descent.momentum, descent.weight_decay, 1 - descent.rate * lasting, lower_half, tolerance)
        still = (0.0, 1.0, 0.0, 1.0, -1.0, torch.inf)
        # Filled on the device: a copy from the host would wait for it.
        numbers = [torch.full((), number, device=rows.values.device) for number in moved]
        if descent.overflow is not None:
            over = descent.overflow > 0
            numbers = [number.masked_fill(over, kept) for number, kept in zip(numbers, still, strict=True)]
        return Rates(*numbers)


@dataclass(frozen=True, slots=True)
class _Scratch:
    """What a chunk is worked out in."""

    rows: Tensor | None
    """fp32 [K, D]; None: fp32 rows that lie side by side are changed where they are."""
    momentum: Tensor | None
    """fp32 [K, D]; None: no momentum, or one that is changed where it is."""
    gradient: Tensor
    """fp32 [K, D]; later the noise."""
    spare: Tensor | None
    """fp32 [K, D], for rounding."""
    stored: Tensor | None
    """[K, D] in the type of rows that are gathered."""
    stored_momentum: Tensor | None
    """[K, D] in the type of momentum that is gathered."""
    cosines: Tensor
    """fp32 [K, B]"""
    pulls: Tensor
    """fp32 [K, B]"""
    slopes: Tensor | None
    """fp32 [K, B]; None: negatives count as they are."""
    marks: Tensor
    """bool [K, B]"""
    bounds: Tensor
    """bool [2, K]"""
    columns: Tensor
    """fp32 [6, K]"""
    hashes: Tensor
    """int32 [3, K]"""
    numbers: Tensor
    """int64 [K]: 0 .. K - 1"""
    owners: Tensor
    """int64 [K]"""
    dimensions: Tensor
    """int32 [D]: 0 .. D - 1"""

    @staticmethod
    def like(rows: LearnedRows, index: Tensor | None, pull: Pull, chunk: int) -> _Scratch:
        """Allocate what the queries of a pull and chunks of `chunk` rows need."""
        num = len(pull.query)
        values = rows.values
        dim = values.shape[1]
        device = values.device
        is_wide = values.dtype == torch.float32

        def floats(*shape: int) -> Tensor:
            return torch.empty(shape, device=device)

        def stored(kept: Tensor | None) -> Tensor | None:
            is_narrow = kept is not None and kept.dtype != torch.float32
            return torch.empty(chunk, dim, dtype=kept.dtype, device=device) if kept is not None and is_narrow else None

        in_place = is_wide and index is None
        return _Scratch(
            rows=None if in_place else floats(chunk, dim),
            momentum=None if in_place or rows.momentum is None else floats(chunk, dim),
            gradient=floats(chunk, dim),
            spare=None if is_wide else floats(chunk, dim),
            stored=None if index is None else stored(values),
            stored_momentum=None if index is None else stored(rows.momentum),
            cosines=floats(chunk, num),
            pulls=floats(chunk, num),
            slopes=None if pull.hard is None else floats(chunk, num),
            marks=torch.empty(chunk, num, dtype=torch.bool, device=device),
            bounds=torch.empty(2, chunk, dtype=torch.bool, device=device),
            columns=floats(6, chunk),
            hashes=torch.empty(3, chunk, dtype=torch.int32, device=device),
            numbers=torch.arange(chunk, device=device),
            owners=torch.empty(chunk, dtype=torch.int64, device=device),
            dimensions=torch.arange(dim, dtype=torch.int32, device=device),
        )


def learner(rows: LearnedRows, index: Tensor | None, pull: Pull, descent: Descent, rule: Rule, step: int) -> Callable[[], None]:
    """Prepare the pass: see `attfc_train.losses.learning.Learner`."""
    pass_ = _Pass(rows, index, pull.unless(descent.overflow), descent, rule, step)
    return partial(pass_.run, rule.chunk)


class _Pass:
    """The second pass of one step."""

    def __init__(self, rows: LearnedRows, index: Tensor | None, pull: Pull, descent: Descent, rule: Rule, step: int) -> None:
        self.rows = rows
        self.index = index
        self.pull = pull
        self.rule = rule
        self.step = step
        self.size = len(rows.values if index is None else index)
        self.largest = LARGEST.get(rows.values.dtype)
        self.rates = Rates.of(descent, rows)
        self.scratch = _Scratch.like(rows, index, pull, min(rule.chunk, self.size))
        self.queries = pull.query.t().contiguous()
        self.offset = pull.offset.neg()
        self.ones = torch.ones_like(pull.own)
        self.one = self.ones.new_ones(())
        self.half = self.ones.new_full((), 0.5)

    @torch.no_grad()
    @pass_over_slots()
    def run(self, chunk: int) -> None:
        """Move all rows; allocates nothing."""
        for start in range(0, self.size, chunk):
            self._learn(start, min(chunk, self.size - start))

    def _learn(self, start: int, num: int) -> None:
        """Move rows `start` .. `start + num` of those that learn."""
        scratch = self.scratch
        chosen = None if self.index is None else self.index[start : start + num]
        if chosen is None:
            torch.add(scratch.numbers[:num], start, out=scratch.owners[:num])
        else:
            scratch.owners[:num].copy_(chosen)
        part = slice(start, start + num)
        values = _loaded(self.rows.values, part, chosen, scratch.rows, scratch.stored)
        lengths, scales = scratch.columns[0, :num], scratch.columns[1, :num]
        torch.linalg.vector_norm(values, dim=1, out=lengths).clamp_min_(LEAST_NORM)
        self._load_scales(scales, part, chosen)
        identities = scratch.owners[:num] if self.rows.labels is None else self.rows.labels[part]
        gradient = self._gradient(values, lengths, scales, identities)
        if self.rows.momentum is not None:
            gradient = self._with_momentum(self.rows.momentum, part, chosen, gradient)
        if self.rows.scales is None:
            values.addcmul_(gradient, self.rates.rate, value=-1)
        else:
            self._move_scaled(values, gradient, scales, num)
        if self.rows.are_units and self.rows.scales is None:
            self._shorten(values, lengths)
        # Without scratch of their own they were changed where they are.
        if self.rows.momentum is not None and scratch.momentum is not None:
            self._store(self.rows.momentum, part, chosen, gradient, scratch.stored_momentum, MOMENTUM_STREAM)
        if scratch.rows is not None:
            self._store(self.rows.values, part, chosen, values, scratch.stored, 0)
        if self.rows.scales is not None:
            if self.rows.are_units:  # of what was rounded, which `values` is by now
                torch.linalg.vector_norm(values, dim=1, out=scales).clamp_min_(LEAST_NORM).reciprocal_()
            _put(self.rows.scales, part, chosen, scales)

    def _load_scales(self, scales: Tensor, part: slice, chosen: Tensor | None) -> None:
        if self.rows.scales is None:
            scales.fill_(1.0)
        elif chosen is None:
            scales.copy_(self.rows.scales[part])
        else:
            torch.index_select(self.rows.scales, 0, chosen, out=scales)

    def _gradient(self, values: Tensor, lengths: Tensor, scales: Tensor, identities: Tensor) -> Tensor:
        """Return the gradient of the rows, fp32 [k, D]; with weight decay where rows have no scales."""
        scratch = self.scratch
        num = len(identities)
        cosines, pulls, marks = scratch.cosines[:num], scratch.pulls[:num], scratch.marks[:num]
        torch.mm(values, self.queries, out=cosines).div_(lengths[:, None])
        if self.pull.hard is None:
            torch.add(self.offset, cosines, alpha=self.rule.scale, out=pulls).exp_()
        else:
            self._pull_hard(self.pull.hard, cosines, pulls, marks)
        if self.rule.ceiling < 1:
            torch.gt(cosines, self.rule.ceiling, out=marks)
            pulls.masked_fill_(marks, 0.0)
        torch.eq(identities[:, None], self.pull.labels, out=marks)
        torch.where(marks, self.pull.own, pulls, out=pulls)
        if self.rows.labels is not None:
            empty = torch.eq(identities, EMPTY, out=scratch.bounds[0, :num])
            pulls.masked_fill_(empty[:, None], 0.0)
        gradient = scratch.gradient[:num]
        torch.mm(pulls, self.pull.query, out=gradient)
        # (unit . G) unit = (unit . G) / |x| x. As a product: a sum takes scratch memory of its own on CUDA.
        along = scratch.columns[2, :num]
        torch.mv(cosines.mul_(pulls), self.ones, out=along)
        gradient.addcmul_(values, along.div_(lengths)[:, None], value=-1)
        gradient.div_(lengths.mul_(scales).clamp_min_(LEAST_NORM)[:, None])  # |row| = |x| r
        return gradient if self.rows.scales is not None else gradient.addcmul_(values, self.rates.decay)

    def _pull_hard(self, hard: HardNegatives, cosines: Tensor, pulls: Tensor, marks: Tensor) -> None:
        """Put exp(s f(cos) - offset) f'(cos) into `pulls`, with f(c) = c (t + c) and f'(c) = t + 2 c where c is hard."""
        assert self.scratch.slopes is not None
        slopes = self.scratch.slopes[: len(cosines)]
        torch.gt(cosines, hard.threshold, out=marks)
        torch.add(cosines, hard.hardness, out=slopes)
        torch.mul(cosines, slopes, out=pulls)
        torch.where(marks, pulls, cosines, out=pulls)
        pulls.mul_(self.rule.scale).add_(self.offset).exp_()
        slopes.add_(cosines)
        torch.where(marks, slopes, self.one, out=slopes)
        pulls.mul_(slopes)

    def _with_momentum(self, momentum: Tensor, part: slice, chosen: Tensor | None, gradient: Tensor) -> Tensor:
        """Return ``b <- momentum b + gradient``, fp32 [k, D]; not yet stored."""
        buffer = _loaded(momentum, part, chosen, self.scratch.momentum, self.scratch.stored_momentum)
        return buffer.mul_(self.rates.momentum).add_(gradient)

    def _move_scaled(self, values: Tensor, gradient: Tensor, scales: Tensor, num: int) -> None:
        """Move x: decay goes into the scale r, the gradient into x; then keep x within its type's range."""
        highest, lowest, factor = (self.scratch.columns[row, :num] for row in (3, 4, 5))
        assert self.largest is not None
        # x' r' = x r shrink - rate g  with r' = r shrink:  x' = x - rate / r' g.
        scales.mul_(self.rates.shrink).clamp_min_(LEAST_SCALE)
        torch.div(self.rates.rate, scales, out=factor)
        values.addcmul_(gradient, factor[:, None], value=-1)
        torch.amax(values, 1, out=highest)
        torch.amin(values, 1, out=lowest)
        torch.maximum(highest, lowest.neg_(), out=highest)
        # x <- x / f, r <- r f: f brings what is too long to `FILLED` of the range, and is 1/2 in the lower half.
        over, under = self.scratch.bounds[:, :num]
        torch.gt(highest, self.largest, out=over)
        torch.le(highest, self.rates.lower_half, out=under)
        torch.where(over, highest.div_(FILLED * self.largest), self.one, out=factor)
        torch.where(under, self.half, factor, out=factor)
        values.div_(factor[:, None])
        scales.mul_(factor)

    def _shorten(self, values: Tensor, lengths: Tensor) -> None:
        """Bring rows back to length 1, where they are too long for their type to be rounding."""
        excess, within = self.scratch.columns[3, : len(lengths)], self.scratch.bounds[1, : len(lengths)]
        torch.linalg.vector_norm(values, dim=1, out=lengths).clamp_min_(LEAST_NORM)
        torch.sub(lengths, self.one, out=excess).abs_()
        lengths.masked_fill_(torch.le(excess, self.rates.tolerance, out=within), 1.0)
        values.div_(lengths[:, None])

    def _store(
        self, target: Tensor, part: slice, chosen: Tensor | None, wide: Tensor, stored: Tensor | None, stream: int
    ) -> None:
        """Round fp32 rows [k, D] to the target's type and put them where they were."""
        num = len(wide)
        if target.dtype != torch.float32:
            scratch = self.scratch
            assert scratch.spare is not None
            numbers, keys, spare = (row[:num] for row in scratch.hashes)
            fill_row_keys_(keys, numbers.copy_(scratch.owners[:num]), self.step, spare, stream + self.rows.first)
            noise = scratch.gradient[:num]
            fill_noise_(noise, keys, scratch.dimensions, scratch.spare[:num])
            round_(wide, target.dtype, noise, scratch.spare[:num])
        if chosen is not None and stored is not None:
            stored = stored[:num]
            wide = stored.copy_(wide)
        _put(target, part, chosen, wide)


def _loaded(source: Tensor, part: slice, chosen: Tensor | None, wide: Tensor | None, stored: Tensor | None) -> Tensor:
    """Return rows as fp32 [k, D]: the rows themselves where no scratch is given."""
    if wide is None:
        return source[part]
    wide = wide[: part.stop - part.start]
    if chosen is None:
        return wide.copy_(source[part])
    if stored is None:
        return torch.index_select(source, 0, chosen, out=wide)
    stored = stored[: len(wide)]
    torch.index_select(indexable(source), 0, chosen, out=indexable(stored))
    return wide.copy_(stored)


def _put(target: Tensor, part: slice, chosen: Tensor | None, rows: Tensor) -> None:
    """Put rows [k] or [k, D] in their place."""
    if chosen is None:
        target[part].copy_(rows)
    else:
        indexable(target).index_copy_(0, chosen, indexable(rows))
