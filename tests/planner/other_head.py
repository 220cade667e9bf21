"""A kind of head that the planner has never heard of, for its documented defaults."""

from __future__ import annotations

from typing import Literal

from attfc_train.heads.knob import Knob
from attfc_train.heads.settings import HeadSettings, MarginSettings
from attfc_train.profile.profile import TrainProfile

LEVELS = (0, 1, 2, 4)


class OtherSettings(HeadSettings):
    """A head with learned centers and one knob, which is called like a feature of every head."""

    kind: Literal["other"] = "other"
    margin: MarginSettings = MarginSettings()
    level: int = 1
    note: str = ""

    @classmethod
    def knobs(cls) -> tuple[Knob, ...]:
        return (Knob("level", LEVELS, "head", place=10),)


def other_profile(level: int = 1, num_ids: int = 1000) -> TrainProfile:
    """Return a resolved profile; the schema, which is closed, does not take such a head."""
    resolved = TrainProfile().resolve(num_ids)
    return resolved.model_copy(update={"head": OtherSettings(level=level)})
