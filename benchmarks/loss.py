"""The streaming container loss against the released code's way of computing it: time and memory, in one run.

    python -m benchmarks.loss [--batch 128 --slots 200000 --dim 512 --repeats 7 --threads 2]

"Released" is the arithmetic of AttFC's released head (clone the container, B x C logits, float mask, -1e9, cat, clamp, margin
under no_grad, scale, cross entropy); it must agree with ours before anything is timed. Ours: all logits (`reference`) and the
streaming pass over fp32, bf16 and int8 slots. Each repeat times all of them, in turn; memory is what a forward and backward
add to the resident set's peak, measured in a fresh child process for each.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from attfc_train.losses.container_loss import IMPLEMENTATIONS
from attfc_train.losses.margin import Margin
from attfc_train.losses.slots import Slots
from attfc_train.run.device_memory import memory_use
from benchmarks.capacity import container
from benchmarks.provenance import provenance, quantiles, save

MARGIN = Margin("arcface", 0.5)
SCALE = 64.0

Loss = Callable[[dict[str, Any]], Tensor]


def problem(batch: int, slots: int, dim: int, slot_type: torch.dtype) -> dict[str, Any]:
    """Make random unit vectors, the same for every type of slot; a few conflicts."""
    torch.manual_seed(0)
    query = normalize(torch.randn(batch, dim), dim=1)
    made = container(slots, dim, slot_type, torch.device("cpu"))
    return {
        "query": query.requires_grad_(),
        "positive": normalize(query.detach() + 0.05 * torch.randn(batch, dim), dim=1),
        "slots": Slots(made.values, made.scales, made.owners() + batch // 2),
        "labels": torch.arange(batch),
    }


def released(inputs: dict[str, Any]) -> Tensor:
    """Return the loss as the released head computes it, with all its temporaries."""
    query = inputs["query"]
    positive = inputs["positive"]
    negatives = query @ inputs["slots"].values.clone().t()
    difference = inputs["labels"].float()[:, None] - inputs["slots"].labels.float()
    mask = (difference == 0).float()
    negatives = negatives * (1 - mask) + (-1e9) * mask
    logits = torch.cat([(query * positive).sum(1, keepdim=True), negatives], dim=1).clamp(-1, 1)
    with torch.no_grad():
        logits[:, 0].arccos_().add_(MARGIN.margin).cos_()
    return cross_entropy(logits * SCALE, torch.zeros(len(query), dtype=torch.int64))


def ours(implementation: str, inputs: dict[str, Any]) -> Tensor:
    """Return the loss by one of our implementations."""
    weights = torch.full((len(inputs["query"]),), 1 / len(inputs["query"]))
    return IMPLEMENTATIONS[implementation](**inputs, weights=weights, margin=MARGIN, scale=SCALE, chunk=8192)


def forward_backward(loss: Loss, inputs: dict[str, Any]) -> tuple[float, Tensor, Tensor]:
    """Return seconds, loss and gradient of one forward and backward pass."""
    start = time.perf_counter()
    value = loss(inputs)
    (gradient,) = torch.autograd.grad(value, inputs["query"])
    return time.perf_counter() - start, value.detach(), gradient


def added_memory(name: str, batch: int, slots: int, dim: int) -> int:
    """Return the bytes that the pass adds to this process's peak; run in a fresh process."""
    slot_type = TYPES.get(name, torch.float32)
    inputs = problem(batch, slots, dim, slot_type)
    # Libraries and threads must be there before the baseline is read.
    forward_backward(LOSSES[name], problem(batch, 64, dim, slot_type))
    before = memory_use(torch.device("cpu")).current
    forward_backward(LOSSES[name], inputs)
    return max(0, memory_use(torch.device("cpu")).peak - before)


LOSSES: dict[str, Loss] = {
    "released": released,
    "reference": partial(ours, "reference"),
    "chunked": partial(ours, "chunked"),
    "chunked bf16": partial(ours, "chunked"),
    "chunked int8": partial(ours, "chunked"),
}
TYPES = {"chunked bf16": torch.bfloat16, "chunked int8": torch.int8}
BUDGETS = {"reference": 1e-3, "chunked": 1e-3, "chunked bf16": 0.02, "chunked int8": 0.1}
"""Largest relative difference of each from the released gradient; 8-bit slots are other centers."""


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("batch", 128), ("slots", 200_000), ("dim", 512), ("repeats", 7), ("threads", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--output", default="loss_cpu.json")
    options = parser.parse_args()
    sizes = options.batch, options.slots, options.dim
    with multiprocessing.get_context("spawn").Pool(1, torch.set_num_threads, (options.threads,), maxtasksperchild=1) as pool:
        memory = {name: pool.apply(added_memory, (name, *sizes)) for name in LOSSES}
    torch.set_num_threads(options.threads)
    problems = {slot_type: problem(*sizes, slot_type) for slot_type in {torch.float32, *TYPES.values()}}
    inputs = {name: problems[TYPES.get(name, torch.float32)] for name in LOSSES}
    seconds, differences = compare(inputs, options.repeats)
    result = {
        "sizes": dict(zip(("batch", "slots", "dim"), sizes, strict=True)),
        "seconds": {name: quantiles(each) for name, each in seconds.items()},
        "released_over": {name: quantiles(ratios(seconds["released"], each)) for name, each in seconds.items()},
        "gradient_difference": differences,
        "added_memory_bytes": memory,
        "provenance": provenance(),
    }
    print(save(options.output, json.dumps(result, indent=2) + "\n").read_text())


def compare(inputs: dict[str, dict[str, Any]], repeats: int) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Return the seconds of each loss in each repeat, and its gradient's difference from the released one, checked first."""
    first = {name: forward_backward(loss, inputs[name]) for name, loss in LOSSES.items()}
    released = first["released"][2]
    differences = {name: float((first[name][2] - released).norm() / released.norm()) for name in BUDGETS}
    assert all(differences[name] <= budget for name, budget in BUDGETS.items()), f"they do not agree: {differences}"
    torch.testing.assert_close(first["chunked"][1], first["released"][1], rtol=1e-4, atol=1e-5)
    seconds: dict[str, list[float]] = {name: [] for name in LOSSES}
    for _ in range(repeats):
        for name, loss in LOSSES.items():
            seconds[name].append(forward_backward(loss, inputs[name])[0])
    return seconds, differences


def ratios(slow: list[float], fast: list[float]) -> list[float]:
    """Return the ratios of timings that were taken in the same repeat."""
    return [slow_time / fast_time for slow_time, fast_time in zip(slow, fast, strict=True)]


if __name__ == "__main__":
    main()
