"""What a place behind a URL is asked for, whatever kind of server it is, and what is done when the answer fails."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

from attfc_train.data.progress import tell
from attfc_train.data.unreadable import LostError
from attfc_train.errors import AttfcError
from attfc_train.units import Bytes, Seconds
from attfc_train.urls import hidden

PAUSES: Final[tuple[Seconds, ...]] = (0.5, 1.0, 2.0, 4.0, 8.0, 8.0, 8.0)
"""Between the attempts at a request; together half a minute, and the time that the attempts themselves take."""
_PATIENCE: Final[Seconds] = 200.0
"""After which no other attempt begins: less than what counts as a read that hangs (`attfc_train.data.pool`)."""
_MOST_CHARACTERS: Final = 160

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Info:
    """What a store says of an object."""

    is_folder: bool
    size: Bytes = 0
    version: str = ""
    """Anything that changes when the object does; empty where the store says nothing."""


class RefusedError(LostError):
    """A server does not let this user read an object."""


class WithoutPartsError(Exception):
    """A server has answered with all of an object where a part was asked for."""


class Store(Protocol):
    """Objects of one host or bucket, by URL; every call is one attempt, which raises whatever the packages raise.

    `FileNotFoundError` is that there is no such object, `PermissionError` that it may not be read.
    """

    def info(self, url: str) -> Info:
        """Return what is known of an object or a folder."""
        ...

    def files(self, url: str) -> Iterator[tuple[str, Info | None]]:
        """Yield the names of all files in a folder and in those in it, from the folder on; None: `info` has to be asked."""
        ...

    def read(self, url: str, begin: int, end: int) -> tuple[bytes, str]:
        """Return the bytes `begin` .. ``end - 1`` of an object, and the version that they are of.

        Raises:
            WithoutPartsError: the server has no parts of objects.
        """
        ...

    def read_all(self, url: str, size: Bytes, take: Callable[[bytes], object]) -> str:
        """Give an object to `take` in pieces of `size` bytes, the last one shorter; return its version."""
        ...


def attempted(url: str, call: Callable[[], Answer], wait: Callable[[Seconds], object] = time.sleep) -> Answer:
    """Return what `call` does, which is repeated after each of `PAUSES` while the connection or the server fails.

    Args:
        url: without secrets, for messages.

    Raises:
        FileNotFoundError: there is no such object.
        LostError: it may not be read, or not even the last attempt was answered.
    """
    until = time.monotonic() + _PATIENCE
    for attempt, pause in enumerate((*PAUSES, None), start=1):
        try:
            return call()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError, WithoutPartsError, AttfcError):
            raise
        except Exception as error:  # every package has exceptions of its own for a connection that is lost
            if not _may_pass(error):
                raise _refused(url, error) from None  # the cause may hold a password
            if pause is None or time.monotonic() > until:
                raise _lost(url, error, attempt) from None
            tell(f"waiting for an answer from {url.split('/')[2]}", attempt, len(PAUSES))
            wait(pause)
    raise AssertionError("the last attempt answers or raises")


def _may_pass(error: Exception) -> bool:
    """Return whether the same request may be answered later."""
    status = _status(error)
    if status:
        return status >= 500 or status in (408, 425, 429)
    return not isinstance(error, PermissionError) and "Credentials" not in type(error).__name__


def _status(error: Exception) -> int:
    """Return the HTTP status that an exception has, if any."""
    status = getattr(error, "status", 0)
    return status if isinstance(status, int) else 0


def _refused(url: str, error: Exception) -> RefusedError:
    remedy = "Check the URL and who may read it. A password or token in a URL is not kept: give --data with it each time."
    return RefusedError(f"'{url}' must be readable", words_of(error), remedy)


def _lost(url: str, error: Exception, attempts: int) -> LostError:
    remedy = "Check the network and the server; then give the same command again, or for a run --resume."
    return LostError(f"'{url}' must be readable", f"no answer in {attempts} attempts, last {words_of(error)}", remedy)


def words_of(error: Exception) -> str:
    """Return what an exception says, on one line and without secrets."""
    text = " ".join(hidden(str(error)).split())[:_MOST_CHARACTERS]
    return f"'{text}'" if text else type(error).__name__
