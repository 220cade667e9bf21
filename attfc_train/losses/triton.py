"""The streaming container loss as one Triton kernel for CUDA devices.

A program holds a block of queries and walks over the tiles of one split of the slots; logits, exponentials and the weighted
sum never leave the chip. There are blocks x splits programs, so that few queries still fill the device; `merge` joins the
splits. Tensor cores multiply in the slots' type (8-bit slots in bf16, which holds them exactly); sums are fp32.

Up to `MAX_UNSHIFTED_SCALE` no running maximum is kept, which saves rescaling the [BLOCK, D] accumulator at every tile. fp16 has
too small a range for that: with fp16 slots, and above that scale, the maximum is kept.

Importing this needs triton, which CUDA builds of torch bring. Legend: B samples, C slots, D dimensions, S splits.
"""

from __future__ import annotations

import contextlib
import math
import os
from functools import partial
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from attfc_train.losses import chunked
from attfc_train.losses.slots import EMPTY, Slots
from attfc_train.losses.streaming import MAX_UNSHIFTED_SCALE, Partial, merge, streaming_loss

MAX_DIM = 1024
MAX_SPLIT_BYTES = 40 * 1024**2
"""Most that the statistics of all splits take; a single split may take more."""

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
"""Whether the kernel runs in Python on the CPU, for tests."""

_OPERAND = {
    torch.float32: torch.float32,
    torch.float16: torch.float16,
    torch.bfloat16: torch.bfloat16,
    torch.float8_e4m3fn: torch.bfloat16,
    torch.int8: torch.bfloat16,
}
"""Type of the slots -> type of the tensor cores' operands."""
_TRITON_TYPE = {torch.float32: tl.float32, torch.float16: tl.float16, torch.bfloat16: tl.bfloat16}

_EMPTY = tl.constexpr(EMPTY)
_LN2 = tl.constexpr(math.log(2))
_WIDENED = tl.constexpr(INTERPRETED)
_SPLIT_STEP = 128
"""Splits begin at multiples of this many slots."""


def supports(query: Tensor, slots: Tensor) -> bool:
    """Return whether the kernel can score these: D up to `MAX_DIM`, every type of slot but fp64, labels below 2^31."""
    on_device = query.is_cuda or INTERPRETED
    return on_device and slots.dtype in _OPERAND and query.dtype != torch.float64 and query.shape[1] <= MAX_DIM


def score_slots(query: Tensor, slots: Slots, labels: Tensor, scale: float, chunk: int) -> Partial:
    """Return the statistics (`Scorer`); no host sync, scratch memory S x B x D floats (`MAX_SPLIT_BYTES`).

    A single chunk of fp32 slots, such as this batch's centers beside the container, is one small product: it goes to torch,
    so that nothing has to be compiled and tuned for it in the first step.
    """
    slot_type = slots.values.dtype
    if slot_type == torch.float32 and slots.size <= chunk:
        return chunked.score_slots(query, slots, labels, scale, chunk)
    assert supports(query, slots.values), f"no kernel for {query.dtype} queries, {slot_type} slots, D = {query.shape[1]}"
    num, dim = query.shape
    block, padded = _block_and_padding(dim, slot_type)
    splits, per_split = _splits(num, slots.size, dim, block, query.device)
    parts = Partial(query.new_empty(splits, num), query.new_empty(splits, num), query.new_empty(splits, num, dim))
    with torch.cuda.device(query.device) if query.is_cuda else contextlib.nullcontext():
        _score[(triton.cdiv(num, block), splits)](
            query.to(_OPERAND[slot_type]).contiguous(),
            slots.values.contiguous(),
            slots.labels if slots.scales is None else slots.scales.float(),
            slots.labels,
            labels,
            parts.maximum,
            parts.total,
            parts.weighted,
            num,
            slots.size,
            per_split,
            scale / math.log(2),
            DIM=dim,
            PADDED=padded,
            BLOCK=block,
            SCALED=slots.scales is not None,
            SHIFTED=slot_type == torch.float16 or scale > MAX_UNSHIFTED_SCALE,
            TYPE=_TRITON_TYPE[_OPERAND[slot_type]],
            PRECISION="tf32x3" if slot_type == torch.float32 else "ieee",
            enable_fp_fusion=True,
        )
    return merge(parts)


container_loss = partial(streaming_loss, score_slots)
"""See `attfc_train.losses.container_loss.ContainerLoss`."""


def _block_and_padding(dim: int, dtype: torch.dtype) -> tuple[int, int]:
    """Return queries per program, and D padded to a power of two for ``tl.arange``."""
    # The [BLOCK, PADDED] fp32 accumulator takes half of a processor's 65,536 registers; with fp32 operands a quarter.
    padded = max(16, triton.next_power_of_2(dim))
    return max(16, min(128, (16384 if dtype == torch.float32 else 32768) // padded)), padded


def _splits(num: int, size: int, dim: int, block: int, device: torch.device) -> tuple[int, int]:
    """Return the number of splits, and slots in each: as few as keep all processors busy for about the whole time."""
    # A split costs 4 B (D + 2) bytes: its maximum, total and weighted sum.
    most = max(1, min(triton.cdiv(size, _SPLIT_STEP), MAX_SPLIT_BYTES // (4 * num * (dim + 2))))
    blocks = triton.cdiv(num, block)
    processors = _num_processors(device)
    # Time in units of one block over all slots: rounds of programs, ceil(blocks x splits / processors), each 1 / splits long.
    waves = {splits: triton.cdiv(blocks * splits, processors) / splits for splits in range(1, min(most, processors) + 1)}
    best = min(waves.values())
    splits = next(splits for splits, time in waves.items() if time <= 1.05 * best)
    per_split = triton.cdiv(triton.cdiv(size, splits), _SPLIT_STEP) * _SPLIT_STEP
    return splits, per_split


def _num_processors(device: torch.device) -> int:
    return 6 if INTERPRETED else torch.cuda.get_device_properties(device).multi_processor_count


def _configs() -> list[Any]:
    """Return tiles and warps to choose from; under the interpreter one of them.

    Triton lays all warps along the rows of a product whose result enters another one. With fewer rows than warps x 16 several
    warps then compute the same: D = 512 has 64 rows for 8 warps. A product in a branch is laid out for itself (``APART``): for
    sm_90 that halves the instructions of the first product, and moves the exponentials through shared memory instead. Which is
    faster is measured.
    """
    if INTERPRETED:
        return [triton.Config({"TILE": 32, "APART": True}, num_warps=4, num_stages=1)]
    shapes = [
        (64, True, 8, 2),
        (64, False, 8, 2),
        (128, True, 8, 1),
        (128, False, 8, 2),
        (32, True, 8, 3),
        (32, False, 8, 3),
        (32, False, 8, 2),
        (16, False, 4, 2),
    ]
    return [
        triton.Config({"TILE": tile, "APART": apart}, num_warps=warps, num_stages=stages)
        for tile, apart, warps, stages in shapes
    ]


def _prune(configs: list[Any], arguments: dict[str, Any], **constants: Any) -> list[Any]:
    """Return the configurations that fit into shared memory and registers; the smallest stays in any case."""
    query = arguments["query"]
    slots = arguments["slots"]
    limit = triton.runtime.driver.active.utils.get_device_properties(query.device.index)["max_shared_mem"]
    row = constants["PADDED"] * query.element_size()

    def fits(config: Any) -> bool:
        tile = config.kwargs["TILE"]
        threads = config.num_warps * 32
        # In shared memory: the block of queries, a tile of slots per stage, and one in the operands' type where it is another.
        converted = row if slots.dtype != query.dtype else 0
        stages = config.num_stages * constants["PADDED"] * slots.element_size()
        shared = constants["BLOCK"] * row + tile * (stages + converted)
        # In a thread's registers: its part of the accumulator, of the logits and of the exponentials.
        registers = constants["BLOCK"] * (constants["PADDED"] + 2 * tile) // threads
        # fp32 products take three passes of TF32 and their operands stand in registers: larger tiles only spill.
        small = query.element_size() < 4 or (tile <= 32 and not config.kwargs["APART"])
        return bool(small and shared <= limit and registers <= 200)

    return [config for config in configs if fits(config)] or configs[-1:]


@triton.jit
def _operand(values: tl.tensor, TYPE: tl.constexpr) -> Any:
    """Return `values` in the operands' type. The interpreter has no bf16 products: there they are rounded and widened again."""
    if _WIDENED:
        return values.to(tl.float32).to(TYPE).to(tl.float32)
    return values.to(TYPE)


@triton.autotune(_configs(), key=["PADDED", "SCALED", "SHIFTED"], prune_configs_by={"early_config_prune": _prune})
@triton.jit
def _score(
    query: tl.tensor,
    slots: tl.tensor,
    slot_scales: tl.tensor,
    slot_labels: tl.tensor,
    labels: tl.tensor,
    maximum: tl.tensor,
    total: tl.tensor,
    weighted: tl.tensor,
    num: tl.tensor,
    size: tl.tensor,
    per_split: tl.tensor,
    factor: tl.tensor,
    DIM: tl.constexpr,
    PADDED: tl.constexpr,
    BLOCK: tl.constexpr,
    SCALED: tl.constexpr,
    SHIFTED: tl.constexpr,
    TYPE: tl.constexpr,
    PRECISION: tl.constexpr,
    TILE: tl.constexpr,
    APART: tl.constexpr,
) -> None:
    """Store the statistics of BLOCK queries over one split of the slots."""
    # e^(s x) = 2^(s / ln 2 x): `factor` is s / ln 2, and all exponents below are of 2, which the hardware computes directly.
    split = tl.program_id(1)
    rows = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    dims = tl.arange(0, PADDED)
    columns = tl.arange(0, TILE)
    present = rows < num
    real = dims < DIM
    block = _operand(
        tl.load(query + rows[:, None] * DIM + dims[None, :], mask=present[:, None] & real[None, :], other=0.0), TYPE
    )
    own = tl.load(labels + rows, mask=present, other=_EMPTY).to(tl.int32)
    # The running maximum, total and weighted sum.
    peak = tl.full([BLOCK], float("-inf"), tl.float32)
    sums = tl.zeros([BLOCK], tl.float32)
    gathered = tl.zeros([BLOCK, PADDED], tl.float32)
    # C x D exceeds 2^31: the split's first slot is a 64-bit offset, a tile's elements are 32-bit offsets from there.
    first = split.to(tl.int64) * per_split
    count = tl.minimum(size - first, per_split).to(tl.int32)
    for start in range(0, count, TILE):
        begin = first + start
        inside = start + columns < count
        held = tl.load(slot_labels + begin + columns, mask=inside, other=_EMPTY).to(tl.int32)
        elements = slots + begin * DIM + (columns[:, None] * DIM + dims[None, :])
        tile = _operand(tl.load(elements, mask=inside[:, None] & real[None, :], other=0.0), TYPE)
        # z = s scales_c (query . values_c), in units of ln 2.
        logits = tl.zeros([BLOCK, TILE], tl.float32)
        if APART:
            if num > 0:  # always: see `_configs`
                logits = tl.dot(block, tl.trans(tile), input_precision=PRECISION)
        else:
            logits = tl.dot(block, tl.trans(tile), input_precision=PRECISION)
        logits = logits * factor
        if SCALED:
            scales = tl.load(slot_scales + begin + columns, mask=inside, other=0.0)
            logits = logits * scales[None, :]
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
        if SCALED:
            exponentials = exponentials * scales[None, :]
        gathered = tl.dot(_operand(exponentials, TYPE), tile, gathered, input_precision=PRECISION)
    if not SHIFTED:  # relative to 0; a split without a scored slot must not raise the maximum of the others
        peak = tl.where(sums > 0, 0.0, float("-inf"))
    places = split * num + rows
    tl.store(maximum + places, peak * _LN2, mask=present)
    tl.store(total + places, sums, mask=present)
    tl.store(weighted + places[:, None] * DIM + dims[None, :], gathered, mask=present[:, None] & real[None, :])
