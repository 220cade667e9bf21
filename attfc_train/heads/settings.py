"""The base of every head's settings, and what they tell about themselves; free of torch.

A kind of head is a folder: its settings, a subclass of `HeadSettings`, stand beside the head. Nobody else asks for the class of
settings: one asks the settings.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple, Self, TypeAlias

from pydantic import Field, model_validator

from attfc_train.document import MOST, Frozen, StorageName, Value
from attfc_train.heads.knob import Knob
from attfc_train.heads.pace import MARGIN_SHARE, Pace
from attfc_train.units import Bytes

BufferPolicy: TypeAlias = Literal["own", "average", "copy"]
"""Running statistics of a class encoder: of its own forward passes (as AttFC's released code does), those averaged with the
feature encoder's like the weights (as DCQ's does), or the feature encoder's newest."""
FIRST_MOMENTUM = 0.9
"""Where a ramped momentum starts: a young feature encoder moves too fast for a copy that lags 1,000 steps."""


class MarginSettings(Frozen):
    """Margin on the positive cosine: ArcFace (radians on the angle), CosFace (on the cosine), or one made of these."""

    kind: Literal["arcface", "cosface", "combined", "adaface", "curricularface"] = "arcface"
    """``combined``: cos(multiplier x theta + margin) - cosine_margin, which ArcFace's paper calls m1, m2 and m3. ``adaface``:
    adapts the margin to the length of the feature (arXiv 2204.00964). ``curricularface``: ArcFace, with hard negatives counted
    for more (arXiv 2004.00288)."""
    margin: float = Field(0.5, ge=0, lt=1.5)
    multiplier: float = Field(1.0, ge=1, le=4)
    """m1 of a ``combined`` margin."""
    cosine_margin: float = Field(0.0, ge=0, lt=1)
    """m3 of a ``combined`` margin."""
    concentration: float = Field(0.333, ge=0, le=10)
    """h of an ``adaface`` margin: the part of the margin by which it changes where a feature is longer by one deviation."""
    statistics_rate: float = Field(0.01, gt=0, le=1)
    """The share of a step in the running statistics of an ``adaface`` or ``curricularface`` margin."""
    scale: float = Field(64.0, gt=0, le=256)
    gradient: Literal["straight_through", "exact"] = "straight_through"
    """``straight_through``: d loss / d cosine = s (p - onehot), as released ArcFace code has it; ``exact``: the derivative."""
    ramp_steps: int | None = Field(None, ge=0, le=MOST)
    """The margin grows linearly from none over this many steps. None: over `ramp_images`."""
    ramp_images: int = Field(0, ge=0, le=MOST)
    """Queries over which the margin grows, at most half of the run."""

    @model_validator(mode="after")
    def _factors_belong_to_combined(self) -> Self:
        if self.kind != "combined" and (self.multiplier, self.cosine_margin) != (1, 0):
            raise ValueError(
                f"multiplier and cosine_margin need kind 'combined', but got kind {self.kind!r}, "
                f"{self.multiplier:g} and {self.cosine_margin:g}; use kind 'combined' or leave them out"
            )
        return self

    @model_validator(mode="after")
    def _statistics_belong_to_running_kinds(self) -> Self:
        for name, kinds in (("concentration", ("adaface",)), ("statistics_rate", ("adaface", "curricularface"))):
            value, default = getattr(self, name), type(self).model_fields[name].default
            if self.kind not in kinds and value != default:
                words = " or ".join(map(repr, kinds))
                raise ValueError(
                    f"{name} needs kind {words}, but got kind {self.kind!r} and {value:g}; use kind {words} or leave it out"
                )
        return self

    @property
    def ramp(self) -> int:
        """Steps of the margin's ramp, of resolved settings."""
        return self.ramp_steps or 0

    def paced(self, pace: Pace) -> Self:
        """Return the settings with the ramp in steps."""
        steps = pace.steps_for(self.ramp_images, MARGIN_SHARE) if self.ramp_steps is None else self.ramp_steps
        return self.model_copy(update={"ramp_steps": steps, "ramp_images": 0})


class ClassEncoder(NamedTuple):
    """The class encoder that a head asks for: a momentum copy of the feature encoder."""

    momentum: float
    """Momentum at the end of its ramp."""
    ramp_steps: int
    """Optimiser steps over which the momentum approaches `momentum`."""
    buffers: BufferPolicy

    def momentum_at(self, step: int) -> float:
        """Return a step's momentum m: over the ramp 1 - m falls geometrically from 0.1 to its final value."""
        # 1 - m(t) = first (last / first)^(t / ramp)
        if step >= self.ramp_steps or self.momentum <= FIRST_MOMENTUM:
            return self.momentum
        first = 1 - FIRST_MOMENTUM
        last = 1 - self.momentum
        return 1 - first * math.pow(last / first, step / self.ramp_steps)


class Refusal(NamedTuple):
    """The rule, value and remedy of an error that keeps settings from being searched."""

    rule: str
    got: str
    remedy: str


class SlotKernel(NamedTuple):
    """What decides how long a GPU's one kernel takes for a pass over the slots."""

    storage: StorageName
    """Type of the slots."""
    momentum_bytes: Bytes = 0
    """Of a dimension of a center that learns."""
    must_be_taken: bool = False
    """Whether it is taken even where the chunked pass is faster."""
    is_joint: bool = False
    """Whether a run chooses the way of both passes at once, by their time together; else each by its own."""


class HeadSettings(Frozen):
    """The settings of one kind of head, and what they mean for everybody else.

    The defaults here are those of a head with learned centers: no container, no references, no class encoder, no knobs. A kind
    overrides what is different.
    """

    kind: str
    margin: MarginSettings = MarginSettings()

    @property
    def references_per_query(self) -> int:
        """R: images per query that the class encoder sees."""
        return 0

    @property
    def num_slots(self) -> int:
        """C of resolved settings; 0 without a container."""
        return 0

    @property
    def class_encoder(self) -> ClassEncoder | None:
        """The class encoder that the head needs, if any."""
        return None

    @property
    def exports_class_encoder(self) -> bool:
        """Whether the class encoder is evaluated and saved as the model, and not the feature encoder."""
        return False

    @property
    def resident_slots(self) -> int:
        """Slots in which an identity stays while its images come (draw ``residency``); 0: it does not matter when they come."""
        return self.num_slots

    @property
    def is_paired(self) -> bool:
        """Whether a batch is two halves, and each half's references are the images of the other one."""
        return False

    @property
    def is_shared(self) -> bool:
        """Whether several processes can share the head: what it keeps, and what a query is scored against."""
        return False

    @property
    def slot_kernel(self) -> SlotKernel | None:
        """The kernel in which a GPU passes over the slots; None: it has none for them, or may not take it."""
        return None

    @property
    def container_form(self) -> tuple[object, ...]:
        """The settings that decide what the container's tensors look like; they may change between two processes of a run."""
        return ()

    def resolved(self, num_ids: int) -> Self:
        """Return the settings in which everything that depends on the number of identities is a number."""
        del num_ids
        return self

    def within(self, pace: Pace) -> Self:
        """Return the settings with ramps in steps that end before the run does."""
        ramp = pace.within(self.margin.ramp_steps, MARGIN_SHARE)
        return self.model_copy(update={"margin": self.margin.model_copy(update={"ramp_steps": ramp})})

    def paced(self, pace: Pace) -> Self:
        """Return the settings in which everything that is counted in images is a number of steps, or per step."""
        return self.model_copy(update={"margin": self.margin.paced(pace)})

    def problem_with(self, num_ids: int) -> str | None:
        """Return why the settings do not fit so many identities, as a sentence; None where they do."""
        del num_ids
        return None

    def describe(self) -> str:
        """Return resolved settings in a few words, for a headline."""
        return self.kind

    def rows(self) -> tuple[tuple[str, str], ...]:
        """Return name and text of each line of a table about the head."""
        return (("head", self.kind),)

    @classmethod
    def recommended(cls, margin: MarginSettings) -> Self:
        """Return the settings with which a kind is compared where none are given: the defaults, unless others did better."""
        return cls.model_validate({"margin": margin})

    @classmethod
    def knobs(cls) -> tuple[Knob, ...]:
        """Return what a search may turn beside the knobs that every training has."""
        return ()

    def fixed_knobs(self) -> dict[str, Value]:
        """Return the knobs that a search from these settings leaves alone, with their values."""
        return {}

    def search_refusal(self) -> Refusal | None:
        """Return why these settings cannot be the start of a search; None where they can."""
        return None

    def searchable(self) -> Self:
        """Return the nearest settings that can be the start of a search."""
        return self

    def value_of(self, knob: str, num_ids: int) -> Value:
        """Return the value of one of `knobs` in resolved settings."""
        del num_ids
        value: Value = getattr(self, knob)
        return value

    def turned(self, values: Mapping[str, Value], num_ids: int, steps: float) -> Self:
        """Return the settings with other values of their knobs, for a run of so many steps.

        Ramps in steps end within the run, the margin's in its first half; those in images do when they are `paced`.

        Args:
            values: by the names of `knobs`; a knob that is left out stays.
            steps: of the run; infinite where its length is not known.
        """
        del num_ids
        ramp = shortest(self.margin.ramp_steps, MARGIN_SHARE * steps)
        return self.model_copy(update={**values, "margin": self.margin.model_copy(update={"ramp_steps": ramp})})

    def variations(self) -> Iterator[tuple[str, Self]]:
        """Yield resolved settings with one knob turned, each with its name, value now and value then."""
        return iter(())

    def shortened(self, num_ids: int, short_ids: int, time: float) -> Self:
        """Return the settings of a short run that behaves alike.

        Args:
            num_ids: identities of the full run, whose settings are `paced`. short_ids: of the short one.
            time: steps of the short run over those of the full one.
        """
        del num_ids, short_ids
        ramp = round(self.margin.ramp * time)
        return self.model_copy(update={"margin": self.margin.model_copy(update={"ramp_steps": ramp})})

    def ratios(self, num_ids: int, batch_size: int, steps: int) -> dict[str, float]:
        """Return what a full run and its short one must have alike, by name, beyond what every training has."""
        del num_ids, batch_size, steps
        return {}


def shortest(ramp_steps: int | None, most: float) -> int | None:
    """Return the steps of a ramp, at most `most` of them; None, a ramp that is counted in images, stays."""
    return None if ramp_steps is None else int(min(ramp_steps, most))
