"""What several processes of one run must have alike, and who of them does what (docs/several-gpus.md).

Rank 0 holds the folder: it alone writes, evaluates and prints. The others read what is there once it is theirs to read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, TypeVar

from attfc_train.errors import ProfileError
from attfc_train.profile.profile import TrainProfile
from attfc_train.ranks.ranks import Ranks

if TYPE_CHECKING:
    import torch

_Value = TypeVar("_Value")

SHARED_HEADS = "several processes need a head whose centers they can share"
"""The rule that `HeadSettings.is_shared` tells."""


def shared_profile(profile: TrainProfile, ranks: Ranks) -> TrainProfile:
    """Return a resolved profile as so many processes train it: without a prediction that was made for another number.

    Raises:
        ProfileError: its head cannot be shared, or has fewer rows than there are processes; or its batch has no equal shares.
    """
    if ranks.size > 1:
        _check_shares(profile, ranks)
    if ranks.size == profile.run.gpus:
        return profile
    run = profile.run.model_copy(update={"gpus": ranks.size})
    return profile.model_copy(update={"run": run, "prediction": None})


def plan_words(profile: TrainProfile, ranks: Ranks) -> str | None:
    """Return how a plan's number of GPUs differs from that of the processes, in a line; None: it does not."""
    planned = profile.run.gpus
    if not profile.is_planned or planned == ranks.size:
        return None
    started = f"{ranks.size} process{'es' * (ranks.size > 1)}"
    command = f"torchrun --nproc-per-node {planned}" if planned > 1 else "attfc-train"
    return (
        f"The plan is for {planned} GPU{'s' * (planned > 1)} and {started} train: its memory and speed do not hold, and the "
        f"batch of {profile.optim.batch_size} is that of all together. {command} starts what was planned."
    )


def _check_shares(profile: TrainProfile, ranks: Ranks) -> None:
    """Check that several processes can share the head's rows and the batch."""
    head = profile.head
    optim = profile.optim
    processes = f"{ranks.size} processes"
    if not head.is_shared:
        raise ProfileError(SHARED_HEADS, f"head '{head.kind}' and {processes}", "Start one process.")
    rows = head.num_slots or profile.num_ids
    if rows < ranks.size:
        raise ProfileError(f"{processes} need at least as many centers to share", f"{rows}", "Start fewer processes.")
    shares = ranks.size * optim.accumulation
    if optim.batch_size % shares or optim.batch_size // shares < 2:
        raise ProfileError(
            f"optim.batch_size, of all {processes} together, must be equal parts of at least 2 for each process and each of "
            f"optim.accumulation = {optim.accumulation}",
            f"{optim.batch_size}",
            f"Use a multiple of {shares} from {2 * shares} on: --set optim.batch_size={2 * shares}.",
        )


@contextmanager
def held_by_first(
    ranks: Ranks, folder: AbstractContextManager[object], check: Callable[[], None] = lambda: None
) -> Iterator[None]:
    """Hold the run's folder on rank 0, and let the others go on once it is held and checked."""
    if not ranks.is_first:
        ranks.told(True)
        yield
        return
    with folder:
        check()
        ranks.told(True)
        yield


def in_turn(ranks: Ranks, make: Callable[[], _Value]) -> _Value:
    """Return what each process makes, the others once rank 0 is ready: what it kept on the disk need not be made again."""
    if not ranks.is_first:
        ranks.told(True)
        return make()
    made = make()
    ranks.told(True)
    return made


def device_words(ranks: Ranks, device: torch.device) -> str:
    """Return where a run trains, for its headline."""
    return str(device) if ranks.size == 1 else f"{ranks.size} processes ({device.type})"
