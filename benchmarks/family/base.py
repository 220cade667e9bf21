"""The run that every arm is a change of: attfc's recipe for the preset ``tiny`` at 32 pixels."""

from __future__ import annotations

from typing import Final

from attfc_train.data.source import open_dataset
from attfc_train.profile.file import with_overrides
from attfc_train.profile.profile import TrainProfile
from benchmarks.heads.data_sets import DataSet
from benchmarks.heads.training import settings_on
from benchmarks.heads.variants import VARIANTS, Variant, profile_of

BASE: Final[Variant] = VARIANTS["AttFC, C 100 %, R=0, slots learn at 1"]
RATE: Final = 0.05
"""Learning rate: the one that the comparison of heads chose for AttFC on the real faces."""
OWN_SEED: Final = 100
"""Of networks that are trained to help others: none of the experiments'."""


def base_profile(data: DataSet, steps: int, seed: int, sets: tuple[str, ...] = ()) -> TrainProfile:
    """Return the resolved profile of a run on a data set.

    Args:
        sets: settings as ``--set`` takes them.
    """
    base = profile_of(BASE, data.batch_size, steps, seed, RATE)
    profile = with_overrides(base, [*settings_on(data, data.test[:1]), *sets])
    return profile.resolve(open_dataset(profile.data.path or "").index.num_ids)
