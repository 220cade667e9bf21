"""The simulated allocator against the real one: its own record of real train steps, replayed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from attfc_train.cuda_environment import PLANNED_ALLOCATOR
from tests.gpu.device_traces import recording_of, simulated_reserved
from tests.train.profiles import small_profile

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

# The allocator reads its setting once, and only a new process has reserved nothing yet.
SCRIPT = """
import json, sys, torch
from attfc_train.step.build import build
from attfc_train.data.batch import Batch
from attfc_train.evaluate.embed import embed_batches
from attfc_train.profile.profile import TrainProfile
from attfc_train.step.step import train_step
profile, cuda = TrainProfile.model_validate_json(sys.stdin.read()), torch.device("cuda")
torch.cuda.init()
torch.cuda.memory._record_memory_history(max_entries=1_000_000, context=None)
state, batch = build(profile, cuda), Batch.example(profile, cuda)
for _ in range(3):
    train_step(state, batch)
images = (torch.zeros_like(batch.query) for _ in range(2))
embed_batches(state.feature_encoder, images, cuda, profile.run.precision)
torch.cuda.synchronize()
trace = torch.cuda.memory._snapshot()["device_traces"][torch.cuda.current_device()]
print(json.dumps([{key: entry[key] for key in ("action", "addr", "size")} for entry in trace]))
"""


@pytest.mark.parametrize("setting", [PLANNED_ALLOCATOR, "expandable_segments:False"])
@pytest.mark.parametrize("head", ["identity-30%", "fifo", "partial_fc"])
def test_replay_of_the_real_history_reserves_the_same(head: str, setting: str) -> None:
    """Segment by segment: after every allocation and every free as many bytes are reserved as in the recording."""
    profile = small_profile(head, "bf16")
    environment = {**os.environ, "PYTORCH_ALLOC_CONF": setting, "PYTHONPATH": str(Path(__file__).parents[2])}
    environment.pop("PYTORCH_CUDA_ALLOC_CONF", None)
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT], input=profile.model_dump_json(), capture_output=True, text=True, env=environment
    )
    assert run.returncode == 0, run.stderr
    recording = recording_of(json.loads(run.stdout.splitlines()[-1]))
    assert len(recording.events) > 1000
    assert simulated_reserved(recording, expandable=setting == PLANNED_ALLOCATOR) == recording.reserved
