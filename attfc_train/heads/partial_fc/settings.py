"""Settings of Partial FC, and what they tell about themselves."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal, Self

from pydantic import Field

from attfc_train.heads.knob import Knob
from attfc_train.heads.learned.settings import LearnedSettings
from attfc_train.heads.settings import MarginSettings

SAMPLE_RATES = (1.0, 0.5, 0.3, 0.2, 0.1, 0.05, 0.02, 0.01)


class PartialFCSettings(LearnedSettings):
    """A learned weight matrix of which every step scores and updates a sample (Partial FC, arXiv 2203.15565)."""

    kind: Literal["partial_fc"] = "partial_fc"
    margin: MarginSettings = MarginSettings()
    sample_rate: float = Field(0.2, gt=0, le=1)
    """Share of the identities that a step scores: those of the batch and uniformly drawn others, at least `batch_size`."""

    def num_sampled(self, num_ids: int, batch_size: int) -> int:
        """Return K: the share of the identities, at least one per query of the batch, at most all."""
        return num_sampled(num_ids, self.sample_rate, batch_size)

    @classmethod
    def knobs(cls) -> tuple[Knob, ...]:
        """Return the sample rate, and type and momentum of the rows."""
        return (_SAMPLE_RATE, *super().knobs())

    def rows(self) -> tuple[tuple[str, str], ...]:
        """See `HeadSettings.rows`."""
        return (*super().rows(), ("sample rate", f"{self.sample_rate:g}"))

    def variations(self) -> Iterator[tuple[str, Self]]:
        """Yield the next smaller sample rate of the search, and smaller rows."""
        smaller = [rate for rate in SAMPLE_RATES if rate < self.sample_rate]
        if smaller:
            yield f"sample rate {self.sample_rate:g} -> {smaller[0]:g}", self.model_copy(update={"sample_rate": smaller[0]})
        yield from super().variations()

    def ratios(self, num_ids: int, batch_size: int, steps: int) -> dict[str, float]:
        """Return the share of the identities that a step scores."""
        del steps
        return {"identities scored": max(self.sample_rate, min(1.0, batch_size / num_ids))}


def num_sampled(num_ids: int, sample_rate: float, batch_size: int) -> int:
    """Return `PartialFCSettings.num_sampled`."""
    return min(num_ids, max(round(sample_rate * num_ids), batch_size))


def grid(num_ids: int) -> tuple[int, int]:
    """Return columns and rows of the smallest grid with a cell for every identity that is a square or nearly one."""
    columns = math.isqrt(num_ids - 1) + 1
    return columns, -(-num_ids // columns)


_SAMPLE_RATE = Knob(
    "sample_rate",
    SAMPLE_RATES,
    "head",
    place=10,
    size=float,
    slows=True,
    is_share=True,
    column="sampled",
    cell=lambda head: f"{head.sample_rate:g}",
    phrase=lambda head: f"sample rate {head.sample_rate:g}",
    row=lambda head: ("sample rate", f"{head.sample_rate:g} of the identities a step"),
)
