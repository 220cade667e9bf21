"""What a plan was chosen from: the Pareto front, the rule, and how much room every constraint left.

A part of a training profile that decides nothing: ``best.json`` keeps it so that another choice from the same front needs no
second search.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from attfc_train.document import MOST, MOST_BYTES, Frozen, Value
from attfc_train.profile.prediction import Interval
from attfc_train.units import Bytes


class ConstraintSlack(Frozen):
    """One constraint on the chosen setting."""

    name: str
    value: float
    limit: float
    slack: float
    """Room left in `unit`: at least 0, but for an accuracy that trainings showed to be lower than planned."""
    unit: str
    low: float | None = None
    high: float | None = None
    """Ends of the predicted interval of `value`; None where it has none, or an older attfc did not say."""

    @property
    def may_be_missed(self) -> bool:
        """Whether the limit lies inside the predicted interval."""
        return self.low is not None and self.high is not None and self.low < self.limit < self.high


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
    row: int | None = Field(None, ge=0, le=MOST)
    """Place on the front of the setting that stands for this one, from which it differs by far less than the intervals; None:
    it stands for itself, or an older attfc did not say."""


Role: TypeAlias = Literal["chosen", "as chosen", "at its best"]
"""``as chosen``: with the batch, parts, checkpointing, precision and network of the chosen setting."""


class HeadFigures(Frozen):
    """One kind of head beside the choice: what it would need and reach on the device."""

    head: str
    role: Role
    settings: dict[str, Value]
    """Knob -> value."""
    memory_bytes: Bytes = Field(ge=0, le=MOST_BYTES)
    """Peak, headroom included; that of the chosen setting is exact."""
    fits: bool
    """Whether the memory is within the budget."""
    images_per_second: Interval
    hours: Interval | None
    """To train all epochs; None where the number of images is not known."""
    accuracy: Interval
    """Points relative to a full FC layer."""
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
    verdict: str = ""
    """Whether AttFC is needed at all, computed from `comparison`; empty where nothing was compared."""
    notes: tuple[str, ...] = ()
    """What the user should know before training: limits that may be missed, data that are too few."""
    comparison: tuple[HeadFigures, ...] = ()
    """The choice, a full FC layer, Partial FC and, where it was searched, AttFC."""
    constraints: tuple[ConstraintSlack, ...]
    front: tuple[FrontPoint, ...]
    """Fastest first."""
    trainings: tuple[TrainingRecord, ...] = Field(default=(), max_length=MOST_TRAININGS)
    """Of a tuning."""
    trained_on: str = ""
    """What they were trained and verified on."""
