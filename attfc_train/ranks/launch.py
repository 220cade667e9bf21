"""How the processes of a run meet: ``torchrun`` starts them, and says in the environment who each of them is.

``RANK``, ``WORLD_SIZE`` and ``LOCAL_RANK`` are the place of a process, ``MASTER_ADDR`` and ``MASTER_PORT`` where all meet.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from attfc_train.errors import AttfcError, Interrupted, LostProcessError, UsageError
from attfc_train.faults import scarcity, unexpected
from attfc_train.ranks.ranks import ALONE, Ranks
from attfc_train.ranks.watch import Peer, Watch

if TYPE_CHECKING:
    from torch.distributed.distributed_c10d import Store

MEET_TIMEOUT = timedelta(minutes=10)
"""For slow starts: every process loads torch."""
VERDICT_SECONDS = 10.0
"""For the news of a loss, once an exchange has failed."""
_NOTICED = "attfc/noticed"
"""The key under which those are counted that notice that not all have met."""
_POLL_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Place:
    """The place of a process among those that torchrun started."""

    rank: int
    size: int
    local_rank: int
    """Number of the process on its machine, and of its GPU."""
    address: str
    """Of rank 0's machine."""
    port: int
    """Where all meet there."""


def place(environment: Mapping[str, str]) -> Place | None:
    """Return this process's place; None: it trains alone.

    Raises:
        UsageError: the environment says half of it, or nonsense.
    """
    if environment.get("WORLD_SIZE", "1") == "1":
        return None
    try:
        rank, size, local_rank = (int(environment[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
        address, port = environment["MASTER_ADDR"], int(environment["MASTER_PORT"])
        if not 0 <= rank < size or local_rank < 0 or not address or not 0 < port < 2**16:
            raise ValueError
    except (KeyError, ValueError) as error:
        given = {name: environment.get(name) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")}
        raise UsageError(
            "RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT must be set together",
            ", ".join(f"{name}={value}" for name, value in given.items()),
            "Start with torchrun --nproc-per-node K -m attfc_train ..., or unset WORLD_SIZE.",
        ) from error
    return Place(rank, size, local_rank, address, port)


def device_for(name: str, here: Place | None) -> str:
    """Return the device of a process: of several on one machine each has the GPU of its local rank.

    Raises:
        UsageError: all of them would have the same GPU.
    """
    if here is None or name.startswith("cpu"):
        return name
    if ":" in name:
        got = f"'{name}' for {here.size} processes"
        raise UsageError("--device must leave the GPU to torchrun", got, "Leave it out; CUDA_VISIBLE_DEVICES chooses GPUs.")
    import torch

    return f"cuda:{here.local_rank}" if name == "cuda" or torch.cuda.is_available() else "cpu"


@contextmanager
def together(here: Place | None, how_to_go_on: str) -> Iterator[Ranks]:
    """Meet the other processes, and leave with them: with the first error, which one of them tells.

    Args:
        how_to_go_on: a sentence for the user who has lost a process.

    Raises:
        AttfcError: on the process that tells it. The others raise a `SystemExit` with its exit code.
    """
    if here is None:
        yield ALONE
        return
    import torch.distributed as dist

    ranks, watch = _met(here, how_to_go_on)
    try:
        yield ranks
        ranks.told(True)  # nobody leaves before rank 0, which still writes
    except AttfcError as error:
        _tell(watch, error)
    except KeyboardInterrupt:
        watch.leave(Interrupted(signal.SIGINT, "Stopped", "What had been saved before is intact."))
        raise
    except Exception as error:
        # A RuntimeError may be that of an exchange with a process that is gone.
        verdict = watch.verdict(VERDICT_SECONDS if isinstance(error, RuntimeError) else 0)
        _tell(watch, verdict or scarcity(error) or unexpected(error), error)
    watch.leave()
    dist.destroy_process_group()


def _met(here: Place, how_to_go_on: str) -> tuple[Ranks, Watch]:
    """Meet the other processes.

    Raises:
        LostProcessError: not all came, or they do not reach each other; on the process that tells it. The others raise a
            `SystemExit` with its exit code.
    """
    import torch.distributed as dist
    from torch.distributed.rendezvous import rendezvous

    from attfc_train.ranks.group import ProcessRanks
    from attfc_train.ranks.tensor_group import EXCHANGE_TIMEOUT

    # NCCL's own watch would end a process whose peer has aborted its exchanges, as all do for a step that begins again. Whoever
    # is gone is found by ours.
    os.environ.setdefault("TORCH_NCCL_ASYNC_ERROR_HANDLING", "0")
    store: Store | None = None
    try:
        store, rank, size = next(rendezvous("env://", here.rank, here.size, timeout=MEET_TIMEOUT))
        dist.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=MEET_TIMEOUT)
        ranks = ProcessRanks(here.rank, here.size, dist.new_group(backend="gloo", timeout=EXCHANGE_TIMEOUT))
        watch = Watch(here.rank, _connected(here, ranks), how_to_go_on)
        return replace(ranks, watch=watch), watch
    except (OSError, RuntimeError, ValueError) as error:
        if not _tells_of_meeting(store, here):
            raise SystemExit(LostProcessError.exit_code) from error
        reason = str(error).partition("\n")[0]
        raise LostProcessError(
            f"all {here.size} processes must meet at {here.address}, port {here.port}",
            f"on rank {here.rank} '{reason}'",
            "Look whether torchrun started all of them, and whether the machines reach each other.",
        ) from error


def _tells_of_meeting(store: Store | None, here: Place) -> bool:
    """Return whether this process tells that not all have met: the first of those that notice it.

    Args:
        store: what all see; torchrun has it, or else rank 0. None: it could not be reached.
    """
    try:
        if store is None:
            raise RuntimeError
        store.set_timeout(timedelta(seconds=VERDICT_SECONDS))
        is_first = store.add(_NOTICED, 1) == 1
        end = time.monotonic() + VERDICT_SECONDS
        # The others must still find the store where it is rank 0's; at least one of them is gone.
        while here.rank == 0 and store.add(_NOTICED, 0) < here.size - 1 and time.monotonic() < end:
            time.sleep(_POLL_SECONDS)
    except RuntimeError:
        # The store is gone, and rank 0 with it, or this machine does not reach it: one of each machine tells.
        return here.rank <= 1 or here.local_rank == 0
    return is_first


def _tell(watch: Watch, error: AttfcError, cause: BaseException | None = None) -> None:
    """Leave with an error: rank 0 raises it, the others send it there and leave silently."""
    speaks = watch.rank == 0 or (watch.verdict(0) is not None and watch.speaks)
    watch.leave(error)
    if speaks:
        raise error from cause
    sys.stdout.flush()
    raise SystemExit(error.exit_code)


def _connected(here: Place, ranks: Ranks) -> list[Peer]:
    """Return connections between rank 0 and all others."""
    if here.rank == 0:
        with socket.create_server(("", 0), backlog=here.size) as server:
            server.settimeout(MEET_TIMEOUT.total_seconds())
            ranks.told(server.getsockname()[1])
            peers = []
            for _ in range(here.size - 1):
                connection, _ = server.accept()
                peers.append(Peer(int.from_bytes(_read(connection, 4), "big"), _kept(connection)))
        return peers
    connection = socket.create_connection((here.address, ranks.told(0)), MEET_TIMEOUT.total_seconds())
    connection.sendall(here.rank.to_bytes(4, "big"))
    return [Peer(0, _kept(connection))]


def _read(connection: socket.socket, count: int) -> bytes:
    content = b""
    while len(content) < count:
        more = connection.recv(count - len(content))
        if not more:
            break
        content += more
    return content


def _kept(connection: socket.socket) -> socket.socket:
    """Return a connection that is never given up, and notices within half a minute when the other machine is gone."""
    connection.settimeout(None)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 4)):
        with contextlib.suppress(OSError, AttributeError):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return connection
