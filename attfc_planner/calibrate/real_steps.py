"""Real train steps of a profile on the device that is here, each time in a new process: what they take of memory and time.

A process of its own has a clean context and allocator, its peak is nobody else's, and it may die: running out of memory, or out
of time, is a result and no error. The program that it runs is `attfc_planner.calibrate.step_probe`.
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from attfc_train.cuda_environment import prepare
from attfc_train.errors import DeviceMemoryError
from attfc_train.processes import command
from attfc_train.profile.profile import TrainProfile
from attfc_train.units import Bytes

Outcome = Literal["ran", "out of memory", "out of time", "failed"]


@dataclass(frozen=True)
class RealSteps:
    """The result of a run; figures are None where it ended early or the device does not tell."""

    outcome: Outcome
    reason: str = ""
    """The last line of the process's errors where it did not run to the end."""
    seconds: tuple[float, ...] = ()
    """Of each timed step; the first two steps are not timed."""
    allocated_bytes: Bytes | None = None
    """CUDA: peak of the blocks that tensors lay in."""
    reserved_bytes: Bytes | None = None
    """CUDA: peak of what the allocator held."""
    context_bytes: Bytes | None = None
    """CUDA: device memory beside the allocator's that came with this process. CPU: the process before the first tensor."""
    process_bytes: Bytes | None = None
    """All that this process took of the device at its peak; CPU: the resident set's."""

    @property
    def step_seconds(self) -> float | None:
        """Return the median step's time."""
        return statistics.median(self.seconds) if self.seconds else None


def run_real_steps(
    profile: TrainProfile,
    kind: Literal["cuda", "cpu"],
    *,
    steps: int = 6,
    evaluate: bool = True,
    timeout: float = 300,
    environment: Mapping[str, str] | None = None,
) -> RealSteps:
    """Run `steps` + 2 train steps on random images, and then an evaluation of two batches and another step.

    Args:
        profile: resolved.
        kind: the device of this machine.
        evaluate: whether the evaluation runs too.
        timeout: seconds after which the process is killed.
        environment: variables of the process beside this one's.
    """
    options = ["--device", kind, "--steps", str(steps)]
    options += [] if evaluate else ["--no-evaluation"]
    variables = {**os.environ, **(environment or {})}
    prepare(variables)
    try:
        child = subprocess.run(
            command("attfc_planner.calibrate.step_probe", *options),
            input=profile.model_dump_json(),
            capture_output=True,
            text=True,
            env=variables,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return RealSteps("out of time", f"no end after {timeout:.0f} s")
    return _result(child)


def _result(child: subprocess.CompletedProcess[str]) -> RealSteps:
    if child.returncode == 0:
        document: dict[str, Any] = json.loads(child.stdout.splitlines()[-1])
        return RealSteps("ran", **{**document, "seconds": tuple(document["seconds"])})
    said = (child.stderr.strip().splitlines() or [f"exit code {child.returncode}"])[-1][:300]
    if child.returncode == DeviceMemoryError.exit_code or child.returncode == -signal.SIGKILL:  # by the kernel, on a CPU
        return RealSteps("out of memory", said)
    return RealSteps("failed", said)
