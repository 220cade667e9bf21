"""Statistics of former steps on which a margin depends: lengths of features (AdaFace), cosines with own classes.

They are buffers of a head, so a checkpoint holds them, and they change in the commit alone. A micro-batch is scored with its
own figures joined to those that the step found, and the commit joins those of the whole batch. So without accumulation a step
is the released one, which joins a batch before it is scored:

    kept <- rate x figure of the batch + (1 - rate) x kept

A figure that is not finite, and a step that the loss scaler skips, leave everything as it is.

Legend: b samples of a micro-batch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from attfc_train.heads.containers.writes import Copy, Writes
from attfc_train.heads.settings import MarginSettings
from attfc_train.losses.learning import Descent
from attfc_train.losses.margin import Margin, MarginKind
from attfc_train.ranks.ranks import ALONE

FIRST_MEAN, FIRST_DEVIATION = 20.0, 100.0
"""Where AdaFace's released code begins: while they fade, lengths tell next to nothing, and the margin is CosFace's."""
SHORTEST, LONGEST = 1e-3, 100.0
"""Lengths that count, as released."""
_LEAST_DEVIATION = 1e-3
"""Added to a deviation, as released."""


class RunningMargin(nn.Module, ABC):
    """What a kind of margin keeps of former steps.

    Args:
        rate: the share of a step.
    """

    kind: ClassVar[MarginKind]

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self.ranks = ALONE
        self._seen: list[Tensor] = []
        """Rows of numbers, one a query of all processes, of the micro-batches of the step under way."""

    @abstractmethod
    def ready(self, margin: Margin, lengths: Tensor, counted: Tensor, cosines: Callable[[], Tensor]) -> Margin:
        """Return the margin for the queries of a micro-batch, and remember these for the commit.

        Args:
            lengths: [b], of the features. counted: bool [b]; others' cosines mean nothing.
            cosines: of the queries with their own classes, [b], or several in a row.
        """

    @abstractmethod
    def resting(self, margin: Margin) -> Margin:
        """Return the margin of one query that is like most, by what is kept."""

    @abstractmethod
    def _joined(self, seen: Tensor) -> dict[str, Tensor]:
        """Return the buffers by their names once the rows `seen` are joined to them."""

    def prepare(self, descent: Descent) -> Writes:
        """Compute the change of the commit, of all queries of the step; none where there were none."""
        if not self._seen:
            return []
        joined = self._joined(torch.cat(self._seen))
        if descent.overflow is not None:
            over = descent.overflow > 0
            joined = {name: torch.where(over, self.get_buffer(name), value) for name, value in joined.items()}
        return [Copy(self.get_buffer(name), value) for name, value in joined.items()]

    def forget(self) -> None:
        """Free what was remembered of a step."""
        self._seen.clear()

    def _step(self, kept: Tensor, figure: Tensor) -> Tensor:
        """Return what is kept with a figure joined to it."""
        joined = figure * self.rate + kept * (1 - self.rate)
        return torch.where(torch.isfinite(joined), joined, kept)


class RunningLengths(RunningMargin):
    """Mean and deviation of the features' lengths, from which AdaFace takes the quality of an image.

    Args:
        concentration: h. rate: see `RunningMargin`.
    """

    kind = "adaface"
    mean: Tensor
    deviation: Tensor

    def __init__(self, concentration: float, rate: float, device: torch.device | None = None) -> None:
        super().__init__(rate)
        self.concentration = concentration
        self.register_buffer("mean", torch.full((), FIRST_MEAN, device=device))
        self.register_buffer("deviation", torch.full((), FIRST_DEVIATION, device=device))

    def ready(self, margin: Margin, lengths: Tensor, counted: Tensor, cosines: Callable[[], Tensor]) -> Margin:
        """See `RunningMargin.ready`."""
        del counted, cosines
        safe = lengths.clamp(SHORTEST, LONGEST)
        seen = self.ranks.gathered(safe)
        self._seen.append(seen)
        joined = self._joined(seen)
        # q = h (|f| - mean) / (deviation + 0.001), held in [-1, 1].
        distance = (safe - joined["mean"]) / (joined["deviation"] + _LEAST_DEVIATION)
        return replace(margin, quality=(distance * self.concentration).clamp(-1, 1))

    def resting(self, margin: Margin) -> Margin:
        """See `RunningMargin.resting`: of mean length."""
        return replace(margin, quality=torch.zeros(1))

    def _joined(self, seen: Tensor) -> dict[str, Tensor]:
        mean = seen.mean()
        # The unbiased deviation; of a single query there is none.
        deviation = ((seen - mean).square().sum() / (len(seen) - 1)).sqrt() if len(seen) > 1 else self.deviation
        return {"mean": self._step(self.mean, mean), "deviation": self._step(self.deviation, deviation)}


class RunningCosine(RunningMargin):
    """Mean cosine of queries with their own classes: CurricularFace's t, from 0 on."""

    kind = "curricularface"
    hardness: Tensor

    def __init__(self, rate: float, device: torch.device | None = None) -> None:
        super().__init__(rate)
        self.register_buffer("hardness", torch.zeros((), device=device))

    def ready(self, margin: Margin, lengths: Tensor, counted: Tensor, cosines: Callable[[], Tensor]) -> Margin:
        """See `RunningMargin.ready`."""
        del lengths
        cosine = cosines().float()
        counts = counted.float().repeat(len(cosine) // len(counted))
        rows = self.ranks.gathered(torch.stack([cosine * counts, counts], dim=1))
        self._seen.append(rows)
        return replace(margin, hardness=self._joined(rows)["hardness"])

    def resting(self, margin: Margin) -> Margin:
        """See `RunningMargin.resting`."""
        return replace(margin, hardness=self.hardness.cpu())

    def _joined(self, seen: Tensor) -> dict[str, Tensor]:
        total, count = seen.sum(0)
        return {"hardness": self._step(self.hardness, total / count)}  # NaN where none counts, which changes nothing


def running_margin(settings: MarginSettings, device: torch.device | None = None) -> RunningMargin | None:
    """Return fresh statistics for a margin; None: it needs none."""
    if settings.kind == "adaface":
        return RunningLengths(settings.concentration, settings.statistics_rate, device)
    if settings.kind == "curricularface":
        return RunningCosine(settings.statistics_rate, device)
    return None
