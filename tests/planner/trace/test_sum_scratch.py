"""Channels-last encoders in a plan: their step is the real one, and a GPU's scratch for sums is counted, a CPU has none."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from attfc_planner.memory.model import MemoryModel
from attfc_planner.trace.history import Trace
from attfc_planner.trace.record import record
from attfc_planner.trace.sum_scratch import sum_scratch
from attfc_train.profile.profile import TrainProfile
from tests.planner.trace.profiles import device, small_profile

CPU = torch.device("cpu")
SUM = torch.ops.aten.sum.dim_IntList


def profile_of(backbone: str, checkpointing: bool = False, channels_last: bool = True) -> TrainProfile:
    profile = small_profile({"kind": "full_fc"}, backbone=backbone, batch_size=4, checkpointing=checkpointing, image_size=32)
    return profile.model_copy(update={"model": profile.model.model_copy(update={"channels_last": channels_last})})


def without_scratch(trace: Trace) -> tuple[list[str], list[int]]:
    kept = [place for place, op in enumerate(trace.ops) if op != "sum" or trace.categories[place] != "convolution workspace"]
    return [trace.ops[place] for place in kept], [int(trace.nbytes[place]) for place in kept]


@pytest.mark.parametrize("backbone", ["tiny", "mbf", "r18", "shufflemixfacenet_xs", "vargfacenet"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_fake_step_is_the_real_step(backbone: str, checkpointing: bool) -> None:
    """Catches a copy that only a kernel makes, because a layer turned its images back."""
    profile = profile_of(backbone, checkpointing)
    fake, real = record(profile, [profile]), record(profile, [profile], CPU)
    assert without_scratch(fake) == without_scratch(real)


def test_scratch_is_that_of_a_sum_over_channels_that_lie_side_by_side() -> None:
    apart = torch.empty(8, 256, 7, 7)
    last = apart.contiguous(memory_format=torch.channels_last)
    # 256 outputs in two blocks' width: half as many blocks for each, so as much as for 128.
    half = last[:, :128].contiguous(memory_format=torch.channels_last)
    assert sum_scratch(SUM, (last, [0, 2, 3])) == sum_scratch(SUM, (half, [0, 2, 3]))
    assert 90 * 2**20 < sum_scratch(SUM, (last, [0, 2, 3])) < 160 * 2**20
    assert [sum_scratch(SUM, each) for each in ((apart, [0, 2, 3]), (last, [1]), (last.flatten(1), [0]))] == [0, 0, 0]
    assert sum_scratch(SUM, (last, [-1, -2])) == sum_scratch(SUM, (half, [0, 2, 3]))
    assert sum_scratch(SUM, (last, None)) == 0
    assert sum_scratch(torch.ops.aten.add.Tensor, (last, last)) == 0


def test_a_gpu_has_the_scratch_and_a_cpu_does_not(tmp_path: Path) -> None:
    apart, last = profile_of("r18", channels_last=False), profile_of("r18")
    for kind, grows in (("cuda", True), ("cpu", False)):
        model = MemoryModel(last, device(kind), 1 << 34, tmp_path)
        peaks = [model.exact(profile).total_bytes for profile in (apart, last)]
        assert (peaks[1] > peaks[0] + 50 * 2**20) == grows, peaks
        assert model.estimate(last).terms == model.exact(last).terms
