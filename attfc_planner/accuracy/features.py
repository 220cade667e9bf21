"""The features that the regression sees of a setting: of its head, batch size and precision, and the accuracy prior.

A kind of head may register features of its own in `HEAD_FEATURES`; for any other its knobs are the features.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

from attfc_planner.accuracy.prior import accuracy_prior, midpoint
from attfc_planner.knobs.space import BACKBONE, knobs_of
from attfc_train.document import Value
from attfc_train.heads.attfc.settings import AttFCSettings
from attfc_train.heads.kinds import BASELINE
from attfc_train.heads.knob import Knob
from attfc_train.heads.settings import HeadSettings
from attfc_train.profile.profile import TrainProfile

POINTS_PER_LOG_ODDS = 100 * 0.04 * 0.96
"""Points of accuracy in a small change of the log odds, at the 4 % errors of a full-length training: 100 x d a / d log odds =
100 a (1 - a). The prior is about such trainings, and so is every figure in points."""
USUAL_QUEUE_LENGTH = 3.3
USUAL_BATCH_SIZE = 128
ROUNDING = {"fp32": 0.0, "bf16": 0.25, "int8": 0.5, "fp8": 1.0}
"""Storage -> coarseness of the stored centers, in the order of `attfc_planner.accuracy.prior.STORAGE`; 1 for the coarsest."""

LEVEL = "level"
CONTAINER = "container"
PRIOR = "prior"
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
"""Features of an AttFC head."""


def features(profile: TrainProfile) -> dict[str, float]:
    """Return feature -> value of a resolved profile; a feature that is left out is 0."""
    batch_size = math.log2(profile.optim.batch_size / USUAL_BATCH_SIZE)
    common = {LEVEL: 1.0, "batch size": batch_size, "precision": float(profile.run.precision != "fp32")}
    return common | HEAD_FEATURES.get(profile.head.kind, _knob_features)(profile, profile.head)


def feature_names(profile: TrainProfile) -> tuple[str, ...]:
    """Return the names of the features of settings with such a head, in the order of the regression."""
    if profile.head.kind in HEAD_FEATURES:
        return FEATURES
    return (LEVEL, CONTAINER, PRIOR, "batch size", "precision", *map(_feature_of, profile.head.knobs()))


def _attfc_features(profile: TrainProfile, head: AttFCSettings) -> dict[str, float]:
    """Return the features of a container: slots, queue length, references and storage, each from its usual value."""
    decades = math.log10(profile.dcc_size / profile.num_ids)
    doublings = math.log2(head.queue_length / USUAL_QUEUE_LENGTH)
    has_none = float(head.num_references == 0)
    has_two = float(head.num_references >= 2)
    return {
        CONTAINER: 1.0,
        PRIOR: _prior(profile),
        "slots": decades,
        # Accuracy falls on both sides of the usual length, at slopes of their own.
        "shorter queue": max(0.0, -doublings),
        "longer queue": max(0.0, doublings),
        "no references": has_none,
        "two references": has_two,
        # References may be worth more where identities are evicted: one slope, of opposite sign for R = 0 and R = 2.
        "references x slots": (has_none - has_two) * decades,
        "storage": ROUNDING[head.storage],
    }


def _knob_features(profile: TrainProfile, head: HeadSettings) -> dict[str, float]:
    """Return the features of a head of any kind: the prior, and every knob as its place among its values.

    A place is a share of the way from the first value to the last, so that a slope is what the whole way changes; a value that
    is not searched lies half way.
    """
    values = {CONTAINER: 1.0, PRIOR: _prior(profile)}
    for knob in head.knobs():
        value = head.value_of(knob.name, profile.num_ids)
        last = max(1, len(knob.values) - 1)
        values[_feature_of(knob)] = knob.values.index(value) / last if value in knob.values else 0.5
    return values


def _feature_of(knob: Knob) -> str:
    """Return the name of a knob's feature; one that is called like a feature of every head is told apart."""
    return f"{knob.name} of the head" if knob.name in (LEVEL, CONTAINER, PRIOR, "precision") else knob.name


def _prior(profile: TrainProfile) -> float:
    """Return the middle of the prior in log odds."""
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
    """Return knob -> value of the knobs in which a setting may lie beyond what was tried; none for a full FC layer."""
    head = profile.head
    if head.kind == BASELINE:
        return {}
    compared = [knob for knob in knobs_of(type(head)) if "accuracy" in knob.affects and knob is not BACKBONE]
    return {knob.name: _value(profile, knob) for knob in compared}


def _value(profile: TrainProfile, knob: Knob) -> Value:
    if knob.section == "head":
        return profile.head.value_of(knob.name, profile.num_ids)
    value: Value = getattr(getattr(profile, knob.section), knob.name)
    return value
