"""Writes of a step's commit: computed first, made later, so that a step that runs out of memory has changed nothing.

Legend: n rows written, D dimensions.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeAlias

from torch import Tensor


class Write(ABC):
    """A change in place whose values are computed. To make it allocates nothing, so it cannot fail half-way."""

    __slots__ = ()

    @abstractmethod
    def make(self) -> None:
        """Change the target."""


@dataclass(frozen=True, slots=True)
class IndexCopy(Write):
    """Puts a row of values into each indexed row: ``target[index[i]] = values[i]``."""

    target: Tensor
    """[N] or [N, D]."""
    index: Tensor
    """int64 [n]; equal entries must come with equal values."""
    values: Tensor
    """[n] or [n, D] in the target's dtype."""

    def make(self) -> None:
        """See `Write.make`."""
        self.target.index_copy_(0, self.index, self.values)


@dataclass(frozen=True, slots=True)
class IndexFill(Write):
    """Puts one number into every indexed row: ``target[index[i]] = value``."""

    target: Tensor
    """[N]."""
    index: Tensor
    """int64 [n]."""
    value: int

    def make(self) -> None:
        """See `Write.make`."""
        self.target.index_fill_(0, self.index, self.value)


@dataclass(frozen=True, slots=True)
class Copy(Write):
    """Puts a value into a tensor: ``target[...] = value``."""

    target: Tensor
    value: Tensor
    """Of the target's shape and dtype."""

    def make(self) -> None:
        """See `Write.make`."""
        self.target.copy_(self.value)


@dataclass(frozen=True, slots=True)
class Learning(Write):
    """Moves rows that learn."""

    move: Callable[[], None]
    """Has all the memory that it needs."""

    def make(self) -> None:
        """See `Write.make`."""
        self.move()


Writes: TypeAlias = list[Write]
"""In the order in which they are made."""


def commit(writes: Iterable[Write]) -> None:
    """Make the writes."""
    for write in writes:
        write.make()
