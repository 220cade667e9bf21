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
    memory_bytes: Bytes = Field(ge=0)
    """Estimated peak, headroom included; that of the chosen setting is exact."""


class TrainingRecord(Frozen):
    """Short trainings of one setting, or of a full FC layer: what accuracies are predicted from after a tuning."""

    settings: dict[str, Value]
    """Knob -> value; of a full FC layer those of the setting that it was trained beside."""
    full_fc: bool
    accuracy: float = Field(gt=0, lt=1)
    """Of verification at the end, the mean over seeds; where it was stopped early, what the others' progress makes of it."""
    log_odds_variance: float = Field(gt=0, lt=100)
    """Of the accuracy's log odds: the pairs' binomial variance over the seeds, and what an early end adds."""
    reached: float = Field(gt=0, le=1)
    """Share of the training that was run."""
    num_seeds: int = Field(ge=1)


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
    trainings: tuple[TrainingRecord, ...] = Field(default=(), max_length=10_000)
    """Of a tuning."""
    trained_on: str = ""
    """What they were trained and verified on."""
