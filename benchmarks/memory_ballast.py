"""A GPU that plays a smaller one: another process holds so much of it that only the smaller card's memory is free.

A cap by `torch.cuda.set_per_process_memory_fraction` is none: PyTorch holds the whole of a request against it, also where an
expandable segment would grow by a part, and 10 of 100 verdicts about the real allocator were others. What another process
holds, the driver itself refuses. That process ends when its input is closed, and so with the one that it plays for.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from attfc_train.processes import command
from attfc_train.units import MIB, Bytes

PAGE = 2 * MIB
"""Bytes in which the driver hands memory out."""


class NoRoom(Exception):
    """The card is too full for a ballast: the ballast's own context takes more than should be left out."""


@contextmanager
def free_limited_to(room: Bytes | None) -> Iterator[None]:
    """Leave `room` bytes of the GPU free for this process beside its context, to less than `PAGE`; None: all that is free.

    Raises:
        NoRoom: less than that is free, or too little beside it.
    """
    if room is None:
        yield
        return
    torch.cuda.mem_get_info()  # makes the context
    pipe = subprocess.PIPE
    environment = {**os.environ, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}  # the driver's pages, not the allocator's larger ones
    child = subprocess.Popen(
        command("benchmarks.memory_ballast", str(room)), stdin=pipe, stdout=pipe, text=True, env=environment
    )
    assert child.stdout is not None
    try:
        said = child.stdout.readline().strip()
        if said != "held":
            raise NoRoom(said or "the ballast ended at once")
        yield
    finally:
        child.communicate()  # closes its input


def ballast_bytes(free: Bytes, room: Bytes) -> Bytes:
    """Return the bytes, whole pages, that leave `room` of `free` ones; less than 0 where there are not as many."""
    return (free - room) // PAGE * PAGE


def main() -> None:
    """Hold all of the GPU but so many bytes, say ``held``, and wait for the end of the input."""
    room = int(sys.argv[1])
    free = torch.cuda.mem_get_info()[0]
    size = ballast_bytes(free, room)
    if size < 0:
        print(f"{free} bytes free beside the ballast's context, {room} wanted", flush=True)
        return
    held = torch.empty(size, dtype=torch.uint8, device="cuda")
    print("held", flush=True)
    sys.stdin.read()
    del held


if __name__ == "__main__":
    main()
