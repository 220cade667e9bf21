"""A knob: one setting of a training profile that a search may turn, and everything about it in one object.

The search space, a plan's screens, the Pareto front's columns, a tuning's records and refusals are made of these objects. The
knobs of a head stand beside its settings; those that every training has are the planner's (`attfc_planner.knobs.space`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

from attfc_train.document import Value

Affected: TypeAlias = Literal["memory", "speed", "accuracy"]
Section: TypeAlias = Literal["head", "optim", "model", "run", "data"]
"""A part of a training profile."""
Tell: TypeAlias = Callable[[Any], str]
"""Section of a profile -> text about a knob in it; empty where there is nothing to tell."""


@dataclass(frozen=True, slots=True)
class Knob:
    """A setting that a search may turn, by the name of its field in a section of the profile.

    A value of None stands for the recipe's own.
    """

    name: str
    values: tuple[Value | None, ...]
    """Values to search; in order where `ordered`."""
    section: Section
    place: int
    """Rank among all knobs, from 0 on: the order of the space, of lines and of columns."""
    affects: frozenset[Affected] = frozenset({"memory", "speed", "accuracy"})
    ordered: bool = True
    """Whether a value's index means more or less of one thing."""
    scales: bool = False
    """Whether it changes the sizes of allocations only, never their order."""
    size: Callable[[Any], float] | None = None
    """A measure of a value with which memory never falls; None: values cannot be compared so."""
    slows: bool = False
    """Whether a larger `size` is never faster."""
    is_share: bool = False
    """Whether a value is a share of the identities."""
    apart: Value | None = None
    """A value that allocates by another rule than the others, so that a search never drops it as larger than they are."""
    stand_in: Value | None = None
    """The value that stands for all where only memory and speed count; needed where it affects accuracy alone."""
    column: str = ""
    """Heading in the table of the Pareto front; empty: no column."""
    cell: Tell = field(default=lambda _: "")
    """Text in that column."""
    phrase: Tell = field(default=lambda _: "")
    """Text in a line about a setting, such as ``batch size 512 in 4 parts``."""
    row: Callable[[Any], tuple[str, str]] | None = None
    """Name and text in the table of the chosen setting."""

    def with_values(self, values: tuple[Value | None, ...]) -> Knob:
        """Return the same knob with other values to search."""
        return replace(self, values=values)

    def size_of(self, value: Value | None) -> float:
        """Return the measure of a value; 0 where values cannot be compared."""
        return 0.0 if self.size is None else self.size(value)
