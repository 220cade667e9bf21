"""``attfc-train`` in several processes as torchrun starts them, forked from a server that has torch loaded already."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple

import torch

from tests.train.run.failing import FailingAllocation

MOST_SECONDS = 90


EVERY = -1


class Ended(NamedTuple):
    """How a process ended."""

    code: int
    """Below 0: the signal that killed it."""
    stderr: str


class Failing(NamedTuple):
    """What happens to a process before its fifth step."""

    rank: int
    """`EVERY`: all of them."""
    how: str
    """``kill``, ``stop`` (SIGTERM), ``memory``, ``memory then kill``, ``fault``; ``stop slowly``: rank 0 saves for longer than
    the watch waits; ``kill saving``, ``full disk``: in the midst of the first save."""
    phase: str | None = None
    """Of the step, in which an allocation fails; None: ``memory`` fails before it."""
    times: int = 99
    """The step fails."""
    place: int = 0
    """The allocation of the phase that fails."""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@contextmanager
def processes(size: int, folder: Path, arguments: Sequence[str], failing: Failing | None = None) -> Iterator[list[BaseProcess]]:
    """Start ``attfc-train ARGUMENTS``, on the CPU unless they say otherwise, in so many processes; none outlives the block."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.train.ranks.gloo_child"])
    port = free_port()
    given = [*arguments] if "--device" in arguments else [*arguments, "--device", "cpu"]
    children = [context.Process(target=_command, args=(rank, size, port, str(folder), given, failing)) for rank in range(size)]
    try:
        for child in children:
            child.start()
        yield list(children)
    finally:
        for child in children:
            child.kill()
            child.join()


def ended(children: list[BaseProcess], folder: Path) -> list[Ended]:
    """Wait for the processes of a block."""
    results = []
    for rank, child in enumerate(children):
        child.join(MOST_SECONDS)
        assert child.exitcode is not None, f"rank {rank} goes on"
        results.append(Ended(child.exitcode, (folder / f"stderr.{rank}").read_text()))
    return results


def _command(rank: int, size: int, port: int, folder: str, arguments: list[str], failing: Failing | None) -> None:
    """Be a process of torchrun's."""
    torch.set_num_threads(1)
    os.chdir(folder)
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in place.items()})
    for stream, path in ((2, f"stderr.{rank}"), (1, f"stdout.{rank}")):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
    sys.argv = ["attfc-train", *arguments]
    from attfc_train.cli import main
    from attfc_train.run import loop
    from attfc_train.step import gradient_sums

    step = loop.train_step
    failed = 0
    gradient_sums.BUCKET_BYTES = 4096

    def train_step(state: Any, batch: Any) -> Any:
        nonlocal failed
        if failing is None or failing.rank not in (rank, EVERY) or state.step != 4:
            return step(state, batch)
        if failed == failing.times:
            if failing.how.endswith("kill"):
                os.kill(os.getpid(), signal.SIGKILL)
            return step(state, batch)
        failed += 1
        if failing.phase is None:
            _fail(failing.how)
        with FailingAllocation(failing.phase, failing.place):
            return step(state, batch)

    loop.train_step = train_step
    if failing is not None and failing.how == "stop slowly":
        _save_slowly()
    if failing is not None and failing.rank == rank and failing.how in ("kill saving", "full disk"):
        _fail_saving(failing.how)
    main()


def _save_slowly() -> None:
    from attfc_train.ranks import watch
    from attfc_train.run.tensor_writer import Packed

    write = Packed.write

    def slow_write(*arguments: Any) -> None:
        time.sleep(2.5)
        write(*arguments)

    Packed.write = slow_write  # type: ignore[assignment, method-assign]
    watch.GRACE = 1.0


def _fail_saving(how: str) -> None:
    """Fail in the first table of a save: the others have given some of their rows, and would give more."""
    from attfc_train.ranks.group import ProcessRanks

    collected = ProcessRanks.collected

    def failing(ranks: ProcessRanks, rows: Any, shard: Any) -> Iterator[Any]:
        yield from collected(ranks, rows[:1], shard) if ranks.is_first else ()
        if how == "full disk":
            raise OSError(28, "No space left on device")
        os.kill(os.getpid(), signal.SIGKILL)

    ProcessRanks.collected = failing  # type: ignore[method-assign, assignment]


def _fail(how: str) -> None:
    if how == "memory":
        raise torch.OutOfMemoryError("no room. At all.")
    if how == "fault":
        raise KeyError("a key")
    os.kill(os.getpid(), signal.SIGKILL if how == "kill" else signal.SIGTERM)
