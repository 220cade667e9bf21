"""One of several processes, traced alone: what it allocates for its exchanges is the trainer's own code; nothing is sent.

The process is the last of all, which holds the most rows (`attfc_train.ranks.shard`). What it would have sent is told, so that
a step's bytes on the links are counted where its bytes of memory are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from attfc_train.ranks.group import ProcessRanks
from attfc_train.ranks.ranks import ALONE, Ranks
from attfc_train.timing.op_cost import BESIDE

Tell = Callable[[str, int], None]
"""Takes the name of an exchange, and the bytes of its whole buffer: of the sum, or of the rows of all processes."""


def silent(name: str, num_bytes: int) -> None:
    """Tell nobody."""
    del name, num_bytes


@dataclass(frozen=True, slots=True)
class TracedRanks(ProcessRanks):
    """A process of a run on GPUs whose other processes are not there.

    Args:
        tell: is called at every exchange.
    """

    tell: Tell = silent

    def on(self, device: torch.device) -> Ranks:
        """See `Ranks.on`."""
        del device
        return self

    def all_ready(self) -> None:
        """See `Ranks.all_ready`."""

    def _add_up(self, values: Tensor) -> None:
        self.tell("all_reduce", values.nbytes)

    def begin_sum(self, values: Tensor) -> Callable[[], object]:
        """See `Ranks.begin_sum`."""
        self.tell(BESIDE, values.nbytes)
        return lambda: None

    def _maximise(self, values: Tensor) -> None:
        self.tell("all_reduce", values.nbytes)

    def _gather(self, parts: Tensor, own: Tensor) -> None:
        del own
        self.tell("all_gather", parts.nbytes)

    def _share_of_sum(self, by_rank: Tensor) -> Tensor:
        self.tell("reduce_scatter", by_rank.nbytes)
        return torch.empty_like(by_rank[0])


def traced_ranks(size: int, tell: Tell) -> Ranks:
    """Return the process to trace of so many; one alone exchanges nothing."""
    return ALONE if size == 1 else TracedRanks(size - 1, size, tell=tell)
