"""What the regression sees of a setting: features of its head, its batch size and its precision, and the accuracy prior.

A kind of head may register features of its own in `HEAD_FEATURES`; of any other its knobs are the features.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

from attfc_planner.accuracy.prior import accuracy_prior, midpoint
from attfc_planner.knobs.space import BACKBONE, knobs_of
from attfc_train.document import Value
from attfc_train.heads.attfc.settings import AttFCSettings
from attfc_train.heads.knob import Knob
from attfc_train.heads.settings import HeadSettings
from attfc_train.profile.profile import TrainProfile

POINTS_PER_LOG_ODDS = 100 * 0.04 * 0.96
"""Points of accuracy that a small change of the log odds is in a full-length training, whose errors are about 4 %: what the
prior speaks of, and so the currency of every figure in points."""
USUAL_QUEUE_LENGTH, USUAL_BATCH_SIZE = 3.3, 128
ROUNDING = {"fp32": 0.0, "bf16": 0.25, "int8": 0.5, "fp8": 1.0}
"""How coarse centers are stored, in the order of `attfc_planner.accuracy.prior.STORAGE`; 1 for the coarsest."""

LEVEL, CONTAINER, PRIOR = "level", "container", "prior"
SLOPES: Final = (
    "slots",
    "shorter queue",
    "longer queue",
    "no references",
    "two references",
    "references x slots",
    "batch size",
    "storage",
    "precision",
)
FEATURES: Final = (LEVEL, CONTAINER, PRIOR, *SLOPES)
"""Of an AttFC head."""


def features(profile: TrainProfile) -> dict[str, float]:
    """Return feature -> value of a resolved profile; what is left out is 0."""
    batch_size = math.log2(profile.optim.batch_size / USUAL_BATCH_SIZE)
    common = {LEVEL: 1.0, "batch size": batch_size, "precision": float(profile.run.precision != "fp32")}
    return common | HEAD_FEATURES.get(profile.head.kind, _knob_features)(profile, profile.head)


def feature_names(profile: TrainProfile) -> tuple[str, ...]:
    """Return the names of the features of settings with such a head, in the order of the regression."""
    if profile.head.kind in HEAD_FEATURES:
        return FEATURES
    return (LEVEL, CONTAINER, PRIOR, "batch size", "precision", *(knob.name for knob in profile.head.knobs()))


def _attfc_features(profile: TrainProfile, head: AttFCSettings) -> dict[str, float]:
    """Return the features of a container: slots, queue length, references and storage, each from its usual value."""
    share = math.log10(profile.dcc_size / profile.num_ids)
    length = math.log2(head.queue_length / USUAL_QUEUE_LENGTH)
    none = float(head.num_references == 0)
    two = float(head.num_references >= 2)
    return {
        CONTAINER: 1.0,
        PRIOR: _prior(profile),
        "slots": share,
        "shorter queue": max(0.0, -length),
        "longer queue": max(0.0, length),
        "no references": none,
        "two references": two,
        "references x slots": (none - two) * share,
        "storage": ROUNDING[head.storage],
    }


def _knob_features(profile: TrainProfile, head: HeadSettings) -> dict[str, float]:
    """Return the features of a head that nobody knows: the prior, and every knob as its place among its values.

    A place is a share of the way from the first value to the last: a slope then says what the whole way changes.
    """
    found = {CONTAINER: 1.0, PRIOR: _prior(profile)}
    for knob in head.knobs():
        value = head.value_of(knob.name, profile.num_ids)
        last = max(1, len(knob.values) - 1)
        found[knob.name] = knob.values.index(value) / last if value in knob.values else 0.5
    return found


def _prior(profile: TrainProfile) -> float:
    return midpoint(accuracy_prior(profile)) / POINTS_PER_LOG_ODDS


def _baseline_features(profile: TrainProfile, head: HeadSettings) -> dict[str, float]:
    """Return nothing: a full FC layer has the level alone."""
    del profile, head
    return {}


HEAD_FEATURES: dict[str, Callable[[TrainProfile, Any], dict[str, float]]] = {
    "attfc": _attfc_features,
    "full_fc": _baseline_features,
}
"""Kind of head -> its features; a kind that is not here has those of its knobs."""


def compared_knobs(profile: TrainProfile) -> dict[str, float | str]:
    """Return what is compared with what was tried, in the options' and the profile's words; nothing for a full FC layer."""
    head = profile.head
    if head.kind == "full_fc":
        return {}
    compared = [knob for knob in knobs_of(type(head)) if "accuracy" in knob.affects and knob is not BACKBONE]
    return {knob.name: _value(profile, knob) for knob in compared}


def _value(profile: TrainProfile, knob: Knob) -> Value:
    if knob.section == "head":
        return profile.head.value_of(knob.name, profile.num_ids)
    value: Value = getattr(getattr(profile, knob.section), knob.name)
    return value
