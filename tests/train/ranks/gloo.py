"""Functions that run in several processes which exchange tensors by gloo, and never hang.

The processes are forked from a server that has torch loaded already: two take a tenth of a second to start.
"""

from __future__ import annotations

import io
import multiprocessing
import os
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

MOST_SECONDS = 90
"""Far more than any test takes, on a machine that is busy with others."""


def in_processes(size: int, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """Return what `function(ranks, *arguments)` returns in each of `size` processes, by rank; it must pickle.

    Fails with the first traceback of a process, or where they take too long; no process outlives the call.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.train.ranks.gloo_child"])
    from tests.train.ranks.gloo_child import child  # which imports this module

    with tempfile.TemporaryDirectory() as folder:
        store = str(Path(folder) / "store")
        queue = context.Queue()
        work = dumped((function, arguments))  # as bytes: torch would share the memory of tensors, and of who has left
        children = [context.Process(target=child, args=(queue, store, rank, size, work), daemon=True) for rank in range(size)]
        try:
            for process in children:
                process.start()
            results = dict(loaded(queue.get(timeout=MOST_SECONDS)) for _ in children)
        finally:
            for process in children:
                process.kill()
                process.join()
    failures = [result for result in results.values() if isinstance(result, Failure)]
    if failures:
        pytest.fail("\n".join(str(failure) for failure in failures), pytrace=False)
    return [results[rank] for rank in range(size)]


def dumped(value: Any) -> bytes:
    """The bytes of anything with tensors of any type."""
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def loaded(content: bytes) -> Any:
    return torch.load(io.BytesIO(content), weights_only=False)


class Failure(str):
    """The traceback of a process."""

    @staticmethod
    def of_now() -> Failure:
        return Failure(f"process {os.getpid()}:\n{traceback.format_exc()}")
