"""Gradients of several processes, which are added up while the backward pass computes further ones.

A backward pass comes to the first layers last, so gradients appear in about the reverse order of the parameters. They are
collected in that order; a full bucket is on the links while the next one is computed, and a step waits for the last. Every
process sends its buckets in the same order, whatever the order in which its own become full.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from attfc_train.ranks.ranks import Ranks, buckets

BUCKET_BYTES = 25 * 2**20
"""Of gradients that are sent together: enough for a link's full speed, and few, because nothing hides the last bucket."""


class GradientSums:
    """Replaces the gradients of parameters by their sums over all processes.

    Args:
        parameters: leaves that every step gives a gradient, the same on all processes.
    """

    def __init__(self, ranks: Ranks, parameters: Sequence[Tensor]) -> None:
        self._ranks = ranks
        self._buckets = [] if ranks.is_alone else list(buckets(reversed(parameters), BUCKET_BYTES))
        self._missing: list[int] = []
        """Gradients of each bucket that the backward pass under way has not computed yet; empty between two steps."""
        self._under_way: list[Callable[[], object]] = []
        """What waits for the sums that have begun, of the first buckets."""
        for number, bucket in enumerate(self._buckets):
            for parameter in bucket:
                parameter.register_post_accumulate_grad_hook(partial(self._arrived, number))

    def begin(self) -> None:
        """Take the gradients of the next backward pass as complete: to be called before the step's last one."""
        self._missing = [len(bucket) for bucket in self._buckets]
        self._under_way = []

    def finish(self) -> None:
        """Wait until all gradients are sums."""
        assert len(self._under_way) == len(self._buckets), "a trained parameter took no part in the forward pass"
        for wait in self._under_way:
            wait()
        self.forget()

    def forget(self) -> None:
        """Forget a step that failed, or has ended."""
        self._missing = []
        self._under_way = []

    def _arrived(self, number: int, parameter: Tensor) -> None:
        """Take note of a complete gradient, and begin the sums whose turn it is."""
        del parameter
        if not self._missing:  # a part of the step that others follow
            return
        self._missing[number] -= 1
        while (turn := len(self._under_way)) < len(self._buckets) and self._missing[turn] == 0:
            self._under_way.append(self._begin_sum(self._buckets[turn]))

    @torch.no_grad()
    def _begin_sum(self, bucket: Sequence[Tensor]) -> Callable[[], object]:
        """Move a bucket's gradients into one tensor, which takes their place and becomes their sum."""
        gradients = [parameter.grad for parameter in bucket if parameter.grad is not None]
        flat = torch.cat([_in_memory_order(gradient) for gradient in gradients])
        parts = flat.split([gradient.numel() for gradient in gradients])
        for parameter, gradient, part in zip(bucket, gradients, parts, strict=True):
            parameter.grad = part.as_strided(gradient.shape, gradient.stride())
        return self._ranks.begin_sum(flat)


def _in_memory_order(gradient: Tensor) -> Tensor:
    """Return the numbers [n] of a gradient as they lie: filters may be in the channels-last order, on all processes alike."""
    return gradient.as_strided((gradient.numel(),), (1,))
