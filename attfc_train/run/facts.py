"""What a finished run was, read from its own record and profile: the one source of its summary, card and last words.

Nothing is measured or remembered here, so that what is written of a run can be written again at any time.
"""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from attfc_train.profile.file import load_profile
from attfc_train.profile.profile import TrainProfile
from attfc_train.run.log import read_log


@dataclass(frozen=True, slots=True)
class Accuracy:
    """The accuracy on one verification set after a step."""

    set_name: str
    step: int
    accuracy: float
    num_pairs: int
    masked: float | None = None
    """Accuracy with a mask on one image of each pair, where masks were trained on."""

    @property
    def standard_error(self) -> float:
        """Binomial standard error for this many independent pairs."""
        return math.sqrt(self.accuracy * (1 - self.accuracy) / self.num_pairs)

    def __str__(self) -> str:
        error = f"standard error {self.standard_error:.2%}"
        masked = "" if self.masked is None else f", masked {self.masked:.2%}"
        return f"{self.accuracy:.2%} on {self.set_name} ({error}, {self.num_pairs:,} pairs){masked}"


@dataclass(frozen=True, slots=True)
class Facts:
    """A finished run."""

    profile: TrainProfile
    records: Sequence[Mapping[str, Any]]

    def event(self, name: str) -> Mapping[str, Any]:
        """Return the last record of an event; empty where there is none."""
        return next((record for record in reversed(self.records) if record["event"] == name), {})

    def looks(self) -> list[list[Accuracy]]:
        """Return the evaluations by step, each with all sets of the run; what was cut short is left out."""
        by_step: dict[int, dict[str, Accuracy]] = {}
        for record in self.records:
            found = _accuracy(record)
            if found is not None:
                by_step.setdefault(found.step, {})[found.set_name] = found
        most = max(map(len, by_step.values()), default=0)
        return [list(sets.values()) for _, sets in sorted(by_step.items()) if len(sets) == most]

    def best(self) -> list[Accuracy]:
        """Return the first of the looks with the largest mean, as the loop chooses ``best.pt``; empty without one."""
        return max(self.looks(), key=_mean, default=[])

    def last(self) -> list[Accuracy]:
        """Return the look after the last step; empty without one."""
        looks = self.looks()
        return looks[-1] if looks and looks[-1][0].step == self.profile.run.steps else []

    def versions(self) -> dict[str, str]:
        """Return the versions that trained, as far as the record has them."""
        torch = str(self.event("start").get("torch") or self.event("resume").get("torch") or _version("torch"))
        return {"attfc": _version("attfc"), "torch": torch, "python": platform.python_version()}


def read_facts(folder: Path, profile_name: str) -> Facts:
    """Return the facts of the run in `folder`.

    Args:
        profile_name: of the file with its profile.

    Raises:
        ProfileError: its profile cannot be read.
    """
    return Facts(load_profile(folder / profile_name), read_log(folder))


def figure(record: Mapping[str, Any], key: str) -> float | None:
    """Return a finite number of a record, which anything may have written; None where there is none."""
    value = record.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _accuracy(record: Mapping[str, Any]) -> Accuracy | None:
    accuracy, pairs = figure(record, "accuracy"), figure(record, "num_pairs")
    if record["event"] != "evaluate" or accuracy is None or not 0 <= accuracy <= 1 or pairs is None or pairs < 1:
        return None
    return Accuracy(str(record.get("set")), record["step"], accuracy, int(pairs), figure(record, "masked_accuracy"))


def _mean(sets: Sequence[Accuracy]) -> float:
    return sum(each.accuracy for each in sets) / len(sets)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"
