"""Where a train step that ran out of memory begins again: copies of the few small tensors that it changes before it commits.

A step changes three kinds of things. What is large (weights, momentum buffers, the container) changes only in its commit at
the end, which allocates nothing. The class encoder moves once, before everything else, and allocates nothing either. What
is left are BatchNorm's running statistics and the loss scale: some hundred KiB, copied at the beginning of every step.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from attfc_train.optim.torch_internals import foreach_copy_


class StepStart:
    """Copies of some small tensors.

    Args:
        tensors: contiguous, without gradient, changed in place only; of any dtypes, on one device.
    """

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        live: dict[torch.dtype, list[Tensor]] = {}
        for tensor in tensors:
            live.setdefault(tensor.dtype, []).append(tensor.view(-1))
        self._live = list(live.values())
        # One storage a dtype: hundreds of small ones would each be rounded up, and copied one by one.
        self._kept = [torch.cat(views) for views in self._live]
        self.is_kept = False
        """Whether a step is under way that can go back to its start; then the class encoder has moved for it."""
        self.is_committing = False
        """Whether a step is under way that cannot: it is changing weights and container."""

    @property
    def num_bytes(self) -> int:
        """Of the copies."""
        return sum(kept.nbytes for kept in self._kept)

    @torch.no_grad()
    def keep(self) -> None:
        """Copies the tensors; allocates nothing."""
        for views, kept in zip(self._live, self._kept, strict=True):
            torch.cat(views, out=kept)
        self.is_kept = True

    @torch.no_grad()
    def go_back(self) -> None:
        """Makes the tensors what they were when they were kept, if they were; allocates nothing."""
        if not self.is_kept:
            return
        for views, kept in zip(self._live, self._kept, strict=True):
            foreach_copy_(views, list(kept.split([view.numel() for view in views])))

    def begin_commit(self) -> None:
        """There is no way back any more."""
        self.is_kept, self.is_committing = False, True

    def end_commit(self) -> None:
        """The step is done."""
        self.is_committing = False
