"""The host's memory that it takes to save a head and to load it again: a process of its own, whose peak is nobody else's.

    python -m benchmarks.capacity_saved "full FC, int8, no momentum" --ids 1000000 --dim 64 --device cpu

`benchmarks.capacity_standin` runs it on a card that is not there. It prints JSON. What the system keeps of the file is not
counted: it takes that back when it needs the room.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import torch

from attfc_train.data.batch import Batch
from attfc_train.optim.precision import prepare_device
from attfc_train.run.checkpoint import FILE_NAME, Checkpoints, load_last
from attfc_train.run.device_memory import memory_use
from attfc_train.run.segments import claim_segments
from attfc_train.step.build import build
from attfc_train.step.step import train_step
from attfc_train.units import Bytes
from benchmarks.capacity_run import HEADS, STEPS, profile_of

_CPU = torch.device("cpu")
_RESET = "5"
"""Of ``/proc/self/clear_refs``: the peak of the resident set begins anew."""


def measured(name: str, num_ids: int, dim: int, device: torch.device, folder: Path) -> dict[str, Any]:
    """Return bytes of a head's checkpoint, and how much the process grew for a moment while it was saved and loaded.

    Raises:
        AssertionError: what was loaded is not as long as the head.
    """
    profile = profile_of(HEADS[name], num_ids, dim)
    claim_segments(device)
    prepare_device(device, profile.run.precision)
    state = build(profile, device)
    batch = Batch.random(profile, device)
    for _ in range(STEPS):
        train_step(state, batch)
    Checkpoints(folder / "first", keep=1).save(_small(device), None)  # libraries are there before the peak is read
    before = _forget()
    Checkpoints(folder, keep=1).save(state, None)
    saving = _grown(before)
    before = _forget()
    loaded = load_last(folder, print).state["head"]
    loading = _grown(before)
    own = state.head.state_dict()
    shapes = {key: value.shape for key, value in own.items() if isinstance(value, torch.Tensor)}
    assert shapes == {key: loaded[key].shape for key in shapes}
    found = (folder / FILE_NAME).stat()
    return {
        "checkpoint_bytes": found.st_size,
        "checkpoint_disk_bytes": found.st_blocks * 512,
        "saving_host_bytes": saving,
        "loading_host_bytes": loading,
    }


def _small(device: torch.device) -> Any:
    return build(profile_of(next(iter(HEADS.values())), 100, 32), device)


def _grown(before: Bytes) -> Bytes:
    """Return by how much the peak lies above `before`; the system counts in steps, so that it may lie below."""
    return max(0, memory_use(_CPU).peak - before)


def _forget() -> Bytes:
    """Let the peak of the resident set begin anew; return it."""
    Path("/proc/self/clear_refs").write_text(_RESET)
    return memory_use(_CPU).peak


def main() -> None:
    """Run the program from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("head", choices=list(HEADS))
    parser.add_argument("--ids", type=int, required=True)
    parser.add_argument("--dim", type=int, required=True)
    parser.add_argument("--device", choices=("cpu", "cuda"), required=True)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        row = measured(options.head, options.ids, options.dim, torch.device(options.device), Path(folder))
    print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
