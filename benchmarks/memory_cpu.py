"""The memory matrix on a CPU: the fake trace beside real allocations of the step, the prediction beside the process's peak."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from attfc_planner.calibrate.real_steps import run_real_steps
from attfc_planner.gpu.profile import GpuProfile
from attfc_planner.memory.model import MemoryModel, peak_of
from attfc_planner.trace.evaluation import evaluation_structure
from attfc_planner.trace.history import Trace
from attfc_planner.trace.record import record, record_evaluation
from attfc_train.profile.profile import TrainProfile
from attfc_train.units import Bytes
from benchmarks.memory_cases import Case

CPU = torch.device("cpu")
NO_BUDGET = 2**60


class CpuMatrix:
    """Measures cases on this machine's CPU.

    Args:
        gpu: the CPU's profile.
    """

    def __init__(self, gpu: GpuProfile) -> None:
        self.gpu = gpu

    def prepare(self, cases: list[Case]) -> None:
        """Do nothing: each case is traced when its turn comes."""

    def close(self) -> None:
        """Do nothing: nothing was left open."""

    def measure(self, case: Case, seconds_left: float) -> dict[str, Any]:
        """Return ``predicted`` and ``measured`` of the case's line."""
        profile = case.profile(self.gpu)
        allocations = compare_allocations(profile)
        prediction = MemoryModel(profile, self.gpu, NO_BUDGET).exact(profile)
        real = run_real_steps(profile, "cpu", steps=1, timeout=seconds_left)
        predicted = {
            **allocations["predicted"],
            "process_bytes": prediction.without("data", "foreign", "headroom"),  # the steps run on a batch at hand
            "total_bytes": prediction.without("data", "foreign"),
        }
        measured = {
            **allocations["measured"],
            "outcome": real.outcome,
            "reason": real.reason,
            "process_bytes": real.process_bytes,
            "context_bytes": real.context_bytes,
        }
        return {"predicted": predicted, "measured": measured}


def compare_allocations(profile: TrainProfile) -> dict[str, dict[str, Any]]:
    """Record two steps and an evaluation of two batches, once with fake tensors and once for real."""
    fake, real = (_history(profile, device) for device in (None, CPU))
    expected = _tensors(fake)
    sizes = _tensors(real)
    return {
        "predicted": {"allocated_bytes": _peak(fake, expected), "events": len(fake.events)},
        "measured": {
            "allocated_bytes": _peak(real, sizes),
            "events": len(real.events),
            "same_storages": fake.ops == real.ops and np.array_equal(expected, sizes),
            "same_order": fake.events == real.events,
        },
    }


def _history(profile: TrainProfile, device: torch.device | None) -> Trace:
    evaluation = record_evaluation(evaluation_structure(profile), [profile.optim.micro_batch_size], device)[0]
    return record(profile, [profile, profile], device).followed_by(evaluation)


def _tensors(trace: Trace) -> NDArray[np.int64]:
    """Return the sizes of the storages, without those that stand for a convolution's workspace."""
    return np.where(np.array(trace.categories) == "convolution workspace", 0, trace.nbytes)


def _peak(trace: Trace, sizes: NDArray[np.int64]) -> Bytes:
    return sum(peak_of(trace, sizes).alive.values())
