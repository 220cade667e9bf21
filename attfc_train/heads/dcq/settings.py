"""Settings of the DCQ head, and what they tell about themselves."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from attfc_train.heads.containers.settings import DCC_SHARE, STORAGE, ContainerSettings
from attfc_train.heads.knob import Knob
from attfc_train.heads.settings import BufferPolicy, MarginSettings


class DCQSettings(ContainerSettings):
    """The DCQ head (Dynamic Class Queue, arXiv 2105.11113): a ring of class centers, each of one image; AttFC's ancestor."""

    kind: Literal["dcq"] = "dcq"
    margin: MarginSettings = MarginSettings(kind="cosface", margin=0.3, scale=50.0)
    dcc_share: float = Field(0.1, gt=0, le=1)
    batchnorm_buffers: BufferPolicy = "average"
    exported_encoder: Literal["feature", "class"] = "class"

    @property
    def is_shared(self) -> bool:
        """See `HeadSettings.is_shared`."""
        return True

    @property
    def references_per_query(self) -> int:
        """See `HeadSettings.references_per_query`: the one image that is the class."""
        return 1

    @property
    def resident_slots(self) -> int:
        """See `HeadSettings.resident_slots`: no slot of a ring is refreshed, so it does not matter when images come."""
        return 0

    @classmethod
    def knobs(cls) -> tuple[Knob, ...]:
        """Return slots and storage."""
        return DCC_SHARE, STORAGE
