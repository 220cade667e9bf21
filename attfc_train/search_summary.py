"""What a plan was chosen from: the Pareto front, the rule, and how much room every constraint left.

A part of a training profile that decides nothing: ``best.json`` keeps it so that another choice from the same front needs no
second search.
"""

from __future__ import annotations

from pydantic import Field

from attfc_train.frozen import Frozen
from attfc_train.units import Bytes

Value = bool | int | float | str


class ConstraintSlack(Frozen):
    """One constraint on the chosen setting."""

    name: str
    value: float
    limit: float
    slack: float
    """Room left, at least 0, in `unit`."""
    unit: str


class FrontPoint(Frozen):
    """One setting of the Pareto front: none is faster and more accurate at once."""

    settings: dict[str, Value]
    """Knob -> value, knobs that were searched only."""
    hours: float | None
    """To train all epochs, middle of the predicted interval; None where the number of images is not known."""
    images_per_second: float
    accuracy: float
    """Points relative to a full FC layer, middle of the prior."""
    memory_bytes: Bytes = Field(ge=0)
    """Estimated peak, headroom included; that of the chosen setting is exact."""


class SearchSummary(Frozen):
    """The search behind a plan."""

    rule: str
    """By which the setting was chosen from the front."""
    knobs: dict[str, tuple[Value, ...]]
    """Knob -> the values searched."""
    left_out: tuple[str, ...] = ()
    """Values that were not searched, and why."""
    num_settings: int = Field(ge=0)
    constraints: tuple[ConstraintSlack, ...]
    front: tuple[FrontPoint, ...]
    """Fastest first."""
