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


def shared_profile(profile: TrainProfile, ranks: Ranks) -> TrainProfile:
    """Return a resolved profile as several processes train it: without the prediction, which was made for one.

    Raises:
        ProfileError: its head cannot be shared, or has fewer rows than there are processes; or its batch has no equal shares.
    """
    if ranks.size == 1:
        return profile
    head = profile.head
    optim = profile.optim
    processes = f"{ranks.size} processes"
    if not head.is_shared:
        got = f"head '{head.kind}' and {processes}"
        raise ProfileError("several processes need a head whose centers they can share", got, "Start one process.")
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
    return profile.model_copy(update={"prediction": None})


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
