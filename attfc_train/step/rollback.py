"""Copies of the small tensors that a train step changes before its commit: a step that ran out of memory begins again there.

A step changes four kinds of things, and each is undone in its own way:

* Weights, momentum buffers and the container change only in the commit, which allocates nothing: it cannot fail.
* The class encoder moves first of all, and allocates nothing. It is not undone: a repeated step leaves it where it is.
* Gradients, and what a head keeps of a step, are freed (`TrainState.undo_step`).
* BatchNorm's running statistics and the loss scale change in every micro-batch and in the update. They are some hundred KiB,
  and are copied at the beginning of every step: these are the tensors of this module.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from attfc_train.optim.torch_internals import foreach_copy_


class StepStart:
    """Copies of some small tensors, and what stage the step under way has reached.

    The stages: nothing kept (between two steps), `is_kept` (the step can go back), `is_committing` (it cannot).

    Args:
        tensors: contiguous, without gradient, changed in place only; of any dtypes, on one device.
    """

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        live: dict[torch.dtype, list[Tensor]] = {}
        for tensor in tensors:
            live.setdefault(tensor.dtype, []).append(tensor.view(-1))
        self._live = list(live.values())
        # One storage a dtype: the allocator would round up each of hundreds of small ones, and each would be copied by itself.
        self._kept = [torch.cat(views) for views in self._live]
        self.is_kept = False
        """Whether a step is under way that can go back to its start; its class encoder has moved."""
        self.is_committing = False
        """Whether a step is changing weights and container, and cannot go back."""

    @property
    def num_bytes(self) -> int:
        """Bytes of the copies."""
        return sum(kept.nbytes for kept in self._kept)

    @torch.no_grad()
    def keep(self) -> None:
        """Copy the tensors; allocates nothing."""
        for views, kept in zip(self._live, self._kept, strict=True):
            torch.cat(views, out=kept)
        self.is_kept = True

    @torch.no_grad()
    def go_back(self) -> None:
        """Restore the tensors, where they are kept; allocates nothing.

        The copies stay: a repeated step that fails too goes back to the same start.
        """
        if not self.is_kept:  # the step failed before anything had changed
            return
        for views, kept in zip(self._live, self._kept, strict=True):
            foreach_copy_(views, list(kept.split([view.numel() for view in views])))

    def begin_commit(self) -> None:
        """Give up the way back: weights and container change now."""
        self.is_kept = False
        self.is_committing = True

    def end_commit(self) -> None:
        """End the step."""
        self.is_committing = False
