"""The recognition of a run that has collapsed: images of different people have features alike, and the loss says so too.

An encoder can lower its loss without telling anybody apart: it makes all features alike. Then every cosine is the same, and the
loss is that of chance (`Head.chance_loss`): log n, and what the margin adds. So the watch joins

    stranger_cosine    mean cosine between queries of different identities
    gain               chance_loss - loss, in nats

Neither is enough alone. The features of a network that has learned nothing are not alike, because an embedding ends in
BatchNorm; its loss is above that of chance, because cosines scatter. Features on their way to a good model may be alike (0.7 at
ten times the usual rate), but their gain grows. A run has collapsed where at `ENOUGH` of the last `LOOKS` looks, which are
`EVERY` steps apart, and at the very last of them

    stranger_cosine >= LEAST_COSINE   and   gain <= LARGEST_GAIN

One look may be a batch that scatters; most looks without the last accuse a run that is just leaving that state. What was found
lasts until fewer looks say it, so that one good batch does not make two collapses of one.

docs/training.md says how runs on both sides did (``python -m benchmarks.collapse``). At the full rate from the first step, in
small batches, a run may be in that state for a while and recover. A run that learns nothing with features that are not alike
cannot be told early from one that needs more time; its record has both losses.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor
from torch.nn.functional import normalize

from attfc_train.heads.head import Head
from attfc_train.losses.margin import Margin

OnCollapse: TypeAlias = Literal["warn", "fail"]

EVERY = 20
"""Steps between two looks that count."""
WATCHED_STEPS = 2000
"""Steps at the beginning of a run in which the watch looks by itself; later it looks where a step is logged."""
LOOKS = 5
ENOUGH = 4
"""Of 3, AttFC with slots that are generated alone was accused where it recovered; of 5, one batch would acquit."""
LEAST_COSINE = 0.5
LARGEST_GAIN = 0.5
"""Batches of a collapsed run scatter by as much."""
SAMPLE = 64
"""Queries of a micro-batch that are compared: 2,016 pairs give the mean to about 0.01."""
REMEDY = (
    "What helps: a lower optim.learning_rate, a larger optim.batch_size, a longer optim.warmup_images, with references a "
    "longer head.encoder_momentum_ramp_images, and images that differ less in what is not the identity"
)


@dataclass(frozen=True, slots=True)
class Look:
    """The figures of a step; NaN where they are not known."""

    stranger_cosine: float
    chance_loss: float

    def by_name(self) -> dict[str, float]:
        """Return the figures by the names that the record gives them."""
        return {"stranger_cosine": self.stranger_cosine, "chance_loss": self.chance_loss}


class CollapseWatch:
    """A watch over the steps of a run; it sees what its head is given.

    Args:
        head: of the run.
        margin_at: step -> the margin with which it is scored.
    """

    def __init__(self, head: Head, margin_at: Callable[[int], Margin]) -> None:
        self._head = head
        self._margin_at = margin_at
        self._looks: deque[tuple[Look, float]] = deque(maxlen=LOOKS)
        self._last_step = -EVERY
        self._is_watching = False
        self._cosine: Tensor | None = None
        self._has_collapsed = False
        # The features of a query stand nowhere but in the call of a head, of whatever kind.
        head.register_forward_pre_hook(self._see)

    def begin_step(self, step: int, is_logged: bool) -> bool:
        """Return whether step `step`, counted from 1, is looked at."""
        self._is_watching = is_logged or (step % EVERY == 0 and step <= WATCHED_STEPS)
        self._cosine = None
        return self._is_watching

    def _see(self, head: Head, arguments: tuple[Any, ...]) -> None:
        """Compare the queries of a step's first micro-batch; waits for nothing."""
        del head
        if not self._is_watching or self._cosine is not None:
            return
        features, _, labels, *_ = arguments
        self._cosine = stranger_cosine(features.detach(), labels if labels.dim() == 1 else labels[0])

    def look(self, step: int, loss: float, observed: Mapping[str, Tensor]) -> Look | None:
        """Return the figures of the step that was made, and remember them; waits for the device.

        Args:
            step: steps made. loss: of the last one. observed: what its head observed.

        Returns:
            None: the step is not looked at.
        """
        if self._cosine is None:
            return None
        cosine = self._cosine.item()
        # All features alike have a cosine above 0. Below it some margins wrap around, and their formula is about nothing.
        chance = self._head.chance_loss(max(0.0, cosine), self._margin_at(step - 1), observed)
        look = Look(cosine, math.nan if chance is None else chance)
        if step - self._last_step >= EVERY and not math.isnan(cosine + look.chance_loss):
            self._looks.append((look, loss))
            self._last_step = step
        return look

    def has_just_collapsed(self) -> bool:
        """Return whether the last look is the first of a collapse: true once, and again after a recovery."""
        before = self._has_collapsed
        found = [_tells_nobody_apart(look, loss) for look, loss in self._looks]
        self._has_collapsed = len(found) == LOOKS and sum(found) >= ENOUGH and (before or found[-1])
        return self._has_collapsed and not before

    @property
    def finding(self) -> str:
        """What was found, as a part of a sentence."""
        look, loss = self._looks[-1]
        return (
            f"for {LOOKS * EVERY} steps images of different people have had features alike (cosine {look.stranger_cosine:.2f}) "
            f"and the loss ({loss:.2f}) has been that of telling nobody apart ({look.chance_loss:.2f})"
        )


def _tells_nobody_apart(look: Look, loss: float) -> bool:
    """Return whether features are alike, and the loss has not left that of chance."""
    return look.stranger_cosine >= LEAST_COSINE and look.chance_loss - loss <= LARGEST_GAIN


@torch.no_grad()
def stranger_cosine(features: Tensor, labels: Tensor) -> Tensor:
    """Return the mean cosine between images of different identities among the first `SAMPLE`, an fp32 scalar.

    NaN where all are of one identity.

    Args:
        features: [b, D], of any length. labels: int64 [b].
    """
    unit = normalize(features[:SAMPLE].float(), dim=1)
    labels = labels[:SAMPLE]
    strangers = (labels[:, None] != labels).float()
    return (unit @ unit.t() * strangers).sum() / strangers.sum()
