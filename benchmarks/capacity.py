"""The cost of the container loss on a GPU: time, share of the matrix rate and memory, up to 100 million slots.

    python -m benchmarks.capacity [--fresh]         # under 6 minutes on an H200; needs a CUDA device
    python -m benchmarks.capacity --cpu-smoke       # tiny sizes on the CPU: shows that the script works, measures nothing
    python -m benchmarks.capacity --plan            # what the planner foresees, needs no GPU: benchmarks/capacity_plan.py

The rate of a large bf16 matrix product is measured first, in the same run; a case's share is 4 B C D operations (logits and
gradient, forward and backward together) over its time, over that rate. Every case is written as soon as it is measured;
a run that was stopped takes up where it was, `--fresh` starts over. So every case has its own rate and provenance. Memory is
the allocator's peak above what was there.

Containers are bf16, where that does not fit int8 with a scale per slot. "naive" holds all logits in bf16 and lets autograd
work; it runs where 20 bytes per logit fit. fp32 products are made in TF32, as in training with bf16.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from attfc_train.files import write_text_atomically
from attfc_train.losses.container_loss import IMPLEMENTATIONS
from attfc_train.losses.margin import Margin
from attfc_train.losses.slots import Slots
from benchmarks import capacity_plan
from benchmarks.provenance import RESULTS, provenance, quantiles

MARGIN = Margin("arcface", 0.5)
SCALE = 64.0
CHUNK = 8192
DIM = 512
BATCHES = (256, 1024, 4096)
SIZES = (205_990, 2_059_906, 20_000_000, 100_000_000)
CASE_SECONDS = 1.5
"""A case is repeated for about this long, at least `LEAST_REPEATS` times."""
LEAST_REPEATS = 2
MOST_REPEATS = 20
BYTES_PER_NAIVE_LOGIT = 20
PIECE = 2**11
"""Slots made at a time."""
NO_DEVICE = 2
"""Exit code where there is no CUDA device."""

Case = dict[str, Any]


def naive(inputs: dict[str, Any], scale: float) -> Tensor:
    """Return the loss of all logits in the slots' type, softmax in fp32, for autograd."""
    query = inputs["query"]
    slots = inputs["slots"].values
    labels = inputs["labels"]
    cosines: Tensor = query.to(slots.dtype) @ slots.t()
    positive = cosines.gather(1, labels[:, None])
    target = positive + (MARGIN.apply(positive.float()).to(positive.dtype) - positive).detach()
    return cross_entropy(cosines.scatter(1, labels[:, None], target).float() * scale, labels)


def streaming(name: str) -> Callable[[dict[str, Any], float], Tensor]:
    """Return one of our implementations as a function of the problem."""

    def loss(inputs: dict[str, Any], scale: float) -> Tensor:
        return IMPLEMENTATIONS[name](**inputs, margin=MARGIN, scale=scale, chunk=CHUNK)

    return loss


LOSSES: dict[str, Callable[[dict[str, Any], float], Tensor]] = {
    "triton": streaming("triton"),
    "chunked": streaming("chunked"),
    "naive": naive,
}


def container(size: int, dim: int, slot_type: torch.dtype, device: torch.device) -> Slots:
    """Make random centers, in pieces so that no wider copy of the whole exists."""
    values = torch.empty(size, dim, dtype=slot_type, device=device)
    scales = torch.empty(size, device=device) if slot_type == torch.int8 else None
    for start in range(0, size, PIECE):
        piece = normalize(torch.randn(min(PIECE, size - start), dim, device=device), dim=1)
        if scales is not None:
            scales[start : start + len(piece)] = piece.abs().amax(1) / 127
            piece = (piece / scales[start : start + len(piece), None]).round()
        values[start : start + len(piece)] = piece.to(slot_type)
    return Slots(values, scales, torch.arange(size, device=device))


def container_bytes(size: int, dim: int, slot_type: torch.dtype) -> int:
    """Return what `container` takes: a vector and a label a slot, and a scale where there are scales."""
    scale = 4 if slot_type == torch.int8 else 0
    return size * (dim * slot_type.itemsize + 8 + scale)


def queries(batch: int, dim: int, device: torch.device) -> dict[str, Tensor]:
    """Make random unit vectors with identities 0 .. B - 1."""
    query = normalize(torch.randn(batch, dim, device=device), dim=1)
    positive = normalize(query + 0.05 * torch.randn_like(query), dim=1)
    weights = torch.full((batch,), 1 / batch, device=device)
    return {
        "query": query.requires_grad_(),
        "positive": positive,
        "weights": weights,
        "labels": torch.arange(batch, device=device),
    }


def seconds_of(work: Callable[[], object], device: torch.device, budget: float) -> list[float]:
    """Return times of `work`, after one warm-up that also tunes and compiles."""
    times: list[float] = []
    work()
    _wait(device)
    begin = time.perf_counter()
    while len(times) < LEAST_REPEATS or (len(times) < MOST_REPEATS and time.perf_counter() - begin < budget):
        start = time.perf_counter()
        work()
        _wait(device)
        times.append(time.perf_counter() - start)
    return times


def matrix_rate(size: int, device: torch.device) -> float:
    """Return the operations per second of a square bf16 product, fp32 accumulation."""
    left, right = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    times = seconds_of(lambda: left @ right, device, 2.0)
    return 2 * size**3 / quantiles(times)["p50"]


def measure(name: str, inputs: dict[str, Any], rate: float, device: torch.device, budget: float) -> Case:
    """Return time, share of `rate` and added bytes of one forward and backward pass."""

    def work() -> Tensor:
        loss = LOSSES[name](inputs, SCALE)
        gradient: Tensor = torch.autograd.grad(loss, inputs["query"])[0]
        return gradient

    try:
        times = quantiles(seconds_of(work, device, budget))
        added = _added_bytes(work, device)
    except Exception as error:  # a case that does not fit or compile is a result, not the end of the table
        return {"failed": f"{type(error).__name__}: {error}"[:300]}
    (batch, dim) = inputs["query"].shape
    size = inputs["slots"].size
    return {"seconds": times, "share_of_matrix_rate": 4 * batch * size * dim / times["p50"] / rate, "added_bytes": added}


def _added_bytes(work: Callable[[], object], device: torch.device) -> int | None:
    if device.type != "cuda":
        return None
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    work()
    return torch.cuda.max_memory_allocated() - before


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def slot_type_for(size: int, dim: int, free_bytes: float) -> torch.dtype:
    """Return bf16 while the container takes at most two thirds of the device, else int8."""
    return torch.bfloat16 if 2 * size * dim < free_bytes * 2 / 3 else torch.int8


def plan(name: str, batch: int, size: int, slot_type: torch.dtype, free_bytes: float) -> str | None:
    """Return why a case is left out, or None."""
    if name == "naive" and slot_type == torch.int8:
        return "needs all slots in bf16"
    if name == "naive" and batch * size * BYTES_PER_NAIVE_LOGIT > free_bytes * 0.9:
        return "logits do not fit"
    return None


def run(path: Path, device: torch.device, dim: int, batches: tuple[int, ...], sizes: tuple[int, ...], names: list[str]) -> Case:
    """Measure what `path` does not hold yet, and write it after every case."""
    smoke = device.type != "cuda"
    result: Case = json.loads(path.read_text()) if path.exists() else {"cases": {}}
    rate = matrix_rate(256 if smoke else 8192, device)
    measured = {"matrix_operations_per_second": rate, "provenance": provenance(device)}
    result["dim"] = dim
    for size in sizes:
        free_bytes = 1e9 if smoke else torch.cuda.mem_get_info()[0]
        slot_type = slot_type_for(size, dim, free_bytes)
        keys = {(name, batch): f"{name} {slot_type} B={batch} C={size}" for batch, name in product(batches, names)}
        missing = {case: key for case, key in keys.items() if key not in result["cases"]}
        for key, case in measured_size(missing, size, dim, slot_type, free_bytes, rate, device):
            result["cases"][key] = {**case, **measured}
            write_text_atomically(path, json.dumps(result, indent=2) + "\n")
        if not smoke:
            torch.cuda.empty_cache()  # the container has gone with the generator that held it
    return result


def measured_size(
    keys: dict[tuple[str, int], str],
    size: int,
    dim: int,
    slot_type: torch.dtype,
    free_bytes: float,
    rate: float,
    device: torch.device,
) -> Iterator[tuple[str, Case]]:
    """Yield the key and the figures of every case of one container, which lives as long as this iterator."""
    left = free_bytes - container_bytes(size, dim, slot_type)
    if left <= 0 or not keys:
        yield from ((key, {"left_out": "the container does not fit"}) for key in keys.values())
        return
    slots = container(size, dim, slot_type, device)
    budget = CASE_SECONDS if device.type == "cuda" else 0.0
    for (name, batch), key in keys.items():
        reason = plan(name, batch, size, slot_type, left)
        if reason is not None:
            yield key, {"left_out": reason}
        else:
            yield key, measure(name, {**queries(batch, dim, device), "slots": slots}, rate, device, budget)


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cpu-smoke", action="store_true", help="tiny sizes on the CPU")
    parser.add_argument("--fresh", action="store_true", help="forget what was measured before")
    parser.add_argument("--plan", action="store_true", help="predict a table of cards and identities instead of measuring")
    parser.add_argument("--cards", default=",".join(capacity_plan.CARDS), help="those of --plan, with commas")
    parser.add_argument("--output", type=Path, help="default: results/capacity_gpu.json; of --plan: results/capacity_plan.json")
    options = parser.parse_args()
    if options.plan:
        capacity_plan.run(options.cards.split(","), options.output or RESULTS / "capacity_plan.json")
        return
    options.output = options.output or RESULTS / "capacity_gpu.json"
    if not options.cpu_smoke and not torch.cuda.is_available():
        print("benchmarks.capacity needs a CUDA device, but torch sees none; --cpu-smoke tries the script", file=sys.stderr)
        sys.exit(NO_DEVICE)
    if options.fresh:
        options.output.unlink(missing_ok=True)
    if options.cpu_smoke:
        result = run(options.output, torch.device("cpu"), 32, (4, 8), (300, 1000), ["chunked", "naive"])
    else:
        torch.set_float32_matmul_precision("high")
        result = run(options.output, torch.device("cuda"), DIM, BATCHES, SIZES, list(LOSSES))
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
