"""Names of the parts of a run, so that a memory trace can say when a tensor was born, and an error where it came from.

A phase costs two list operations and holds no tensor. The planner's recorder reads `current_phase` at every operator; what
follows an out-of-memory error reads `failed_phase`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, TypeAlias

Phase: TypeAlias = Literal[
    "build", "input", "momentum", "teacher", "references", "forward", "loss", "backward", "update", "enqueue", "evaluation"
]

_stack: list[Phase] = []
_MARK = "attfc_phase"


@contextmanager
def phase(name: Phase) -> Iterator[None]:
    """Mark everything inside as belonging to `name`; phases nest, and the innermost counts."""
    _stack.append(name)
    try:
        yield
    except Exception as error:
        error.__dict__.setdefault(_MARK, name)  # the innermost phase is left first, so its mark stays
        raise
    finally:
        _stack.pop()


def current_phase() -> Phase | None:
    """Return the innermost phase, or None outside of all."""
    return _stack[-1] if _stack else None


def failed_phase(error: BaseException) -> Phase | None:
    """Return the innermost phase that `error` came out of, or None."""
    return error.__dict__.get(_MARK)
