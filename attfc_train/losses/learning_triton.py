"""The second pass over a learned layer as one Triton kernel: see `attfc_train.losses.learning_chunked` for the equations.

A program holds a block of rows and walks over the queries of the step, a tile at a time: cosines, derivatives and the rows'
gradient never leave the chip, and the rows are moved, rounded and written where they were. No other program reads them, so a
program always has all dimensions of its rows. Nothing is tuned by running it, because every run moves the rows.

Products are as in `attfc_train.losses.triton`: on tensor cores in bf16, which holds 8-bit values exactly, and for fp32 rows in
three passes of TF32. Legend: B queries, K rows, D dimensions.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from attfc_train.device_hash import LAST_SHIFT, ROUNDS, STEP_STRIDE, signed
from attfc_train.losses import learning_chunked
from attfc_train.losses.card import Card, LearningShape, can_learn
from attfc_train.losses.configurations import operand_type
from attfc_train.losses.learning import Descent, LearnedRows, Pull, Rule
from attfc_train.losses.learning_chunked import FILLED, LEAST_SCALE, MOMENTUM_STREAM, Rates
from attfc_train.losses.slots import EMPTY, LEAST_NORM
from attfc_train.losses.triton import _TRITON_TYPE, _operand, _rows, _squares, card_of
from attfc_train.rounding import EXPONENT_MASK, LARGEST, LEAST_QUANTUM, MANTISSA_BITS

WARPS = 8

_SHIFT_0, _SHIFT_1 = (tl.constexpr(shift) for shift, _ in ROUNDS)
_FACTOR_0, _FACTOR_1 = (tl.constexpr(factor) for _, factor in ROUNDS)
_LAST_SHIFT = tl.constexpr(LAST_SHIFT)
_EXPONENT_MASK = tl.constexpr(EXPONENT_MASK)
_LEAST_SQUARE = tl.constexpr(LEAST_NORM**2)
_LEAST_SCALE = tl.constexpr(LEAST_SCALE)
_FILLED = tl.constexpr(FILLED)
_LEAST_NORM = tl.constexpr(LEAST_NORM)
_EMPTY = tl.constexpr(EMPTY)


def shared_bytes(dim: int, row_type: torch.dtype, card: Card) -> int:
    """Return about the bytes of shared memory that a program takes."""
    return LearningShape.of(card, dim, row_type.itemsize).shared_bytes


def supports(dim: int, row_type: torch.dtype, card: Card) -> bool:
    """Return whether a program fits the card (`can_learn`)."""
    return can_learn(card, dim, row_type.itemsize)


def learner(rows: LearnedRows, index: Tensor | None, pull: Pull, descent: Descent, rule: Rule, step: int) -> Callable[[], None]:
    """Prepare the pass: see `attfc_train.losses.learning.Learner`."""
    dim = rows.values.shape[1]
    card = card_of(rows.values.device)
    if not supports(dim, rows.values.dtype, card):
        return learning_chunked.learner(rows, index, pull, descent, rule, step)
    pull = pull.unless(descent.overflow)
    rates = Rates.of(descent, rows)
    numbers = torch.stack([rates.rate, rates.momentum, rates.decay, rates.shrink, rates.lower_half, rates.tolerance])
    fixed = constants(dim, rows, index is not None, rule.ceiling < 1, card, pull.hard is not None)
    query = pull.query.to(operand_type(rows.values.dtype, card)).contiguous()
    asked = Pull(query, pull.offset / math.log(2), pull.own.contiguous(), pull.labels, pull.hard)
    return partial(_launch, rows, index, asked, numbers, rule, step, fixed)


@torch.no_grad()
def _launch(
    rows: LearnedRows, index: Tensor | None, pull: Pull, rates: Tensor, rule: Rule, step: int, fixed: dict[str, Any]
) -> None:
    """Run the kernel; allocates nothing but, at its first call, what the compiler takes."""
    values = rows.values
    size = len(values if index is None else index)
    bits = values.view(torch.uint8) if values.dtype == torch.float8_e4m3fn else values
    with torch.cuda.device(values.device) if values.is_cuda else contextlib.nullcontext():
        _learn[(triton.cdiv(size, fixed["BLOCK"]),)](
            bits,
            rates if rows.scales is None else rows.scales,
            rates if rows.momentum is None else rows.momentum,
            pull.labels if index is None else index,
            pull.labels if rows.labels is None else rows.labels,
            pull.query,
            pull.offset,
            pull.own,
            pull.labels,
            rates if pull.hard is None else pull.hard.threshold,
            rates if pull.hard is None else pull.hard.hardness,
            rates,
            size,
            len(pull.query),
            rule.scale / math.log(2),
            rule.ceiling if rule.ceiling < 1 else 0.0,
            signed(step * STEP_STRIDE + rows.first),
            signed(step * STEP_STRIDE + MOMENTUM_STREAM + rows.first),
            **fixed,
            num_warps=WARPS,
            num_stages=2,
        )


def constants(dim: int, rows: LearnedRows, indexed: bool, capped: bool, card: Card, has_hard: bool = False) -> dict[str, Any]:
    """Return the kernel's compile-time arguments."""
    row_type = rows.values.dtype
    work = LearningShape.of(card, dim, row_type.itemsize)
    operand = operand_type(row_type, card)
    return {
        "DIM": dim,
        "PADDED": work.padded,
        "BLOCK": work.rows,
        "TILE": work.queries,
        "CHUNK": work.chunk,
        "TYPE": _TRITON_TYPE[operand],
        "PRECISION": "tf32x3" if operand == torch.float32 and card.has_tensor_cores else "ieee",
        "BITS": row_type == torch.float8_e4m3fn,
        "INDEXED": indexed,
        "LABELLED": rows.labels is not None,
        "UNITS": rows.are_units,
        "CAPPED": capped,
        "HARD": has_hard,
        "LARGEST": LARGEST.get(row_type, 0.0),
        "MANTISSA": _digits(row_type),
        "LEAST_QUANTUM": LEAST_QUANTUM.get(row_type, 0.0),
        "MOMENTUM": rows.momentum is not None,
        "BUFFER_MANTISSA": -1 if rows.momentum is None else _digits(rows.momentum.dtype),
        "BUFFER_QUANTUM": LEAST_QUANTUM[torch.bfloat16],
    }


def _digits(dtype: torch.dtype) -> int:
    """Return the bits of a mantissa to round to; 0 for whole numbers, -1 for fp32, which is not rounded."""
    return -1 if dtype == torch.float32 else MANTISSA_BITS.get(dtype, 0)


@triton.jit
def _mix(keys: tl.tensor) -> Any:
    """Return `attfc_train.device_hash.mixed` of uint32 keys."""
    keys = (keys ^ (keys >> _SHIFT_0)) * _FACTOR_0
    keys = (keys ^ (keys >> _SHIFT_1)) * _FACTOR_1
    return keys ^ (keys >> _LAST_SHIFT)


@triton.jit
def _rounded(
    vectors: tl.tensor,
    numbers: tl.tensor,
    key: tl.tensor,
    dims: tl.tensor,
    MANTISSA: tl.constexpr,
    LEAST_QUANTUM: tl.constexpr,
    LARGEST: tl.constexpr,
) -> Any:
    """Return `attfc_train.rounding.round_` of rows with the noise of a step's key."""
    row_keys = _mix(numbers.to(tl.uint32) + key.to(tl.uint32, bitcast=True))
    noise = (_mix(row_keys[:, None] ^ dims[None, :].to(tl.uint32)) >> 16).to(tl.float32) * (1.0 / 65536)
    if MANTISSA == 0:
        vectors = tl.floor(vectors + noise)
    else:
        power = (vectors.to(tl.int32, bitcast=True) & _EXPONENT_MASK).to(tl.float32, bitcast=True)
        quantum = tl.maximum(power * (1.0 / (1 << MANTISSA)), LEAST_QUANTUM)
        vectors = tl.floor(vectors / quantum + noise) * quantum
    if LARGEST > 0:
        vectors = tl.minimum(tl.maximum(vectors, -LARGEST), LARGEST)
    return vectors


@triton.jit
def _e4m3(vectors: tl.tensor) -> Any:
    """Return the bytes of fp32 numbers that float8_e4m3fn holds exactly."""
    bits = vectors.to(tl.int32, bitcast=True)
    exponent = ((bits >> 23) & 0xFF) - 127
    normal = ((exponent + 7) << 3) | ((bits >> 20) & 7)
    # Below 2^-6 its numbers are multiples of 2^-9.
    small = (tl.abs(vectors) * 512.0).to(tl.int32)
    return (tl.where(exponent < -6, small, normal) | ((bits >> 24) & 0x80)).to(tl.uint8)


@triton.jit
def _gradient(
    values: tl.tensor,
    numbers: tl.tensor,
    identities: tl.tensor,
    present: tl.tensor,
    inverse: tl.tensor,
    query: tl.tensor,
    offset: tl.tensor,
    own: tl.tensor,
    labels: tl.tensor,
    thresholds: tl.tensor,
    hardnesses: tl.tensor,
    num: tl.tensor,
    factor: tl.tensor,
    ceiling: tl.tensor,
    dims: tl.tensor,
    DIM: tl.constexpr,
    PADDED: tl.constexpr,
    TILE: tl.constexpr,
    CHUNK: tl.constexpr,
    TYPE: tl.constexpr,
    PRECISION: tl.constexpr,
    BITS: tl.constexpr,
    LABELLED: tl.constexpr,
    CAPPED: tl.constexpr,
    HARD: tl.constexpr,
) -> Any:
    """Return G [rows, PADDED] and unit . G [rows] over all queries."""
    gathered = tl.zeros([numbers.shape[0], PADDED], tl.float32)
    along = tl.zeros([numbers.shape[0]], tl.float32)
    for start in range(0, num, TILE):
        columns = start + tl.arange(0, TILE)
        inside = columns < num
        cosines = tl.zeros([numbers.shape[0], TILE], tl.float32)
        for at in range(0, PADDED, CHUNK):
            some = at + tl.arange(0, CHUNK)
            left = _rows(values, numbers, present, some, DIM, TYPE, BITS)
            right = _rows(query, columns, inside, some, DIM, TYPE, False)
            cosines = tl.dot(left, tl.trans(right), cosines, input_precision=PRECISION)
        cosines = cosines * inverse[:, None]
        # All exponents are of 2: `factor` is s / ln 2, and offsets are divided by ln 2.
        asked = tl.load(offset + columns, mask=inside, other=float("inf"))
        if HARD:
            threshold = tl.load(thresholds + columns, mask=inside, other=2.0)
            hardness = tl.load(hardnesses + columns, mask=inside, other=0.0)
            hard = cosines > threshold[None, :]
            counted = tl.where(hard, cosines * (hardness[None, :] + cosines), cosines)
            slope = tl.where(hard, hardness[None, :] + 2.0 * cosines, 1.0)
            pulls = tl.exp2(counted * factor - asked[None, :]) * slope
        else:
            pulls = tl.exp2(cosines * factor - asked[None, :])
        if CAPPED:
            pulls = tl.where(cosines > ceiling, 0.0, pulls)
        owners = tl.load(labels + columns, mask=inside, other=-1)
        owned = tl.load(own + columns, mask=inside, other=0.0)
        pulls = tl.where(identities[:, None] == owners[None, :], owned[None, :], pulls)
        if LABELLED:
            pulls = tl.where((identities == _EMPTY)[:, None], 0.0, pulls)
        along += tl.sum(pulls * cosines, 1)
        tile = _rows(query, columns, inside, dims, DIM, TYPE, False)
        gathered = tl.dot(_operand(pulls, TYPE, False), tile, gathered, input_precision=PRECISION)
    return gathered, along


@triton.jit
def _excess(rows: tl.tensor, tolerance: tl.tensor) -> Any:
    """Return the lengths of rows that are to be of length 1, with 1 for those that are near enough."""
    lengths = tl.sqrt(tl.maximum(tl.sum(rows * rows, 1), _LEAST_SQUARE))
    return tl.where(tl.abs(lengths - 1.0) <= tolerance, 1.0, lengths)


@triton.jit
def _learn(  # noqa: C901  # a kernel's branches are taken when it is compiled
    values: tl.tensor,
    scales: tl.tensor,
    momentum: tl.tensor,
    index: tl.tensor,
    row_labels: tl.tensor,
    query: tl.tensor,
    offset: tl.tensor,
    own: tl.tensor,
    labels: tl.tensor,
    thresholds: tl.tensor,
    hardnesses: tl.tensor,
    rates: tl.tensor,
    size: tl.tensor,
    num: tl.tensor,
    factor: tl.tensor,
    ceiling: tl.tensor,
    key: tl.tensor,
    buffer_key: tl.tensor,
    DIM: tl.constexpr,
    PADDED: tl.constexpr,
    BLOCK: tl.constexpr,
    TILE: tl.constexpr,
    CHUNK: tl.constexpr,
    TYPE: tl.constexpr,
    PRECISION: tl.constexpr,
    BITS: tl.constexpr,
    INDEXED: tl.constexpr,
    LABELLED: tl.constexpr,
    UNITS: tl.constexpr,
    CAPPED: tl.constexpr,
    HARD: tl.constexpr,
    LARGEST: tl.constexpr,
    MANTISSA: tl.constexpr,
    LEAST_QUANTUM: tl.constexpr,
    MOMENTUM: tl.constexpr,
    BUFFER_MANTISSA: tl.constexpr,
    BUFFER_QUANTUM: tl.constexpr,
) -> None:
    """Move BLOCK rows."""
    places = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    present = places < size
    numbers = tl.load(index + places, mask=present, other=0) if INDEXED else places
    identities = tl.load(row_labels + numbers, mask=present, other=_EMPTY) if LABELLED else numbers
    dims = tl.arange(0, PADDED)
    squares = tl.zeros([BLOCK], tl.float32)
    for at in range(0, PADDED, CHUNK):
        squares += _squares(_rows(values, numbers, present, at + tl.arange(0, CHUNK), DIM, TYPE, BITS))
    lengths = tl.sqrt(tl.maximum(squares, _LEAST_SQUARE))
    inverse = 1.0 / lengths
    gradient, along = _gradient(
        values, numbers, identities, present, inverse, query, offset, own, labels, thresholds, hardnesses, num, factor,
        ceiling, dims, DIM, PADDED, TILE, CHUNK, TYPE, PRECISION, BITS, LABELLED, CAPPED, HARD,
    )  # fmt: skip
    wide = _rows(values, numbers, present, dims, DIM, TYPE, BITS).to(tl.float32)
    rate, lasting, decay = tl.load(rates), tl.load(rates + 1), tl.load(rates + 2)
    stored = tl.load(scales + numbers, mask=present, other=1.0) if LARGEST > 0 else 1.0
    scale = stored
    # d row = (G - (unit . G) unit) / |row|, |row| = |x| r; an empty slot has no scale.
    gradient = (gradient - (along * inverse)[:, None] * wide) / tl.maximum(lengths * scale, _LEAST_NORM)[:, None]
    if LARGEST == 0:
        gradient += decay * wide
    elements = numbers[:, None] * DIM + dims[None, :]
    mask = present[:, None] & (dims < DIM)[None, :]
    if MOMENTUM:
        buffer = tl.load(momentum + elements, mask=mask, other=0.0).to(tl.float32)
        gradient = lasting * buffer + gradient
        kept = gradient
        if BUFFER_MANTISSA >= 0:
            kept = _rounded(gradient, numbers, buffer_key, dims, BUFFER_MANTISSA, BUFFER_QUANTUM, 0.0)
        tl.store(momentum + elements, kept.to(momentum.dtype.element_ty), mask=mask)
    if LARGEST > 0:
        scale = tl.maximum(scale * tl.load(rates + 3), _LEAST_SCALE)
        wide = wide - (rate / scale)[:, None] * gradient
        highest = tl.max(tl.abs(wide), 1)
        stretch = tl.where(highest > LARGEST, highest / (_FILLED * LARGEST), 1.0)
        stretch = tl.where(highest <= tl.load(rates + 4), 0.5, stretch)
        wide = wide / stretch[:, None]
        if not UNITS:
            tl.store(scales + numbers, scale * stretch, mask=present)
    else:
        wide = wide - rate * gradient
        if UNITS:
            wide = wide / _excess(wide, tl.load(rates + 5))[:, None]
    if MANTISSA >= 0:
        wide = _rounded(wide, numbers, key, dims, MANTISSA, LEAST_QUANTUM, LARGEST)
    if LARGEST > 0 and UNITS:  # of what was rounded; a step that changes nothing (its rate is 0) leaves the scale, too
        length = tl.sqrt(tl.maximum(tl.sum(wide * wide, 1), _LEAST_SQUARE))
        tl.store(scales + numbers, tl.where(rate == 0.0, stored, 1.0 / length), mask=present)
    if BITS:
        tl.store(values + elements, _e4m3(wide), mask=mask)
    else:
        tl.store(values + elements, wide.to(values.dtype.element_ty), mask=mask)
