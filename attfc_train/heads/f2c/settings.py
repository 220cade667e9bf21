"""Settings of the F2C head, and what they tell about themselves."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from attfc_train.heads.containers.settings import DCC_SHARE, STORAGE, ContainerSettings
from attfc_train.heads.knob import Knob
from attfc_train.heads.settings import ClassEncoder, MarginSettings

LEAST_HARDEST, MOST_HARDEST = 3, 10
"""Bounds of the hardest slots that count, where their number follows the size of the pool."""
HARDEST_SHARE = 0.0002


class F2CSettings(ContainerSettings):
    """The F2C head (Faster Face Classification, arXiv 2105.10375): a pool of two class-encoder features an identity."""

    kind: Literal["f2c"] = "f2c"
    margin: MarginSettings = MarginSettings(kind="cosface", margin=0.4, scale=32.0, gradient="exact")
    dcc_share: float = Field(0.1, gt=0, le=1)
    support_vectors: float | None = Field(None, gt=1, le=4)
    """t of SV-Softmax (arXiv 1812.11317), released with 1.2: a negative above own cos - margin counts as t cos + t - 1."""
    hard_negatives: int | None = Field(None, ge=1, le=1000)
    """Slots that repel a query whose identity is not in the pool. None: 0.02 % of the slots, but 3 to 10."""
    encoder_momentum: float = Field(0.99, ge=0, lt=1)
    loss_kernel: Literal["chunked"] = "chunked"
    """Always ``chunked``: the other kernel finds no hardest slots."""

    @model_validator(mode="after")
    def _support_vectors_rule(self) -> Self:
        if self.support_vectors is not None and self.margin.kind != "cosface":
            raise ValueError(
                f"support_vectors needs margin.kind 'cosface', but got {self.margin.kind!r}; leave one of them out"
            )
        return self

    @property
    def is_paired(self) -> bool:
        """See `HeadSettings.is_paired`."""
        return True

    @property
    def class_encoder(self) -> ClassEncoder:
        """See `HeadSettings.class_encoder`."""
        return ClassEncoder(self.encoder_momentum, self.encoder_momentum_ramp_steps or 0, self.batchnorm_buffers)

    @property
    def remembered_refreshes(self) -> float:
        """See `ContainerSettings.remembered_refreshes`: row 0 is the newer one half of the time."""
        return 0.5

    @property
    def num_hardest(self) -> int:
        """h of resolved settings: cosines that count for a query outside the pool."""
        wanted = self.hard_negatives or min(MOST_HARDEST, max(LEAST_HARDEST, int(HARDEST_SHARE * self.num_slots)))
        return min(wanted, self.num_slots)

    def problem_with(self, num_ids: int) -> str | None:
        """Return what is wrong where one slot per identity leaves slots over."""
        if self.dcc_size and self.dcc_size > num_ids:
            return f"head.dcc_size must be at most data.num_ids, but got {self.dcc_size} and {num_ids}"
        return None

    def describe(self) -> str:
        """See `HeadSettings.describe`."""
        return f"{self.kind}, {self.num_slots:,} slots of two rows"

    def rows(self) -> tuple[tuple[str, str], ...]:
        """See `HeadSettings.rows`."""
        (name, slots), *_ = super().rows()
        hardest = f"{self.num_hardest}" if self.dcc_size else "3 to 10"
        return (name, f"{slots}, two rows each"), ("negatives outside the pool", f"the {hardest} hardest slots")

    @classmethod
    def knobs(cls) -> tuple[Knob, ...]:
        """Return slots and storage."""
        return DCC_SHARE, STORAGE
