"""Time and memory of a full layer's step on a CPU: rows that autograd trains against rows that are moved chunk by chunk.

    python -m benchmarks.learned_layers --ids 20000 200000 --dim 512 --batch 128

``autograd`` is the layer as a classification layer usually is: all logits, the gradient of all rows, SGD in place. Every way is
a process of its own, whose memory beyond the start is measured.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from torch.nn.functional import cross_entropy, normalize

from attfc_train.heads.containers.writes import commit
from attfc_train.heads.full_fc.head import FullFCHead
from attfc_train.losses.learned_layers import PASSES
from attfc_train.losses.learning import Descent, Rule
from attfc_train.losses.margin import Margin
from attfc_train.optim.sgd import SGD
from attfc_train.rounding import DTYPES

WAYS = ("autograd", "fp32 momentum", "fp32", "bf16 momentum", "bf16", "fp8", "int8 momentum", "int8")
SCALE = 64.0
MARGIN = Margin("cosface", 0.4)
REPEATS = 5
MIB = 2**20


def autograd_step(num_ids: int, dim: int, features: torch.Tensor, labels: torch.Tensor) -> Callable[[], None]:
    """Return a step of the usual layer, with momentum."""
    weight = torch.nn.Parameter(torch.randn(num_ids, dim).mul_(0.01))
    optimizer = SGD([weight], 0.9, 5e-4)

    def step() -> None:
        query = features.clone().requires_grad_()
        cosines = normalize(query, dim=1) @ normalize(weight, dim=1).t()
        margins = torch.zeros_like(cosines).scatter_(1, labels[:, None], MARGIN.margin)
        cross_entropy((cosines - margins) * SCALE, labels).backward()
        optimizer.step(0.01)

    return step


def layer_step(
    way: str, num_ids: int, dim: int, chunk: int, features: torch.Tensor, labels: torch.Tensor
) -> Callable[[], None]:
    """Return a step of a learned layer, such as ``int8 momentum``."""
    storage = next(name for name in DTYPES if name == way.split()[0])
    rule = Rule(SCALE, torch.inf, chunk)
    layer = FullFCHead(
        num_ids, dim, storage=storage, has_momentum="momentum" in way, passes=PASSES["chunked"], rule=rule, device=None
    )

    def step() -> None:
        query = features.clone().requires_grad_()
        weights = layer.begin_step(labels, 0)
        layer(query, torch.empty(0), labels, weights, MARGIN).loss.backward()
        commit(layer.prepare_learning(Descent(0.01, 0.9, 5e-4), 0))
        layer.forget_step()

    return step


def measure(way: str, num_ids: int, dim: int, batch: int, chunk: int) -> tuple[float, float]:
    """Return seconds of a step, the best of a few, and MiB of the process at its peak beyond its start."""
    torch.manual_seed(0)
    features = torch.randn(batch, dim)
    labels = torch.randint(num_ids, (batch,))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    make = autograd_step if way == "autograd" else None
    step = make(num_ids, dim, features, labels) if make else layer_step(way, num_ids, dim, chunk, features, labels)
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return min(times), (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 / MIB


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ids", type=int, nargs="+", default=[20_000, 200_000])
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--chunk", type=int, default=2048)
    parser.add_argument("--way", choices=WAYS, help="measure this one, in this process")
    options = parser.parse_args()
    if options.way:
        seconds, mebibytes = measure(options.way, options.ids[0], options.dim, options.batch, options.chunk)
        print(f"{seconds:.6f} {mebibytes:.1f}")
        return
    for num_ids in options.ids:
        print(f"{num_ids:,} identities, D = {options.dim}, B = {options.batch}", flush=True)
        for way in WAYS:
            line = [sys.executable, "-m", "benchmarks.learned_layers", "--way", way, "--ids", str(num_ids)]
            line += ["--dim", str(options.dim), "--batch", str(options.batch), "--chunk", str(options.chunk)]
            seconds, mebibytes = map(float, subprocess.run(line, capture_output=True, text=True, check=True).stdout.split())
            if way == WAYS[0]:
                usual = seconds, mebibytes
            ratios = seconds / usual[0], mebibytes / usual[1]
            print(f"  {way:14}{1e3 * seconds:9.1f} ms  x {ratios[0]:4.2f}{mebibytes:9.0f} MiB  x {ratios[1]:4.2f}", flush=True)


if __name__ == "__main__":
    main()
