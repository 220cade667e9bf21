"""What a plan was chosen from: the Pareto front, the rule, and how much room every constraint left.

A part of a training profile that decides nothing: ``best.json`` keeps it so that another choice from the same front needs no
second search.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

from pydantic import Field

from attfc_train.document import MOST, MOST_BYTES, Frozen, Value
from attfc_train.units import Bytes


class ConstraintSlack(Frozen):
    """One constraint on the chosen setting."""

    name: str
    value: float
    limit: float
    slack: float
    """Room left in `unit`: at least 0, but for an accuracy that trainings showed to be lower than planned."""
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
    memory_bytes: Bytes = Field(ge=0, le=MOST_BYTES)
    """Estimated peak, headroom included; that of the chosen setting is exact."""
    bytes_per_identity: float | None = Field(None, ge=0)
    """See `attfc_train.profile.prediction.Prediction.bytes_per_identity`."""


MOST_TRAININGS = 500
"""In one file: a regression over them takes seconds."""


Name: TypeAlias = Annotated[str, Field(max_length=64)]
Count: TypeAlias = Annotated[int, Field(ge=-MOST, le=MOST)]


class TrainingRecord(Frozen):
    """One short training of a setting, or of a full FC layer: what accuracies are predicted from after a tuning."""

    setting: dict[Name, bool | Count | float | Name | None] = Field(max_length=64)
    """Knob -> value, None: the recipe's. Of a full FC layer the setting that it was trained beside."""
    full_fc: bool
    head: Name | None = None
    """Kind of head of the setting; None, as an older attfc wrote: the profile's."""
    accuracy: float = Field(ge=1e-6, le=1 - 1e-6)
    """Of verification at the end; where it was stopped early, what the others' progress makes of it."""
    pairs_variance: float = Field(ge=1e-9, le=100)
    """Of the accuracy's log odds: the binomial variance of the pairs."""
    projection_variance: float = Field(ge=0, le=100)
    """Of the log odds: what an early end leaves open."""


class SearchSummary(Frozen):
    """The search behind a plan."""

    rule: str
    """By which the setting was chosen from the front."""
    knobs: dict[str, tuple[Value, ...]]
    """Knob -> the values searched."""
    left_out: tuple[str, ...] = ()
    """Values that were not searched, and why."""
    num_settings: int = Field(ge=0, le=MOST)
    why_head: str = ""
    """Why this kind of head was chosen, and what the others would cost; empty where one alone was searched."""
    constraints: tuple[ConstraintSlack, ...]
    front: tuple[FrontPoint, ...]
    """Fastest first."""
    trainings: tuple[TrainingRecord, ...] = Field(default=(), max_length=MOST_TRAININGS)
    """Of a tuning."""
    trained_on: str = ""
    """What they were trained and verified on."""
