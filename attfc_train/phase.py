"""Names of the parts of a run, so that a memory trace can say when a tensor was born, and an error where it came from.

A phase costs two list operations and holds no tensor. The planner's recorder reads `current_phase` at every operator; what
follows an out-of-memory error reads `failed_phase`; what takes the time of phases is told of each (`observed_by`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, Protocol, TypeAlias

Phase: TypeAlias = Literal[
    "build", "input", "momentum", "teacher", "references", "forward", "loss", "backward", "update", "enqueue", "evaluation"
]


class PhaseObserver(Protocol):
    """What is told when phases begin and end, in between their own work."""

    def entered(self, name: Phase) -> None:
        """Learn that a phase began; `current_phase` is it already."""
        ...

    def left(self) -> None:
        """Learn that the innermost phase ended, also by an exception; `current_phase` is the one around it."""
        ...


_stack: list[Phase] = []
_observers: list[PhaseObserver] = []
"""Empty, except where somebody profiles a step."""
_MARK = "attfc_phase"
_passes: list[None] = []
"""Passes over the slots that are under way."""


@contextmanager
def phase(name: Phase) -> Iterator[None]:
    """Mark everything inside as belonging to `name`; phases nest, and the innermost counts."""
    _stack.append(name)
    for observer in _observers:
        observer.entered(name)
    try:
        yield
    except Exception as error:
        error.__dict__.setdefault(_MARK, name)  # the innermost phase is left first, so its mark stays
        raise
    finally:
        _stack.pop()
        for observer in _observers:
            observer.left()


@contextmanager
def observed_by(observer: PhaseObserver) -> Iterator[None]:
    """Tell `observer` of every phase that begins or ends inside; without any, a phase does nothing more than ever."""
    _observers.append(observer)
    try:
        yield
    finally:
        _observers.remove(observer)


def current_phase() -> Phase | None:
    """Return the innermost phase, or None outside of all."""
    return _stack[-1] if _stack else None


@contextmanager
def pass_over_slots() -> Iterator[None]:
    """Mark everything inside as one pass over a head's centers in chunks, which a GPU makes in one kernel."""
    _passes.append(None)
    try:
        yield
    finally:
        _passes.pop()


def is_over_slots() -> bool:
    """Return whether a pass over the slots is under way."""
    return bool(_passes)


def failed_phase(error: BaseException) -> Phase | None:
    """Return the innermost phase that `error` came out of, or None."""
    return error.__dict__.get(_MARK)
