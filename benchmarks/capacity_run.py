"""Real train steps with as many identities as fit: allocated, stepped, saved, restored, and stepped again to the same bits.

    python -m benchmarks.capacity_run                                             # 20 million identities, D = 128, on a CPU
    python -m benchmarks.capacity_run --ids 100000000 --dim 512 --device cuda     # on a card of 80 GB

A container with a slot for everybody and a learned layer, both in 8 bits, over the smallest network and random images: what is
tried is the head. Each is a process of its own, whose peak is nobody else's.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import torch

from attfc_train.data.batch import Batch
from attfc_train.heads.attfc.head import AttFCHead
from attfc_train.heads.attfc.settings import AttFCSettings
from attfc_train.heads.full_fc.settings import FullFCSettings
from attfc_train.heads.settings import HeadSettings
from attfc_train.profile.profile import ModelSettings, OptimSettings, RunSettings, TrainProfile
from attfc_train.run.checkpoint import Checkpoints, load_last
from attfc_train.run.device_memory import memory_use
from attfc_train.step.build import build
from attfc_train.step.state import TrainState
from attfc_train.step.step import train_step
from benchmarks.provenance import provenance, save

HEADS: Final[dict[str, HeadSettings]] = {
    "AttFC, a slot each, int8, slots learn": AttFCSettings(storage="int8", num_references=0, slot_rate=1.0),
    "full FC, int8, no momentum": FullFCSettings(storage="int8", momentum=False),
}
STEPS: Final = 2
"""Before the checkpoint, and after it."""
BATCH: Final = 32


def profile_of(head: HeadSettings, num_ids: int, dim: int) -> TrainProfile:
    """Return the profile of one case."""
    return TrainProfile(
        model=ModelSettings(backbone="tiny", image_size=32, embedding_size=dim),
        head=head,
        optim=OptimSettings(batch_size=BATCH),
        run=RunSettings(precision="fp32", steps=2 * STEPS + 1),
    ).resolve(num_ids, num_ids)


def measured(name: str, num_ids: int, dim: int, device: torch.device, folder: Path) -> dict[str, Any]:
    """Return bytes and seconds of one case.

    Raises:
        AssertionError: a loss is not finite, or a restored run does not go on bit for bit.
    """
    profile = profile_of(HEADS[name], num_ids, dim)
    build(profile_of(HEADS[name], 100, dim), device)  # libraries are there before the baseline is read
    before = memory_use(device).current
    state = build(profile, device)
    _fill(state)
    batch = Batch.random(profile, device)
    kept = sum(tensor.nbytes for tensor in (*state.head.parameters(), *state.head.buffers()))
    losses, seconds = _steps(state, batch)
    begin = time.perf_counter()
    Checkpoints(folder, keep=1).save(state, None)
    saved = time.perf_counter() - begin
    expected, _ = _steps(state, batch)
    peak = memory_use(device).peak - before
    del state
    size = sum(path.stat().st_size for path in folder.iterdir())
    restored = build(profile, device)
    load_last(folder, print).restore(restored)
    again, _ = _steps(restored, batch)
    assert again == expected, f"restored: {again}, not {expected}"
    assert all(loss == loss and abs(loss) < float("inf") for loss in (*losses, *expected)), losses
    return {
        "head": name,
        "identities": num_ids,
        "dim": dim,
        "batch": BATCH,
        "head_bytes": kept,
        "bytes_per_identity": kept / num_ids,
        "peak_bytes": peak,
        "step_seconds": seconds,
        "checkpoint_bytes": size,
        "save_seconds": saved,
        "losses": [*losses, *expected],
    }


def _fill(state: TrainState) -> None:
    """Let every identity hold a random center already, as after an epoch."""
    if isinstance(state.head, AttFCHead):
        container = state.head.container
        container.centers.randomise()
        torch.arange(len(container.slot_labels), out=container.slot_labels)
        container.last_update.zero_()


def _steps(state: TrainState, batch: Batch) -> tuple[list[float], float]:
    """Make `STEPS` steps; return their losses, and the seconds of the last."""
    losses = []
    seconds = 0.0
    for _ in range(STEPS):
        begin = time.perf_counter()
        losses.append(train_step(state, batch).loss.item())
        seconds = time.perf_counter() - begin
    return losses, seconds


def _serve(pipe: Any, name: str, num_ids: int, dim: int, device: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        pipe.send(measured(name, num_ids, dim, torch.device(device), Path(folder)))


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ids", type=int, default=20_000_000)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    options = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    rows = []
    for name in HEADS:
        here, there = context.Pipe()
        child = context.Process(target=_serve, args=(there, name, options.ids, options.dim, options.device))
        child.start()
        there.close()  # so that a child that died ends the pipe
        rows.append(here.recv())
        child.join()
        print(json.dumps(rows[-1], indent=1), flush=True)
    document = {"provenance": provenance(torch.device(options.device)), "rows": rows}
    print(save(f"capacity_run_{options.device}.json", json.dumps(document, indent=1) + "\n"))


if __name__ == "__main__":
    main()
