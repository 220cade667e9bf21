"""The streaming container loss against the released code's way of computing it: time and memory, in one run.

    python -m benchmarks.loss [--batch 128 --slots 200000 --dim 512 --repeats 7 --threads 2]

"Released" re-states the arithmetic of methods 1.2, steps 7-12 (clone the container, B x C logits, float mask, -1e9, cat, clamp,
margin under no_grad, scale, cross entropy); it must agree with ours before anything is timed. Ours: all logits (`reference`)
and the streaming pass over fp32, bf16 and int8 slots. Each repeat times all of them, in turn; memory is what a forward and
backward add to the resident set's peak, measured in a fresh child process for each.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from attfc_train.losses import IMPLEMENTATIONS, Margin
from attfc_train.memory_use import memory_use
from benchmarks.provenance import provenance, quantiles, save

MARGIN, SCALE = Margin("arcface", 0.5), 64.0

Loss = Callable[[dict[str, Tensor]], Tensor]


def problem(batch: int, slots: int, dim: int) -> dict[str, Tensor]:
    """Random unit vectors; a few conflicts."""
    torch.manual_seed(0)
    labels = torch.arange(batch)
    slot_labels = torch.arange(slots) + batch // 2
    query = normalize(torch.randn(batch, dim), dim=1)
    centers = torch.randn(slots, dim)
    centers.div_(centers.norm(dim=1, keepdim=True))  # in place: the peak of making the problem must not hide the pass's
    return {
        "query": query.requires_grad_(),
        "positive": normalize(query.detach() + 0.05 * torch.randn(batch, dim), dim=1),
        "slots": centers,
        "slot_labels": slot_labels,
        "labels": labels,
    }


def released(inputs: dict[str, Tensor]) -> Tensor:
    """What the released head does, with all its temporaries."""
    query, positive = inputs["query"], inputs["positive"]
    negatives = query @ inputs["slots"].clone().t()
    difference = inputs["labels"].float()[:, None] - inputs["slot_labels"].float()
    mask = (difference == 0).float()
    negatives = negatives * (1 - mask) + (-1e9) * mask
    logits = torch.cat([(query * positive).sum(1, keepdim=True), negatives], dim=1).clamp(-1, 1)
    with torch.no_grad():
        logits[:, 0].arccos_().add_(MARGIN.margin).cos_()
    return cross_entropy(logits * SCALE, torch.zeros(len(query), dtype=torch.int64))


def ours(implementation: str, inputs: dict[str, Tensor]) -> Tensor:
    """One of our implementations."""
    return IMPLEMENTATIONS[implementation](
        inputs["query"],
        inputs["positive"],
        torch.full((len(inputs["query"]),), 1 / len(inputs["query"])),
        inputs["slots"],
        inputs.get("slot_scales"),
        inputs["slot_labels"],
        inputs["labels"],
        MARGIN,
        SCALE,
        8192,
    )


def stored(name: str, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """The problem with its slots in the type that the loss called `name` reads."""
    slots = inputs["slots"]
    if name == "chunked bf16":
        return {**inputs, "slots": slots.bfloat16()}
    if name != "chunked int8":
        return inputs
    scales = slots.abs().amax(1) / 127
    return {**inputs, "slots": (slots / scales[:, None]).round_().to(torch.int8), "slot_scales": scales}


def forward_backward(loss: Loss, inputs: dict[str, Tensor]) -> tuple[float, Tensor, Tensor]:
    """Seconds, loss and gradient of one forward and backward pass."""
    start = time.perf_counter()
    value = loss(inputs)
    (gradient,) = torch.autograd.grad(value, inputs["query"])
    return time.perf_counter() - start, value.detach(), gradient


def added_memory(name: str, batch: int, slots: int, dim: int) -> int:
    """Bytes that the pass adds to this process's peak; run in a fresh process."""
    inputs = stored(name, problem(batch, slots, dim))
    forward_backward(LOSSES[name], problem(batch, 64, dim))  # libraries and threads are there before the baseline is read
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
BUDGETS = {"reference": 1e-3, "chunked": 1e-3, "chunked bf16": 0.02, "chunked int8": 0.1}
"""Relative difference from the released gradient that each may have; 8-bit slots are other centers."""


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("batch", 128), ("slots", 200_000), ("dim", 512), ("repeats", 7), ("threads", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--output", default="loss_cpu.json")
    options = parser.parse_args()
    sizes = options.batch, options.slots, options.dim
    with multiprocessing.get_context("spawn").Pool(1, torch.set_num_threads, (options.threads,), maxtasksperchild=1) as pool:
        memory = {name: pool.apply(added_memory, (name, *sizes)) for name in LOSSES}
    torch.set_num_threads(options.threads)
    inputs = problem(*sizes)
    seconds, differences = compare({name: stored(name, inputs) for name in LOSSES}, options.repeats)
    result = {
        "sizes": dict(zip(("batch", "slots", "dim"), sizes, strict=True)),
        "seconds": {name: quantiles(each) for name, each in seconds.items()},
        "released_over": {name: quantiles(ratios(seconds["released"], each)) for name, each in seconds.items()},
        "gradient_difference": differences,
        "added_memory_bytes": memory,
        "provenance": provenance(),
    }
    print(save(options.output, json.dumps(result, indent=2) + "\n").read_text())


def compare(inputs: dict[str, dict[str, Tensor]], repeats: int) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Seconds of each loss in each repeat, after all were held against the released one."""
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
    """Of timings that were taken in the same repeat."""
    return [left / right for left, right in zip(slow, fast, strict=True)]


if __name__ == "__main__":
    main()
