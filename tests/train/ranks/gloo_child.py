"""The other end of `tests.train.ranks.gloo`: what a forked process does."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

import attfc_train.step.step  # noqa: F401  # loaded once, before the processes are forked
from attfc_train.ranks.group import ProcessRanks
from tests.train.ranks.gloo import Failure, dumped, loaded


def child(queue: Any, store: str, rank: int, size: int, work: bytes) -> None:
    """Join the others, call the function, and hand its result to the test."""
    torch.set_num_threads(1)
    try:
        timeout = timedelta(seconds=60)
        dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=size, timeout=timeout)
        function, arguments = loaded(work)
        result = function(ProcessRanks(rank, size), *arguments)
    except BaseException:
        result = Failure.of_now()
    queue.put(dumped((rank, result)))
    queue.close()
    queue.join_thread()
