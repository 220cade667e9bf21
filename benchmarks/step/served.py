"""One way of the step in a process of its own, a step whenever it is asked for one."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any, Final

import torch

from attfc_train.run.device_memory import memory_use
from benchmarks.step.sides import Case, Step

_CPU: Final = torch.device("cpu")


@contextmanager
def served(way: Callable[[Case], Step], case: Case, threads: int) -> Iterator[Connection[Any, Any]]:
    """Start one way, a function that other processes can import, in a process of its own, which ends with the context."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    child = context.Process(target=_serve, args=(way, case, threads, there), daemon=True)
    child.start()
    there.close()  # so that a child that died ends the pipe
    try:
        yield here
    finally:
        child.kill()
        child.join()


def _serve(way: Callable[[Case], Step], case: Case, threads: int, pipe: Connection[Any, Any]) -> None:
    """Make a step whenever asked; answer with its seconds, and at the end with the bytes that steps added to the peak."""
    torch.set_num_threads(threads)
    way(Case("tiny", 32, 2, 60))()  # libraries and threads are there before the baseline is read
    before = memory_use(_CPU).current
    step = way(case)
    pipe.send(float(step()))
    while pipe.recv():
        since = time.perf_counter()
        step()
        pipe.send(time.perf_counter() - since)
    pipe.send(memory_use(_CPU).peak - before)


def ended(side: Connection[Any, Any]) -> int:
    """End one way; return the bytes that its steps added to the peak."""
    side.send(False)
    return int(side.recv())
