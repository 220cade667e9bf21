"""Gradients that several processes add up while the backward pass goes on, beside one sum after it; by gloo, in one run.

    python -m benchmarks.several    # two processes of a thread each; two minutes; writes results/several_cpu.json

Both ways make the real step with the same network, batch and head, and take turns, a step each. On CPUs the sums take cores
that the backward pass would have; what GPUs gain, whose links work beside them, this does not show.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import time
from typing import Any, Final

import torch

from attfc_train.data.batch import Batch
from attfc_train.heads.full_fc.settings import FullFCSettings
from attfc_train.profile.profile import ModelSettings, OptimSettings, RunSettings, TrainProfile
from attfc_train.ranks.launch import place, together
from attfc_train.ranks.ranks import Ranks
from attfc_train.step import gradient_sums
from attfc_train.step.build import build
from attfc_train.step.step import train_step
from benchmarks.provenance import provenance, quantiles, save

PROCESSES: Final = 2
CASES: Final = (("mbf", 32), ("r18", 32))
"""Networks, and images of both processes together."""
WAYS: Final = {"one sum after it": 2**60, "buckets beside it": gradient_sums.BUCKET_BYTES}
"""Of adding up gradients, with the bytes of a bucket."""
RESULT: Final = "several_cpu.json"


def main() -> None:
    """Run the benchmark from the command line; it starts itself again as the processes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=9, help="timed steps of each way")
    options = parser.parse_args()
    here = place(os.environ)
    if here is None:
        _start(options.steps)
        return
    torch.set_num_threads(1)
    with together(here, "Start again.") as met:
        ranks = met.on(torch.device("cpu"))
        rows = [compared(ranks, network, batch_size, options.steps) for network, batch_size in CASES]
        if ranks.is_first:
            print(table(rows))
            print(save(RESULT, json.dumps({"provenance": provenance(), "rows": rows}, indent=1) + "\n"))


def _start(steps: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    shared = {**os.environ, "WORLD_SIZE": str(PROCESSES), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    command = [sys.executable, "-m", "benchmarks.several", "--steps", str(steps)]
    places = [{**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(PROCESSES)]
    children = [subprocess.Popen(command, env=environment) for environment in places]
    codes = [child.wait() for child in children]
    raise SystemExit(max(map(abs, codes)))


def compared(ranks: Ranks, network: str, batch_size: int, steps: int) -> dict[str, Any]:
    """Return the seconds of a step in both ways, and of its exchanges' bytes."""
    profile = TrainProfile(
        model=ModelSettings(backbone=network),
        head=FullFCSettings(),
        optim=OptimSettings(batch_size=batch_size),
        run=RunSettings(precision="fp32", steps=1000, gpus=ranks.size),
    ).resolve(10_000)
    batch = Batch.random(profile, torch.device("cpu"))
    states = {}
    for way, bucket_bytes in WAYS.items():
        gradient_sums.BUCKET_BYTES = bucket_bytes
        states[way] = build(profile, torch.device("cpu"), ranks)
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(steps + 2):
        for way, state in states.items():
            ranks.told(None)  # both begin together
            begun = time.perf_counter()
            train_step(state, batch)
            seconds[way].append(time.perf_counter() - begun)
    timed = {way: quantiles(each[2:]) for way, each in seconds.items()}
    after, beside = (timed[way]["p50"] for way in WAYS)
    gradients = sum(parameter.nbytes for parameter in states["buckets beside it"].optimizer.parameters)
    return {
        "network": network,
        "images": batch_size,
        "gradient_bytes": gradients,
        "seconds": timed,
        "times_as_fast": after / beside,
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Return Markdown: seconds of a step (p50, and p20 to p80), and their ratio."""
    lines = [f"| network, images | gradients | {' | '.join(WAYS)} | times as fast |", f"|{'---|' * (len(WAYS) + 3)}"]
    for row in rows:
        cells = (f"{each['p50']:.2f} s ({each['p20']:.2f} to {each['p80']:.2f})" for each in row["seconds"].values())
        label = f"{row['network']}, {row['images']}"
        size = f"{row['gradient_bytes'] / 2**20:.0f} MiB"
        lines.append(f"| {label} | {size} | {' | '.join(cells)} | {row['times_as_fast']:.2f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
