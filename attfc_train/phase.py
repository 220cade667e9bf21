"""Names the part of a run that is under way, so that a memory trace can say when a tensor was born.

Costs two list operations per phase and holds no tensor; the loop ignores it, the planner's recorder reads it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, TypeAlias

Phase: TypeAlias = Literal[
    "build", "input", "momentum", "references", "forward", "loss", "backward", "update", "enqueue", "evaluation"
]

_stack: list[Phase] = []
_MARK = "attfc_phase"


@contextmanager
def phase(name: Phase) -> Iterator[None]:
    """Marks everything inside as belonging to `name`; phases nest, the innermost counts."""
    _stack.append(name)
    try:
        yield
    except Exception as error:
        error.__dict__.setdefault(_MARK, name)
        raise
    finally:
        _stack.pop()


def current_phase() -> Phase | None:
    """The innermost phase, or None outside of all."""
    return _stack[-1] if _stack else None


def failed_phase(error: BaseException) -> Phase | None:
    """The innermost phase that `error` came out of, or None."""
    return error.__dict__.get(_MARK)
