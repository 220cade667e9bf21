"""The features that the regression sees of a setting: of its head, batch size and precision, and the accuracy prior.

All kinds of heads stand side by side in one regression. They share the level of a full FC layer, the prior, batch size and
precision; each has a level of its own, and slopes of its own knobs. A kind may register features in `HEAD_FEATURES`; for any
other its knobs are the features.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from attfc_planner.accuracy.prior import POINTS_PER_LOG_ODDS, accuracy_prior, midpoint
from attfc_planner.accuracy.prior_features import ROUNDING, USUAL_QUEUE_LENGTH
from attfc_planner.knobs.space import BACKBONE, HEAD, knobs_of
from attfc_train.document import Value
from attfc_train.heads.attfc.settings import AttFCSettings
from attfc_train.heads.kinds import BASELINE
from attfc_train.heads.knob import Knob
from attfc_train.heads.settings import HeadSettings
from attfc_train.profile.profile import TrainProfile

USUAL_BATCH_SIZE = 128
LEVEL = "level"
PRIOR = "prior"
BATCH_SIZE = "batch size"
PRECISION = "precision"
STORAGE = "storage"
"""How coarse stored centers are, of whatever head."""


def features(profile: TrainProfile) -> dict[str, float]:
    """Return feature -> value of a resolved profile, with all features that its kind of head has; any other is 0."""
    head = profile.head
    shared = {
        LEVEL: 1.0,
        PRIOR: midpoint(accuracy_prior(profile)) / POINTS_PER_LOG_ODDS,  # in log odds
        BATCH_SIZE: math.log2(profile.optim.batch_size / USUAL_BATCH_SIZE),
        PRECISION: float(profile.run.precision != "fp32"),
    }
    level = {} if head.kind == BASELINE else {level_of(head.kind): 1.0}  # the baseline's level is the shared one
    own = HEAD_FEATURES.get(head.kind, _knob_features)(profile, head)
    return shared | level | {_own(head.kind, name): value for name, value in own.items()}


def level_of(kind: str) -> str:
    """Return the name of the feature by which a kind of head differs from a full FC layer."""
    return _own(kind, LEVEL)


def is_level(name: str) -> bool:
    """Return whether a feature is the level of a kind of head."""
    return name.endswith(f" {LEVEL}")


def is_storage(name: str) -> bool:
    """Return whether a feature is how coarse a kind's stored centers are."""
    return name.endswith(f" {STORAGE}")


def _own(kind: str, name: str) -> str:
    return f"{kind} {name}"


def _attfc_features(profile: TrainProfile, head: AttFCSettings) -> dict[str, float]:
    """Return the features of a container: slots, queue length, references and storage, each from its usual value."""
    decades = math.log10(profile.dcc_size / profile.num_ids)
    doublings = math.log2(head.queue_length / USUAL_QUEUE_LENGTH)
    has_none = float(head.num_references == 0)
    has_two = float(head.num_references >= 2)
    return {
        "slots": decades,
        # Accuracy falls on both sides of the usual length, at slopes of their own.
        "shorter queue": max(0.0, -doublings),
        "longer queue": max(0.0, doublings),
        "no references": has_none,
        "two references": has_two,
        # References may be worth more where identities are evicted: one slope, of opposite sign for R = 0 and R = 2.
        "references x slots": (has_none - has_two) * decades,
        STORAGE: ROUNDING[head.storage],
    }


def _knob_features(profile: TrainProfile, head: HeadSettings) -> dict[str, float]:
    """Return the features of a head of any kind: every knob as its place among its values.

    A place is a share of the way from the first value to the last, so that a slope is what the whole way changes; a value that
    is not searched lies half way. So the baseline at the first values of its knobs is the layer that all are compared with.
    """
    places = {}
    for knob in head.knobs():
        value = head.value_of(knob.name, profile.num_ids)
        last = max(1, len(knob.values) - 1)
        name = f"{knob.name} of the head" if knob.name == LEVEL else knob.name
        places[name] = knob.values.index(value) / last if value in knob.values else 0.5
    return places


HEAD_FEATURES: dict[str, Callable[[TrainProfile, Any], dict[str, float]]] = {"attfc": _attfc_features}
"""Kind of head -> its own features, the same names for all settings; a kind that is not here has those of its knobs."""


def compared_knobs(profile: TrainProfile) -> dict[str, float | str]:
    """Return knob -> value of the knobs in which a setting may lie beyond what was tried, the kind of head first."""
    compared = [knob for knob in knobs_of(type(profile.head)) if "accuracy" in knob.affects and knob is not BACKBONE]
    return {knob.name: _value(profile, knob) for knob in compared}


def _value(profile: TrainProfile, knob: Knob) -> Value:
    if knob is HEAD:
        return profile.head.kind
    if knob.section == "head":
        return profile.head.value_of(knob.name, profile.num_ids)
    value: Value = getattr(getattr(profile, knob.section), knob.name)
    return value
