"""The state of a container for the log: what it holds, how old that is, and how far from what would be stored today.

`Freshness` compares the batch that is about to be enqueued with what its identities have stored: device scalars out of the
train step. `Occupancy` looks at all slots and waits for the device: outside the step.
Legend: B samples, C slots, D dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from attfc_train.heads.containers.container import IdentityContainer
from attfc_train.heads.containers.slot_storage import SlotStorage


class Holder(Protocol):
    """A container, as far as a log line asks."""

    @property
    def centers(self) -> SlotStorage:
        """Stored vectors; those of the slots come first."""
        ...

    @property
    def slot_labels(self) -> Tensor:
        """int64 [C]: identity, or negative."""
        ...

    @property
    def last_update(self) -> Tensor:
        """Integers [C]: the last optimiser step that wrote the slot; -1: none did."""
        ...

    def find(self, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the slot of each label, int64 [B], and whether there is one, bool [B]."""
        ...


@dataclass(frozen=True, slots=True)
class Freshness:
    """A batch against what is stored of it: fp32 scalars on the device, NaN where too few of its identities hold a slot."""

    conflicts: Tensor
    """Share of the samples whose identity holds a slot."""
    cosine: Tensor
    """Mean cosine between their stored centers and their fresh ones. An identity's images differ, so it stays below 1."""
    cosine_per_step: Tensor
    """Slope of that cosine against the stored center's age in steps (least squares over the batch): what age alone costs."""
    age: Tensor
    """Mean age in steps of these stored centers: less than that of all slots where the images come in the residency order."""

    def by_name(self) -> dict[str, Tensor]:
        """Return the scalars by the names that the log gives them."""
        return {
            "conflict_share": self.conflicts,
            "found_age_steps": self.age,
            "center_cosine": self.cosine,
            "center_cosine_per_step": self.cosine_per_step,
        }


@dataclass(frozen=True, slots=True)
class Occupancy:
    """Counts and ages; an age is the number of optimiser steps since the slot was written."""

    filled: int
    """Slots that hold an identity's center."""
    identities: int
    """Distinct ones among them."""
    mean_age: float
    max_age: int

    def by_name(self) -> dict[str, float]:
        """Return the figures by the names that the log gives them."""
        return {
            "filled_slots": float(self.filled),
            "identities_held": float(self.identities),
            "mean_age_steps": self.mean_age,
            "max_age_steps": float(self.max_age),
        }


def freshness(container: Holder, centers: Tensor, labels: Tensor, step: int) -> Freshness:
    """Compare fresh centers, unit [B, D], with the stored ones that they are about to replace or refresh."""
    # Sums over the samples whose identity holds a slot; the others, with weight 0, are read from any slot.
    slot, resident = container.find(labels)
    counted = resident.float()
    num = counted.sum()
    cosine = (container.centers.read_for_all(slot) * centers).sum(1)
    age = (step - container.last_update[slot]).float()
    mean_cosine = (cosine * counted).sum() / num
    mean_age = (age * counted).sum() / num
    # Least squares: slope = sum (age - mean age) cosine / sum (age - mean age)^2.
    deviation = (age - mean_age) * counted
    slope = (deviation * cosine).sum() / deviation.square().sum()
    return Freshness(num / labels.shape[0], mean_cosine, slope, mean_age)


def occupancy(container: Holder, step: int) -> Occupancy:
    """Count all slots after `step` optimiser steps; the temporaries are a few integers per slot."""
    held = container.slot_labels >= 0
    filled = int(held.sum())
    single = isinstance(container, IdentityContainer)
    identities = filled if single else int(torch.unique(container.slot_labels[held]).numel())
    ages = (step - 1 - container.last_update).masked_fill_(~held, 0)
    return Occupancy(filled, identities, int(ages.sum()) / max(1, filled), int(ages.max()))
