"""Cuts a data set into identities to train on and identities to verify with; nothing is copied (`attfc_train.data.part`).

The held-out people are the last places of the data set's order and short trainings take places from its front, so no short
training, whatever its size, sees anybody who is verified.
"""

from __future__ import annotations

from dataclasses import dataclass

from attfc_train.data.overlap import may_share_identities
from attfc_train.data.part import part_of_spec
from attfc_train.data.reading import existing_path
from attfc_train.errors import DataError, VerificationSetError

SHARE = 0.1
"""Share of the identities that is held out, within the bounds below."""
MOST = 2000
"""Most held-out identities: 6,000 pairs of so many people are nearly independent; more would only take from the training."""
FEWEST = 50
LARGEST_SHARE = 0.25
LEAST_IDS = 40
"""With fewer a quarter of the identities makes too few pairs to compare anything."""


@dataclass(frozen=True)
class Split:
    """Some identities of a data set for training, the others for verification."""

    whole: str
    """The data set as `open_dataset` takes it, without a part."""
    first: int
    """Place of the first identity that may be trained on."""
    num_ids: int
    """Identities in all."""
    num_held_out: int
    """0 if the user gave verification sets."""
    val: tuple[str, ...]
    """Specs of the verification sets."""

    @property
    def num_trainable(self) -> int:
        """Return the number of identities that a short training may see."""
        return self.num_ids - self.num_held_out

    def training_part(self, num_ids: int) -> str:
        """Return the spec of the first `num_ids` trainable identities."""
        assert 2 <= num_ids <= self.num_trainable, "no such part"
        return f"{self.whole}@{self.first}:{self.first + num_ids}"


def split(data: str, num_ids: int, val: tuple[str, ...] = ()) -> Split:
    """Return how tune uses `data`, which has `num_ids` identities and may itself be a part.

    Args:
        val: the user's verification sets; without them people are held out.

    Raises:
        VerificationSetError: one of them shares people with `data`.
        DataError: too few identities to hold some out.
    """
    whole, first = _whole_and_first(data)
    for spec in val:
        if may_share_identities(data, spec):
            rule = "--val must hold people that are not trained on"
            remedy = "Give other people's images, or leave --val out: tune then holds people out itself."
            raise VerificationSetError(rule, f"'{spec}', in --data '{data}'", remedy)
    if val:
        return Split(whole, first, num_ids, 0, val)
    if num_ids < LEAST_IDS:
        rule = f"tune needs {LEAST_IDS} identities to hold some out for verification"
        raise DataError(rule, f"{num_ids} in '{data}'", "Give --val, or a larger data set.")
    held_out = min(max(round(SHARE * num_ids), FEWEST), MOST, int(LARGEST_SHARE * num_ids))
    stop = first + num_ids
    return Split(whole, first, num_ids, held_out, (f"{whole}@{stop - held_out}:{stop}",))


def _whole_and_first(data: str) -> tuple[str, int]:
    """Return the data set without its part, and the part's first place; ``faces@0:9`` may be a file's real name."""
    whole, places = part_of_spec(data)
    if places is None or existing_path(data) is not None:
        return data, 0
    return whole, places[0]
