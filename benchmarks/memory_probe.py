"""The program that `benchmarks.memory_gpu` starts for a case: real steps, freely and on smaller cards, in one process.

A process costs seconds, a few steps less, so all runs of a case share one. Between two runs everything is freed and the cap
changes; each run builds its own state. What the runs share is what the first has learned about kernels: cuDNN's and Triton's
choices. cuDNN drops a remembered choice whose workspace does not fit any more and looks for another, as it does in a new
process; `benchmarks.memory_gpu` also starts some cases anew with the cap, to hold against these.

A cap is what another process leaves free (`benchmarks.memory_ballast`) beside the context of this one, so a card is played with
its size less the context that this process was measured to take.
"""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch

from attfc_planner.calibrate.step_probe import measure
from attfc_planner.gpu.fingerprint import foreign_bytes
from attfc_train.profile.profile import TrainProfile
from attfc_train.run.device_memory import memory_use
from attfc_train.run.out_of_memory import is_out_of_memory, reason
from attfc_train.units import Bytes
from benchmarks.memory_ballast import NoRoom, free_limited_to

FREE_STEPS = 1
CAPPED_STEPS = 0
"""Timed steps, beside the two that are not: momentum is there from the second on."""

Kind = Literal["prediction", "bare", "card", "cold"]


@dataclass(frozen=True)
class Job:
    """The runs that a process is to make; bytes are those of the prediction."""

    profile: dict[str, Any]
    need: Bytes
    """The smallest card that is predicted to do: everything but other processes."""
    context: Bytes
    """The predicted context; counts where the driver does not tell the real one."""
    headroom: Bytes
    cards: Sequence[Bytes]
    """Cards to play."""
    free: bool = True
    """Whether to run without a cap first."""
    cold: bool = False
    """Whether to make only the run capped at the prediction, in this new process."""


@dataclass(frozen=True)
class Steps:
    """The outcome of one run."""

    outcome: Literal["lived", "died", "failed", "unplayed"]
    """``failed``: by another error than memory's; ``unplayed``: this device has no room to play so large a card."""
    reason: str = ""
    retries: int = 0
    """Times that the allocator gave its cache back to go on."""
    left_over: Bytes = 0
    """Bytes that were allocated before the run began: the former run did not free them."""
    measured: dict[str, Any] | None = None


@dataclass(frozen=True)
class Capped:
    """A run with a cap, and the prediction about it."""

    kind: Kind
    """``prediction``: all that is predicted but context and others; ``bare``: without headroom too; ``card``: a played card;
    ``cold``: ``prediction`` in a process of its own."""
    capacity_bytes: Bytes
    """Capacity of the allocator."""
    card_bytes: Bytes | None
    predicted_to_fit: bool | None
    """Whether it was predicted to fit; None: nothing was promised."""
    outcome: str
    reason: str
    retries: int
    left_over: Bytes


Run = Callable[[Bytes | None, int], Steps]
"""Capacity (None: no cap) and timed steps -> the outcome."""


def probe(job: Job, run: Run, context: Bytes | None = None) -> dict[str, Any]:
    """Make all runs of a job.

    Args:
        context: this process's before its first step; None: the predicted one. It counts for the cold run, in which it grows.

    Returns:
        ``free``: a `Steps` or None; ``capped``: a list of `Capped`.
    """
    if job.cold:
        room = job.need - (job.context if context is None else context)
        return {"free": None, "capped": _told([_capped(run, "cold", room, None, True)] if job.free else [])}
    free = run(None, FREE_STEPS) if job.free else None
    context = (free.measured or {}).get("context_bytes") if free else None
    room = job.need - job.context
    capped = []
    if job.free:  # on a smaller device nobody said that it would live
        capped = [_capped(run, "prediction", room, None, True), _capped(run, "bare", room - job.headroom, None, None)]
    capped += _played(job, job.context if context is None else context, run)
    return {"free": asdict(free) if free else None, "capped": _told(capped)}


def _told(runs: Sequence[Capped]) -> list[dict[str, Any]]:
    return [asdict(run) for run in runs if run.outcome != "unplayed"]


def _played(job: Job, context: Bytes, run: Run) -> list[Capped]:
    """Play cards from the first that is predicted to do upwards to one that does, and from the next smaller one downwards
    to one that does not: the outcomes of larger and smaller ones follow."""
    runs: list[Capped] = []
    for fit in (True, False):
        for card in sorted((card for card in job.cards if (card >= job.need) == fit and card > context), reverse=not fit):
            runs.append(_capped(run, "card", card - context, card, fit))
            if (runs[-1].outcome == "lived") == fit:
                break
    return runs


def _capped(run: Run, kind: Kind, capacity: Bytes, card: Bytes | None, fit: bool | None) -> Capped:
    steps = run(capacity, CAPPED_STEPS)
    return Capped(kind, capacity, card, fit, steps.outcome, steps.reason, steps.retries, steps.left_over)


def steps_on(profile: TrainProfile, device: torch.device) -> Run:
    """Make real steps on this device; after each run the cap is off and the memory free."""

    def run(capacity: Bytes | None, steps: int) -> Steps:
        left_over = memory_use(device).current if device.type == "cuda" else 0
        retries = _retries(device)
        try:
            with free_limited_to(capacity if device.type == "cuda" else None):
                measured = measure(profile, device, steps=steps, evaluate=True)
            return Steps("lived", "", _retries(device) - retries, left_over, measured)
        except NoRoom as error:
            return Steps("unplayed", str(error))
        except RuntimeError as error:
            full = is_out_of_memory(error)
            return Steps("died" if full else "failed", reason(error)[:300], _retries(device) - retries, left_over)
        finally:
            _free_everything(device)

    return run


def _retries(device: torch.device) -> int:
    return int(torch.cuda.memory_stats(device).get("num_alloc_retries", 0)) if device.type == "cuda" else 0


def _free_everything(device: torch.device) -> None:
    gc.collect()  # autograd's cycles
    if device.type == "cuda":
        torch._C._cuda_clearCublasWorkspaces()
        torch.cuda.empty_cache()


def _bare_context() -> Bytes | None:
    """Make this process's context and return its bytes; None where the driver does not tell."""
    before = foreign_bytes("cuda")
    torch.cuda.mem_get_info()
    after = foreign_bytes("cuda")
    return None if before is None or after is None else max(0, after - before)


def main() -> None:
    """Read a job from stdin when everything is imported, and print its results."""
    job = Job(**json.loads(sys.stdin.readline()))
    profile = TrainProfile.model_validate(job.profile)
    context = _bare_context() if job.cold else None  # else the free run finds it
    print(json.dumps(probe(job, steps_on(profile, torch.device("cuda")), context)))


if __name__ == "__main__":
    main()
