"""The end of a run of several processes: whoever fails or is killed, all leave within seconds, and one message says why.

Every process keeps a connection to rank 0. The system closes the connections of a process that ends, however it ends, so
nobody waits for a time-out: rank 0 sees who is gone, tells the others, and speaks for all; where rank 0 itself is gone, rank 1
does. A thread watches, because a process may be waiting for another one in an exchange that never ends. It gives its process
`GRACE` seconds to leave by itself, and then ends it.

A line is JSON: ``{"failed": [rule, got, remedy], "code": N}`` from a process that cannot go on, ``{"done": 1}`` from one that
has no more to do, ``{"leave": N}`` from rank 0 to all. ``{"again": n}`` is from one that gives up a step which all will begin
again, after n such steps before it; rank 0 passes it on.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from attfc_train.errors import AttfcError, LostProcessError

GRACE = 3.0
"""Seconds for what a process still does: to tell its error, to end the write of a file."""
AGAIN_SECONDS = 600.0
"""For all to come together after a step that was given up: one may still wait for its data, or hang in a driver's call."""
_MOST_BYTES = 65536
"""That are read at a time."""
_LOOK_SECONDS = 1.0
"""Between two looks at the clock."""


class OtherProcessError(AttfcError):
    """An error of another process, as that one would have told it.

    Args:
        code: the exit code.
    """

    def __init__(self, rule: str, got: str, remedy: str, code: int) -> None:
        super().__init__(rule, got, remedy)
        self.exit_code = code  # type: ignore[misc]  # that of whatever happened there


@dataclass(frozen=True, slots=True)
class Peer:
    """Another process at the other end of a connection."""

    rank: int
    connection: socket.socket

    def send(self, **line: Any) -> None:
        """Send a line, if anybody is there."""
        with contextlib.suppress(OSError):
            self.connection.sendall(json.dumps(line).encode() + b"\n")


class Watch:
    """A thread that ends this process when another one of the run is gone.

    Args:
        rank: of this process.
        peers: of rank 0 all others, of the others rank 0.
        how_to_go_on: what the user does after a loss, a sentence.
    """

    def __init__(self, rank: int, peers: list[Peer], how_to_go_on: str = "Continue the run with --resume.") -> None:
        self.rank = rank
        self.how_to_go_on = how_to_go_on
        self._peers = peers
        self._begun = dict.fromkeys((peer.rank for peer in peers), b"")
        """What came of a line whose end has not come yet: a network may tear it."""
        self._verdict: AttfcError | None = None
        self._has_verdict = threading.Event()
        self._given_up = 0
        """Steps that were given up, and that all have come together to begin again."""
        self._told = -1
        """Number of the last one that a process told of."""
        self._deadline = float("inf")
        self._news = threading.Condition()
        """Of a verdict, or of a step that is given up."""
        self._when_broken_off: Callable[[], None] = lambda: None
        self._breaking: threading.Thread | None = None
        """Calls it: the exchanges of a GPU may be slow to end."""
        self._is_leaving = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="ranks-watch", daemon=True)
        self._thread.start()

    def verdict(self, seconds: float) -> AttfcError | None:
        """Return why all must leave, waiting for it; None: nobody is gone."""
        self._has_verdict.wait(seconds)
        return self._verdict

    def when_broken_off(self, call: Callable[[], None]) -> None:
        """Set what is called, by a thread of its own, when another process gives up a step."""
        self._when_broken_off = call

    def break_off(self) -> None:
        """Tell the others that the step under way must begin again."""
        self._begin_to_wait()
        for peer in self._peers:
            peer.send(again=self._given_up)

    def is_broken_off(self, seconds: float) -> bool:
        """Return whether another process gave up the step under way, waiting for such news or for worse."""
        with self._news:
            self._news.wait_for(lambda: self._told >= self._given_up or self._verdict is not None, seconds)
            return self._told >= self._given_up and self._verdict is None

    def begin_again(self) -> None:
        """Take note that all know of the step; what was told of it and comes late means nothing any more."""
        with self._news:
            self._given_up += 1
            breaking = self._breaking
        if breaking is not None:  # never in the step that is begun again
            breaking.join()

    def go_on(self) -> None:
        """Take note that all have come together."""
        with self._news:
            if self._told < self._given_up:  # else the next step is given up already
                self._deadline = float("inf")

    def leave(self, error: AttfcError | None = None) -> None:
        """Say that this process leaves by itself, without an error or because of one."""
        self._is_leaving.set()
        for peer in self._peers:
            if error is None:
                peer.send(done=1)
            elif self.rank == 0:
                peer.send(leave=error.exit_code)
            else:
                peer.send(failed=[error.rule, error.got, error.remedy], code=error.exit_code)
                peer.send(done=1)

    def _watch(self) -> None:
        """Read lines until all others are done; decide at the first that tells of a failure, or at a lost connection."""
        with selectors.DefaultSelector() as selector:
            for peer in self._peers:
                selector.register(peer.connection, selectors.EVENT_READ, peer)
            while selector.get_map() and self._verdict is None:
                for key, _ in selector.select(_LOOK_SECONDS):
                    if not self._hear(key.data):
                        selector.unregister(key.fileobj)
                if time.monotonic() > self._deadline:
                    self._decide(self._apart())
        if self._verdict is not None:
            self._end(self._verdict)

    def _hear(self, peer: Peer) -> bool:
        """Take note of what a peer says; return whether it may say more."""
        try:
            content = peer.connection.recv(_MOST_BYTES)
        except OSError:
            content = b""
        *texts, self._begun[peer.rank] = (self._begun[peer.rank] + content).split(b"\n")
        lines = [json.loads(text) for text in texts]
        for line in lines:
            if "failed" in line:
                rule, got, remedy = line["failed"]
                self._decide(OtherProcessError(rule, got, remedy, line["code"]))
            elif "leave" in line:
                self._decide(OtherProcessError("all processes leave together", "an error of another one", "", line["leave"]))
            elif "again" in line:
                self._hear_of_break(peer, line["again"])
        is_done = any("done" in line for line in lines)
        if not content:
            self._decide(self._lost(peer.rank))
        return bool(content) and not is_done

    def _hear_of_break(self, peer: Peer, number: int) -> None:
        """Take note of a step that is given up, and let the others know."""
        with self._news:
            if number < self._given_up:  # several told of the same one
                return
            is_new = self._told < number
            self._told = number
            self._begin_to_wait()
            if is_new:
                self._breaking = threading.Thread(target=self._when_broken_off, name="ranks-break", daemon=True)
                self._breaking.start()
            self._news.notify_all()
        for other in self._peers:
            if self.rank == 0 and other is not peer:
                other.send(again=number)

    def _begin_to_wait(self) -> None:
        """Let rank 0, which ends all, look at the clock."""
        if self.rank == 0:
            self._deadline = time.monotonic() + AGAIN_SECONDS

    def _apart(self) -> LostProcessError:
        rule = f"all processes must come together within {AGAIN_SECONDS:.0f} s after one ran out of memory"
        return LostProcessError(rule, "fewer that did", f"{self.how_to_go_on} More optim.accumulation needs less memory.")

    def _lost(self, rank: int) -> LostProcessError:
        rule = "all processes of a run must stay to its end"
        return LostProcessError(rule, f"the loss of rank {rank}, which was killed or whose machine is gone", self.how_to_go_on)

    def _decide(self, verdict: AttfcError) -> None:
        if self._verdict is not None:
            return
        self._verdict = verdict
        if self.rank == 0:
            for peer in self._peers:
                peer.send(leave=verdict.exit_code)
        self._has_verdict.set()
        with self._news:
            self._news.notify_all()

    @property
    def speaks(self) -> bool:
        """Whether this process tells the user of the verdict."""
        return self.rank == 0 or (self.rank == 1 and isinstance(self._verdict, LostProcessError))

    def _end(self, verdict: AttfcError) -> None:
        """End this process, unless it leaves by itself."""
        if self._is_leaving.wait(GRACE):
            return
        if self.speaks:
            print(f"error: {verdict}", file=sys.stderr, flush=True)
        os._exit(verdict.exit_code)  # its main thread may wait in an exchange for ever
