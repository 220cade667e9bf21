"""The streaming container loss as one Triton kernel for CUDA devices.

A program holds a block of queries and walks over the tiles of one split of the slots; logits, exponentials and the weighted
sum never leave the chip. There are blocks x splits programs, so that few queries still fill the device; `merge` joins the
splits. Tensor cores multiply in the slots' type (8-bit slots in bf16, which holds them exactly); sums are fp32. On Turing
all is fp32 and tensor cores are idle. Tiles come from what the card has (`attfc_train.losses.configurations`).

Up to `MAX_UNSHIFTED_SCALE` (streaming) no running maximum is kept, which saves rescaling the [BLOCK, D] accumulator at every
tile. fp16 has too small a range for that: with fp16 slots, and above that scale, the maximum is kept.

Importing this needs triton, which CUDA builds of torch bring. Legend: B samples, C slots, D dimensions, S splits.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from attfc_train.losses import chunked
from attfc_train.losses.card import MAX_DIM, Card
from attfc_train.losses.configurations import Tiles, choices, operand_type, shape
from attfc_train.losses.margin import HardNegatives
from attfc_train.losses.slots import EMPTY, LEAST_NORM, Slots
from attfc_train.losses.streaming import Partial, keeps_maximum, merge, streaming_loss

MAX_SPLIT_BYTES = 40 * 1024**2
"""Most that the statistics of all splits take; a single split may take more."""

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
"""Whether the kernel runs in Python on the CPU, for tests."""

_SLOT_TYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.int8)
_TRITON_TYPE = {torch.float32: tl.float32, torch.float16: tl.float16, torch.bfloat16: tl.bfloat16}
_INTERPRETED_CARD = Card(capability=80, shared_memory=163 * 1024)

_EMPTY = tl.constexpr(EMPTY)
_LN2 = tl.constexpr(math.log(2))
_LEAST_SQUARE = tl.constexpr(LEAST_NORM**2)
_WIDENED = tl.constexpr(INTERPRETED)
_SPLIT_STEP = 128
"""Splits begin at multiples of this many slots."""


def supports(query: Tensor, slots: Tensor) -> bool:
    """Return whether the kernel can score these: D up to `MAX_DIM`, every type of slot but fp64, labels below 2^31."""
    on_device = query.is_cuda or INTERPRETED
    return on_device and slots.dtype in _SLOT_TYPES and query.dtype != torch.float64 and query.shape[1] <= MAX_DIM


def score_slots(
    query: Tensor,
    slots: Slots,
    labels: Tensor,
    scale: float,
    chunk: int,
    ceiling: float = math.inf,
    hard: HardNegatives | None = None,
) -> Partial:
    """Return the statistics (`Scorer`); no host sync, scratch memory S x B x D floats (`MAX_SPLIT_BYTES`).

    A single chunk of fp32 slots, such as this batch's centers beside the container, is one small product: it goes to torch,
    so that nothing has to be compiled and tuned for it in the first step.
    """
    slot_type = slots.values.dtype
    if slot_type == torch.float32 and slots.size <= chunk:
        return chunked.score_slots(query, slots, labels, scale, chunk, ceiling, hard)
    assert supports(query, slots.values), f"no kernel for {query.dtype} queries, {slot_type} slots, D = {query.shape[1]}"
    num, dim = query.shape
    card = card_of(query.device)
    work = shape(card, dim, slot_type)
    fixed = constants(
        dim, slot_type, slots.scales is not None, scale, card, owners_of(slots), slots.are_units, ceiling < 1, hard is not None
    )
    grid = triton.cdiv(num, work.block), work.padded // work.width
    splits, per_split = _splits(num, slots.size, dim, math.prod(grid), query.device)
    parts = Partial(query.new_empty(splits, num), query.new_empty(splits, num), query.new_empty(splits, num, dim))
    owners = next(each for each in (slots.labels, slots.rows, labels) if each is not None)  # of numbers the kernel reads none
    with torch.cuda.device(query.device) if query.is_cuda else contextlib.nullcontext(), _forgetting():
        _score[(grid[0], splits, grid[1])](
            query.to(operand_type(slot_type, card)).contiguous(),
            _readable(slots.values, fixed["BITS"]),
            owners if slots.scales is None else slots.scales.float(),
            owners,
            labels,
            *((labels, labels) if hard is None else (hard.threshold, hard.hardness)),
            *(parts.maximum, parts.total, parts.weighted),
            *(num, slots.size, per_split),
            scale / math.log(2),
            ceiling * scale / math.log(2) if ceiling < 1 else 0.0,
            **fixed,
            enable_fp_fusion=True,
        )
    return merge(parts)


container_loss = partial(streaming_loss, score_slots)
"""See `attfc_train.losses.container_loss.ContainerLoss`."""


@contextlib.contextmanager
def _forgetting() -> Iterator[None]:
    """Have triton's tuner let go of the arguments, which it keeps where tuning fails: a container would stay for ever."""
    try:
        yield
    finally:
        _score.nargs = None


def _readable(values: Tensor, as_bytes: bool) -> Tensor:
    return values.contiguous().view(torch.uint8) if as_bytes else values.contiguous()


def card_of(device: torch.device) -> Card:
    """Return the device's card; under the interpreter one that is made up."""
    return _INTERPRETED_CARD if INTERPRETED else Card.of(device)


def owners_of(slots: Slots) -> str:
    """Return what says of which identity a slot is: its label, its number, or the row that it is."""
    if slots.labels is not None:
        return "labels"
    return "numbers" if slots.rows is None else "rows"


def constants(
    dim: int,
    slot_type: torch.dtype,
    scaled: bool,
    scale: float,
    card: Card,
    owners: str = "labels",
    are_units: bool = True,
    capped: bool = False,
    has_hard: bool = False,
) -> dict[str, Any]:
    """Return the kernel's compile-time arguments, all but the tiles."""
    operand = operand_type(slot_type, card)
    work = shape(card, dim, slot_type)
    return {
        "DIM": dim,
        "PADDED": work.padded,
        "WIDTH": work.width,
        "BLOCK": work.block,
        "SCALED": scaled,
        "SHIFTED": operand == torch.float16 or keeps_maximum(scale, has_hard),
        "TYPE": _TRITON_TYPE[operand],
        "PRECISION": "tf32x3" if operand == torch.float32 and card.has_tensor_cores else "ieee",
        "BITS": slot_type == torch.float8_e4m3fn and not card.converts_fp8,
        "OWNERS": owners,
        "UNITS": are_units,
        "CAPPED": capped,
        "HARD": has_hard,
    }


def _splits(num: int, size: int, dim: int, blocks: int, device: torch.device) -> tuple[int, int]:
    """Return the number of splits, and slots in each: as few as keep all processors busy for about the whole time."""
    # A split costs 4 B (D + 2) bytes: its maximum, total and weighted sum.
    most = max(1, min(triton.cdiv(size, _SPLIT_STEP), MAX_SPLIT_BYTES // (4 * num * (dim + 2))))
    processors = 6 if INTERPRETED else torch.cuda.get_device_properties(device).multi_processor_count
    # Time in units of one block over all slots: rounds of programs, ceil(blocks x splits / processors), each 1 / splits long.
    waves = {splits: triton.cdiv(blocks * splits, processors) / splits for splits in range(1, min(most, processors) + 1)}
    best = min(waves.values())
    splits = next(splits for splits, time in waves.items() if time <= 1.05 * best)
    per_split = triton.cdiv(triton.cdiv(size, splits), _SPLIT_STEP) * _SPLIT_STEP
    return splits, per_split


def configuration(tiles: Tiles) -> Any:
    """Return tiles as Triton's tuner takes them."""
    names = {"TILE": tiles.tile, "CHUNK": tiles.chunk, "APART": tiles.apart}
    return triton.Config(names, num_warps=tiles.warps, num_stages=tiles.stages)


def _prune(_: list[Any], arguments: dict[str, Any], **fixed: Any) -> list[Any]:
    """Return the configurations that the tuner is to measure for these arguments."""
    slots = arguments["slots"]
    slot_type = torch.float8_e4m3fn if fixed["BITS"] else slots.dtype
    return [configuration(tiles) for tiles in choices(card_of(slots.device), fixed["DIM"], slot_type)]


_ANY = [configuration(Tiles(32, chunk=16)), configuration(Tiles(32))]
"""The tuner asks `_prune` if it has two or more; the interpreter, where nothing can be measured, takes the first."""


@triton.jit
def _operand(values: tl.tensor, TYPE: tl.constexpr, BITS: tl.constexpr) -> Any:
    """Return `values` in the operands' type. The interpreter has no bf16 products: there they are rounded and widened again."""
    if BITS:
        # e4m3 is seeeemmm, fp16 seeeeemmmmmmmmmm: the same digits with 2^-8 of the value, subnormal or not, since exponents
        # are biased by 7 and 15. All ones are NaN.
        digits = values.to(tl.int16) & 0x7F
        half = (digits << 7) | ((values.to(tl.int16) & 0x80) << 8)
        values = tl.where(digits == 0x7F, float("nan"), half.to(tl.float16, bitcast=True).to(tl.float32) * 256.0)
    if _WIDENED:
        return values.to(tl.float32).to(TYPE).to(tl.float32)
    return values.to(TYPE)


@triton.jit
def _rows(
    start: tl.tensor,
    offsets: tl.tensor,
    present: tl.tensor,
    dims: tl.tensor,
    DIM: tl.constexpr,
    TYPE: tl.constexpr,
    BITS: tl.constexpr,
) -> Any:
    """Return the dimensions `dims` of the rows `offsets` from `start`, as operand; 0 where there is none."""
    elements = start + (offsets[:, None] * DIM + dims[None, :])
    return _operand(tl.load(elements, mask=present[:, None] & (dims < DIM)[None, :], other=0.0), TYPE, BITS)


@triton.jit
def _in_chunks(
    query: tl.tensor,
    rows: tl.tensor,
    present: tl.tensor,
    centers: tl.tensor,
    columns: tl.tensor,
    inside: tl.tensor,
    DIM: tl.constexpr,
    PADDED: tl.constexpr,
    TYPE: tl.constexpr,
    PRECISION: tl.constexpr,
    BITS: tl.constexpr,
    CHUNK: tl.constexpr,
    UNITS: tl.constexpr,
) -> Any:
    """Return the products of queries and centers, summed over CHUNK dimensions at a time; unless UNITS centers' squares too."""
    products = tl.zeros([rows.shape[0], columns.shape[0]], tl.float32)
    squares = tl.zeros([columns.shape[0]], tl.float32)
    for at in range(0, PADDED, CHUNK):
        dims = at + tl.arange(0, CHUNK)
        left = _rows(query, rows, present, dims, DIM, TYPE, False)
        right = _rows(centers, columns, inside, dims, DIM, TYPE, BITS)
        products = tl.dot(left, tl.trans(right), products, input_precision=PRECISION)
        if not UNITS:
            squares += _squares(right)
    return products, squares


@triton.jit
def _squares(rows: tl.tensor) -> Any:
    """Return the squared length of each row."""
    wide = rows.to(tl.float32)
    return tl.sum(wide * wide, 1)


@triton.jit
def _in_one(block: tl.tensor, tile: tl.tensor, num: tl.tensor, PRECISION: tl.constexpr, APART: tl.constexpr) -> Any:
    """Return the products of queries and centers, in one piece."""
    if APART:
        products = tl.zeros([block.shape[0], tile.shape[0]], tl.float32)
        if num > 0:  # always: a product in a branch is laid out for itself
            products = tl.dot(block, tl.trans(tile), input_precision=PRECISION)
    else:
        products = tl.dot(block, tl.trans(tile), input_precision=PRECISION)
    return products


@triton.autotune(
    _ANY[:1] if INTERPRETED else _ANY,
    key=["PADDED", "SCALED", "SHIFTED", "UNITS", "HARD"],
    prune_configs_by={"early_config_prune": _prune},
)
@triton.jit
def _score(  # noqa: C901  # a kernel's branches are taken when it is compiled
    query: tl.tensor,
    slots: tl.tensor,
    slot_scales: tl.tensor,
    slot_labels: tl.tensor,
    labels: tl.tensor,
    thresholds: tl.tensor,
    hardnesses: tl.tensor,
    maximum: tl.tensor,
    total: tl.tensor,
    weighted: tl.tensor,
    num: tl.tensor,
    size: tl.tensor,
    per_split: tl.tensor,
    factor: tl.tensor,
    highest: tl.tensor,
    DIM: tl.constexpr,
    PADDED: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
    SCALED: tl.constexpr,
    SHIFTED: tl.constexpr,
    TYPE: tl.constexpr,
    PRECISION: tl.constexpr,
    BITS: tl.constexpr,
    OWNERS: tl.constexpr,
    UNITS: tl.constexpr,
    CAPPED: tl.constexpr,
    HARD: tl.constexpr,
    TILE: tl.constexpr,
    CHUNK: tl.constexpr,
    APART: tl.constexpr,
) -> None:
    """Store the statistics of BLOCK queries over one split of the slots."""
    # e^(s x) = 2^(s / ln 2 x): `factor` is s / ln 2, and all exponents below are of 2, which the hardware computes directly.
    split = tl.program_id(1)
    rows = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    dims = tl.arange(0, PADDED) if WIDTH == PADDED else tl.program_id(2) * WIDTH + tl.arange(0, WIDTH)
    columns = tl.arange(0, TILE)
    present = rows < num
    if CHUNK == 0:
        block = _rows(query, rows, present, dims, DIM, TYPE, False)
    own = tl.load(labels + rows, mask=present, other=_EMPTY).to(tl.int32)
    if HARD:
        threshold = tl.load(thresholds + rows, mask=present, other=2.0)
        hardness = tl.load(hardnesses + rows, mask=present, other=0.0)
    # The running maximum, total and weighted sum.
    peak = tl.full([BLOCK], float("-inf"), tl.float32)
    sums = tl.zeros([BLOCK], tl.float32)
    gathered = tl.zeros([BLOCK, WIDTH], tl.float32)
    # C x D exceeds 2^31: the split's first slot is a 64-bit offset, a tile's elements are 32-bit offsets from there.
    first = split.to(tl.int64) * per_split
    count = tl.minimum(size - first, per_split).to(tl.int32)
    for start in range(0, count, TILE):
        begin = first + start
        inside = start + columns < count
        if OWNERS == "numbers":
            held = tl.where(inside, begin + columns, _EMPTY).to(tl.int32)
        else:
            held = tl.load(slot_labels + begin + columns, mask=inside, other=_EMPTY).to(tl.int32)
        centers = slots + begin * DIM
        places = columns
        if OWNERS == "rows":
            centers = slots
            places = held.to(tl.int64)
        # z = s scales_c (query . values_c), in units of ln 2.
        if CHUNK > 0:
            logits, squares = _in_chunks(
                query, rows, present, centers, places, inside, DIM, PADDED, TYPE, PRECISION, BITS, CHUNK, UNITS
            )
            tile = _rows(centers, places, inside, dims, DIM, TYPE, BITS)
        else:
            tile = _rows(centers, places, inside, dims, DIM, TYPE, BITS)
            logits = _in_one(block, tile, num, PRECISION, APART)
            if not UNITS:
                squares = _squares(tile)
        logits = logits * factor
        if SCALED:
            scales = tl.load(slot_scales + begin + columns, mask=inside, other=0.0)
            logits = logits * scales[None, :]
        if not UNITS:
            scales = 1.0 / tl.sqrt(tl.maximum(squares, _LEAST_SQUARE))
            logits = logits * scales[None, :]
        if CAPPED:
            capped = logits > highest
            logits = tl.where(capped, 0.0, logits)
        if HARD:
            cosines = logits / factor  # z = s c becomes s c (t + c), whose derivative by s c is t + 2 c
            hard = cosines > threshold[:, None]
            slope = tl.where(hard, hardness[:, None] + 2.0 * cosines, 1.0)
            logits = tl.where(hard, logits * (hardness[:, None] + cosines), logits)
        scored = (held != _EMPTY)[None, :] & (held[None, :] != own[:, None])
        if SHIFTED:
            # M' = max(M, max z);  total and weighted sum were relative to M: times 2^(M - M').
            logits = tl.where(scored, logits, float("-inf"))
            higher = tl.maximum(peak, tl.max(logits, 1))
            shift = tl.where(higher == float("-inf"), 0.0, higher)
            decay = tl.exp2(peak - shift)
            exponentials = tl.exp2(logits - shift[:, None])
            sums = sums * decay
            gathered = gathered * decay[:, None]
            peak = higher
        else:
            exponentials = tl.where(scored, tl.exp2(logits), 0.0)
        # total += sum_c 2^(z - M);  weighted += sum_c 2^(z - M) scales_c values_c.
        sums += tl.sum(exponentials, 1)
        if CAPPED:
            exponentials = tl.where(capped, 0.0, exponentials)
        if HARD:
            exponentials = exponentials * slope
        if SCALED or not UNITS:
            exponentials = exponentials * scales[None, :]
        gathered = tl.dot(_operand(exponentials, TYPE, False), tile, gathered, input_precision=PRECISION)
    if not SHIFTED:  # relative to 0; a split without a scored slot must not raise the maximum of the others
        peak = tl.where(sums > 0, 0.0, float("-inf"))
    results = split * num + rows
    tl.store(maximum + results, peak * _LN2, mask=present)
    tl.store(total + results, sums, mask=present)
    tl.store(weighted + results[:, None] * DIM + dims[None, :], gathered, mask=present[:, None] & (dims < DIM)[None, :])
