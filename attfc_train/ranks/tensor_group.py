"""The group of processes that exchanges tensors, which a step that failed on one of them gives up and makes anew.

Whoever runs out of memory in the midst of a step leaves the others in an exchange that never ends. Between CPUs they notice
when it closes its connections, which giving up the group does. Between GPUs nobody notices: NCCL's kernels wait for ever, until
each process aborts its own (`abort`, from any thread).
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from datetime import timedelta

import torch.distributed as dist

EXCHANGE_TIMEOUT = timedelta(days=7)
"""An exchange is not what finds a process that is gone (`attfc_train.ranks.watch`); one may wait for data for hours."""


@dataclass(slots=True)
class TensorGroup:
    """A group of all processes; each of them makes, drops and renews it together with the others.

    Args:
        backend: ``gloo`` or ``nccl``. None: the default group, which stays.
    """

    backend: str | None = None
    _group: dist.ProcessGroup | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.renew()

    @property
    def group(self) -> dist.ProcessGroup | None:
        """The group to exchange in; None is torch's name for the default one."""
        assert self.backend is None or self._group is not None, "an exchange in a group that was dropped"
        return self._group

    def abort(self) -> None:
        """End the exchanges under way between GPUs; from any thread, and as often as one likes."""
        group = self._group
        if self.backend == "nccl" and group is not None:
            with contextlib.suppress(RuntimeError):  # another thread was faster
                group.abort()

    def drop(self) -> None:
        """Give up the exchanges under way, so that the other processes need not wait for this one."""
        self.abort()
        if self._group is not None:
            # An aborted group may say that it was. Where gloo's cannot be given up, the others would wait for ever.
            with contextlib.suppress(RuntimeError) if self.backend == "nccl" else contextlib.nullcontext():
                dist.destroy_process_group(self._group)
        self._group = None  # the last reference: now its connections close

    def renew(self) -> None:
        """Make the group anew; all processes must call it, after all have dropped it."""
        if self.backend is not None:
            self._group = dist.new_group(backend=self.backend, timeout=EXCHANGE_TIMEOUT)
