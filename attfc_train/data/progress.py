"""How far long work on a data set is, told to whoever listens: formats do not know of screens.

with listening(lambda what, done, total: ...):
    open_dataset(spec)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeAlias

Listener: TypeAlias = Callable[[str, int, int], object]
"""Is told of what is being done, how many of how many are."""

_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Let a listener be told while inside, in this thread.

    Of two, the inner one alone is told.
    """
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def tell(what: str, done: int, total: int) -> None:
    """Tell the listener, if there is one; cheap, but not for every image.

    Args:
        what: in words, the same for one piece of work from 0 to `total`: "looking at records".
    """
    listener = _listener.get()
    if listener is not None:
        listener(what, done, total)
