"""The search spaces of several kinds of heads as one, and how a study's parameters name their knobs.

Optuna keeps one list of values for a name, while two heads may have other values for a knob of one name. So where several kinds
are searched, a head's own knob is called after its kind too, ``attfc dcc_share``, and the parameter ``head`` tells which kind a
trial has. A space alone keeps the knobs' own names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from attfc_planner.knobs.space import COMMON, HEAD, SearchSpace, Setting
from attfc_train.document import Value


@dataclass(frozen=True)
class Spaces:
    """One space for every kind of head that is searched; where they are several, settings name their head."""

    members: tuple[SearchSpace, ...]

    def __iter__(self) -> Iterator[SearchSpace]:
        """Iterate over the spaces."""
        return iter(self.members)

    @property
    def num_settings(self) -> int:
        """Settings in all spaces."""
        return sum(map(len, self.members))

    @property
    def is_one(self) -> bool:
        """Whether one kind of head is searched alone."""
        return len(self.members) == 1

    @cached_property
    def kinds(self) -> tuple[str | None, ...]:
        """Kind of head of every space; None: the recipe's, where it is alone."""
        return tuple(_kind(space) for space in self.members)

    def of(self, setting: Setting) -> SearchSpace:
        """Return the space that a setting is from."""
        return self.members[self.kinds.index(setting.head)]

    @cached_property
    def parameters(self) -> dict[str, tuple[Value | None, ...]]:
        """A study's parameter -> its values; a trial has those of its head only."""
        heads = {} if self.is_one else {HEAD.name: self.kinds}
        return heads | {self.parameter(space, name): space[name].values for space in self for name in _knobs(space)}

    def indices(self, setting: Setting) -> dict[str, int]:
        """Return parameter -> index of its value for a setting."""
        space = self.of(setting)
        indices = space.indices(setting)
        return self._head_of(space) | {self.parameter(space, name): indices[name] for name in _knobs(space)}

    def at(self, indices: Mapping[str, int]) -> Setting:
        """Return the inverse of `indices`."""
        space = self.members[0 if self.is_one else indices[HEAD.name]]
        return space.at({HEAD.name: 0} | {name: indices[self.parameter(space, name)] for name in _knobs(space)})

    def drawn(self, draw: Callable[[str], int]) -> dict[str, int]:
        """Return the indices of a setting of which each is drawn: the head's first, and then those of its knobs.

        Args:
            draw: returns an index for a parameter.
        """
        space = self.members[0 if self.is_one else draw(HEAD.name)]
        return self._head_of(space) | {name: draw(name) for name in (self.parameter(space, knob) for knob in _knobs(space))}

    def parameter(self, space: SearchSpace, knob: str) -> str:
        """Return the name that a study has for a knob of one of the spaces."""
        return knob if self.is_one or knob in _COMMON else f"{_kind(space)} {knob}"

    def _head_of(self, space: SearchSpace) -> dict[str, int]:
        return {} if self.is_one else {HEAD.name: self.kinds.index(_kind(space))}


_COMMON = {knob.name for knob in COMMON}


def _knobs(space: SearchSpace) -> list[str]:
    """Return the names of all knobs but the kind of head."""
    return [name for name in space.names if name != HEAD.name]


def _kind(space: SearchSpace) -> str | None:
    kind = space[HEAD.name].values[0]
    return None if kind is None else str(kind)
