"""A prior for the accuracy of a setting, in points relative to a full FC layer: published tables, interpolated, with bands.

It is a prior, not a prediction: it orders settings before anything was trained on the user's data. Every part says where its
figures are from and how far they can be trusted (`ASSUMPTIONS`, which ``attfc-plan explain`` lists); ``attfc-plan tune``
replaces the prior by measurements. Nothing is credited for beating a full FC layer.
Run ``python -m attfc_planner.accuracy.prior`` for a few settings.

"Heads" below is this project's own comparison (benchmarks/results/heads-short.md): LFW folds 1-7, 1,156 identities, 32 pixels,
300 steps of 128 images, three seeds, half widths of 1 to 5 points. "Prototype" is an earlier one on the same faces (49,500
images, 64 pixels, one seed), whose images came in uniform order and which had no batch negatives.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from attfc_train.document import StorageName
from attfc_train.heads.attfc.settings import AttFCSettings
from attfc_train.heads.containers.settings import ContainerSettings
from attfc_train.heads.dcq.settings import DCQSettings
from attfc_train.heads.f2c.settings import F2CSettings
from attfc_train.heads.full_fc.settings import FullFCSettings
from attfc_train.heads.learned.settings import LearnedSettings
from attfc_train.heads.partial_fc.settings import PartialFCSettings
from attfc_train.heads.settings import HeadSettings
from attfc_train.profile.prediction import Interval
from attfc_train.profile.profile import OptimSettings, TrainProfile

Points = tuple[tuple[float, float], ...]

COVERAGE: Points = ((0.0018, -3.2), (0.05, -0.64), (0.1, -0.20), (0.2, 0.0), (1.0, 0.0))
"""Share of the identities scored -> points. InsightFace's Partial FC table, WebFace12M r100, MFR-ALL: 94.69 at full, 94.71 at
0.3, 94.75 at 0.2 (both count as 0), 94.49 at 0.1, 94.05 at 0.05; and WebFace42M r100: 93.08 at 0.0018 against 96.27 at 0.2."""

RESIDENT_SHARE = 0.5
"""Share of `COVERAGE` that a container loses whose identities' images come while their slots live (data.draw ``residency``) and
which scores a batch's new centers too (head.batch_negatives). Heads: C = 30 % is level with a full FC layer (+1.5 points, AUC
+1.6), C = 10 % ahead of Partial FC 0.1 (+0.5 on LFW, and on 20,000 computed identities by far). So the truth is taken to lie
between nothing and the published loss, and the band reaches both."""

SHRINKAGE = 0.25
"""Error rates of the small runs are about 16 %, those of full-length ones about 4 %: differences are taken to shrink alike."""

EVICTION = -0.33
"""Points when 70 % of the identities have no slot, in uniform order or without batch negatives: prototype, 82.8 against 84.1,
times `SHRINKAGE`."""

RING = -4.2
"""The published ring (policy ``fifo``) with its independent draws, two references and no batch negatives, all together: heads,
66.4 against 83.2 for a full FC layer, times `SHRINKAGE`."""

QUEUE_LENGTH: Points = ((1.0, -3.8), (2.0, -0.62), (3.3, 0.0), (4.0, -0.15), (8.0, -0.38))
"""L -> points against L = 3.3. Heads, averaged, a slot for everyone: 68.6, 81.4, 83.9, 83.3, 82.4 (three seeds each), times
`SHRINKAGE`."""

REFERENCES: Points = ((0, -0.64), (1, 0.0), (2, 0.0))
"""R -> points against R = 1. R = 0: prototype, without eviction 81.5 against 84.1. R = 2: heads, +0.4 with a slot for everyone,
+0.5 with C = 30 % and +3.9 with C = 10 % (three seeds each), which is not credited: nothing beats a full FC layer here."""
EVICTION_WITHOUT_REFERENCES = -1.2
"""Points more that R = 0 lost in the prototype when 70 % of the identities had no slot (79.7 against 82.8 at fewer images)."""

RESIDENT_WITHOUT_REFERENCES = -0.11
"""R = 0 with residency and batch negatives, a slot for everyone: heads +0.3 (three seeds) and the prototype's -2.6 (one), the
mean over seeds, times `SHRINKAGE`."""
RESIDENT_EVICTION_WITHOUT_REFERENCES = -0.22
"""Points more at C = 30 %: heads -0.7 (three seeds) and the prototype's -3.1 (one), likewise, less the line above."""

ENCODER_TIME_CONSTANT_STEPS = 1000.0
"""1 / (1 - m) at the published m = 0.999: steps in which the class encoder forgets."""

AGE_POINTS_PER_DECADE = -0.5
"""Points for every tenfold age of the oldest centers beyond one time constant. An assumption: AttFC's published configuration
(C = 27,648, B = 384) is at 0.07 time constants, and nothing is known beyond; the band is as wide as the penalty."""

SMALL_BATCH_POINTS_PER_HALVING = -0.1
"""Below 128. Assumption; from 1,024 to 8,192 InsightFace's WebFace42M r50 rows (93.83, 93.96, 94.04) are flat."""

STORAGE = {"fp32": 0.0, "bf16": -0.01, "int8": -0.03, "fp8": -0.1}
"""Type of the stored centers -> points. Assumption from the noise that rounding adds to a center (about 0.2 %, 0.8 % and 2.6 %
of its length); the bands are as wide as 0.05 points and the penalty."""

BACKBONE = {"mbf": -18.8, "r18": -17.56, "r50": -2.66, "r100": 0.0, "r200": 1.01}
"""Points against r100, MFR-ALL, InsightFace's table: WebFace42M at sample rate 0.3 for r18, r50, r100, r200 (79.13, 94.03,
96.69, 97.70); mbf from MS1MV3 and Glint360K (63.78 and 70.18 against 81.97 and 89.52), the mean. No row has r34 or tiny."""
BACKBONE_BAND = 0.1
"""Half width as a share of the difference: between the data sets of that table, r50's distance to r100 is 2.66 to 3.18."""

NO_MOMENTUM_BAND = 0.5
"""Half width in points for learned rows without a momentum buffer: not measured here."""
UNKNOWN_BAND = 5.0
"""Half width in points for a kind of head that is not in `PRIORS`."""

SOURCE = (
    "prior: Partial FC sampling-rate tables (InsightFace, WF12M/WF42M r100 MFR-ALL), attfc's own small runs for R, L and "
    "eviction, assumed cost of stale centers; not measured on your data"
)
SOURCES = {
    "attfc": SOURCE,
    "dcq": "prior: DCQ's paper (10 % of the classes level with all); the band reaches attfc's small runs; not on your data",
    "f2c": "prior: F2C's paper (accuracy comparable to a full FC layer's), in the band of DCQ; not measured on your data",
    "full_fc": "prior: a full FC layer is what accuracy is measured against",
    "partial_fc": "prior: Partial FC sampling-rate tables (InsightFace, WF12M/WF42M r100 MFR-ALL); not measured on your data",
}
"""Kind of head -> where its prior is from."""

ASSUMPTIONS = (
    "Identities scored: Partial FC's published loss by sampling rate (WebFace12M and 42M, r100, MFR-ALL). A container with the "
    "residency order and batch negatives loses between nothing and that (attfc's runs on 1,156 and 20,000 identities: C = 30 % "
    "level with full FC).",
    "Order: otherwise eviction costs up to 0.33 points (prototype on 1,156 identities, one seed); the published ring 4.2.",
    "DCQ: its paper has 10 % of the classes level with all; the band reaches what AttFC's ring, which is alike, lost in 300 "
    "steps.",
    "F2C: its paper has a pool comparable to a full FC layer; the band is DCQ's.",
    "Differences of attfc's small runs, whose errors are about 16 %, are divided by four for full-length training.",
    "Age: a center older than 1,000 steps (the class encoder's memory at momentum 0.999) costs 0.5 points a decade. Assumed.",
    "Queue length and references: attfc's runs on 1,156 identities (three seeds a setting), R = 0 also the prototype. None on "
    "an IResNet. What a second reference gains is not credited.",
    "Batch size: flat from 128 on (published from 1,024 to 8,192), 0.1 points a halving below. Assumed.",
    "Accumulation and checkpointing: no loss; a part has 32 images or more, where BatchNorm's error is flat (Wu and He 2018, "
    "table 2: 23.6 % at 32, 23.7 % at 16, 24.8 % at 8 images). Precision: no loss.",
    "Storage: rounding noise, 0.01 (bf16), 0.03 (int8) and 0.1 (fp8) points. Assumed.",
    "Backbones, where several are compared: InsightFace's MFR-ALL table (WebFace42M; mbf from MS1MV3 and Glint360K).",
    "Parts add up, their bands in quadrature, and nothing is credited for beating a full FC layer.",
)
"""The prior's assumptions, a line each."""


@dataclass(frozen=True)
class Part:
    """A contribution: points relative to a full FC layer, and half the width of its band."""

    name: str
    points: float
    half_band: float


def accuracy_parts(profile: TrainProfile, compared_to: str | None = None) -> tuple[Part, ...]:
    """Return the contributions to a profile's accuracy; none for a full FC layer, which is the measure.

    Args:
        profile: with data.num_ids.
        compared_to: the backbone of that full FC layer, one of `BACKBONE`; None: the profile's own.
    """
    network = () if compared_to is None else (_backbone(profile.model.backbone, compared_to),)
    return (*PRIORS.get(profile.head.kind, _unknown_parts)(profile, profile.head), *network)


def _full_parts(profile: TrainProfile, head: FullFCSettings) -> tuple[Part, ...]:
    """Return what rows lose that are not those of the measure: a full FC layer in fp32 with momentum."""
    del profile
    return _learned_parts(head)


def _learned_parts(head: LearnedSettings) -> tuple[Part, ...]:
    """Return the contributions of learned rows; rounding them is taken to cost what it costs centers."""
    storage = () if head.storage == "fp32" else (_storage(head.storage),)
    return storage if head.momentum else (*storage, Part("rows without momentum", 0.0, NO_MOMENTUM_BAND))


def _sampled_parts(profile: TrainProfile, head: PartialFCSettings) -> tuple[Part, ...]:
    """Return the loss by the share of the identities that a step scores: a sample is at least the batch."""
    batch_share = min(1.0, profile.optim.batch_size / profile.num_ids)
    return (_coverage(max(head.sample_rate, batch_share)), *_learned_parts(head))


def _unknown_parts(profile: TrainProfile, head: HeadSettings) -> tuple[Part, ...]:
    del profile
    return (Part(f"head {head.kind}, of which nothing is known", 0.0, UNKNOWN_BAND),)


def _container_parts(profile: TrainProfile, head: AttFCSettings) -> tuple[Part, ...]:
    """Return the contributions of a container; figures of small runs get a band of 0.3 points and half of the difference."""
    if head.policy == "fifo":
        return (*_ring_parts(profile, head), Part("published ring", RING, abs(RING) / 2))
    slots = _slots(profile, head)
    share = min(1.0, slots / profile.num_ids)
    batch_size = profile.optim.batch_size
    # Residency: an identity's images come while it is open, and its slot lives as long. So nobody waits longer than the window.
    is_resident = profile.data.draw == "residency" and head.batch_negatives
    open_ids = (profile.window or slots) if is_resident else slots
    eviction = 0.0 if is_resident else EVICTION * _evicted(share)
    queue = _interpolate(QUEUE_LENGTH, head.queue_length)
    references = _references(head.num_references, share, is_resident)
    return (
        _coverage(share, RESIDENT_SHARE if is_resident else 1.0),
        _age(min(slots, open_ids) / batch_size),
        _batch_size(batch_size),
        _storage(head.storage),
        Part("eviction", eviction, abs(eviction)),
        Part("queue length", queue, 0.3 + 0.5 * abs(queue)),
        Part("references", references, 0.3 + 0.5 * abs(references)),
    )


def _ring_parts(profile: TrainProfile, head: ContainerSettings) -> tuple[Part, ...]:
    """Return the contributions of a ring, AttFC's or DCQ's, but for being one."""
    slots = _slots(profile, head)
    return (
        _coverage(min(1.0, slots / profile.num_ids)),
        _age(slots / profile.optim.batch_size),
        _batch_size(profile.optim.batch_size),
        _storage(head.storage),
    )


def _queue_parts(profile: TrainProfile, head: DCQSettings) -> tuple[Part, ...]:
    """Return the contributions of DCQ: its paper's claim, in a band that reaches what small runs of such a ring lost."""
    return (*_ring_parts(profile, head), Part("one image a class", 0.0, abs(RING)))


def _pool_parts(profile: TrainProfile, head: F2CSettings) -> tuple[Part, ...]:
    """Return the contributions of F2C: its paper's claim, in a band as wide as that of its relative."""
    return (*_ring_parts(profile, head), Part("a pool of two features a class", 0.0, abs(RING)))


def _slots(profile: TrainProfile, head: ContainerSettings) -> float:
    return head.dcc_size or head.dcc_share * profile.num_ids


PRIORS: dict[str, Callable[[TrainProfile, Any], tuple[Part, ...]]] = {
    "attfc": _container_parts,
    "dcq": _queue_parts,
    "f2c": _pool_parts,
    "full_fc": _full_parts,
    "partial_fc": _sampled_parts,
}
"""Kind of head -> its contributions, from a profile and its head's settings. A kind that is not here counts as level with a
full FC layer, in a band of `UNKNOWN_BAND`."""


def accuracy_prior(profile: TrainProfile, compared_to: str | None = None) -> Interval:
    """Return the sum of the parts with its band.

    Args:
        profile, compared_to: see `accuracy_parts`.
    """
    parts = accuracy_parts(profile, compared_to)
    middle = sum(part.points for part in parts)
    # Bands in quadrature, as of independent errors: half^2 = sum of half_i^2.
    half = math.sqrt(sum(part.half_band**2 for part in parts))
    return Interval(low=round(middle - half, 3), high=round(middle + half, 3), source=source_of(profile))


def source_of(profile: TrainProfile) -> str:
    """Return the source of a profile's prior, in words."""
    if profile.head.kind in PRIORS:
        return SOURCES.get(profile.head.kind, SOURCE)
    return f"prior: nothing is known of head '{profile.head.kind}', taken as level with full FC; not measured on your data"


def midpoint(interval: Interval) -> float:
    """Return the middle of a band."""
    return (interval.low + interval.high) / 2


def _coverage(share: float, kept: float = 1.0) -> Part:
    """Return the published loss times `kept`, in a band that with `RESIDENT_SHARE` reaches the published loss and nothing."""
    points = _interpolate(COVERAGE, share)
    return Part("identities scored", kept * points, 0.15 + 0.5 * abs(points))


def _batch_size(batch_size: int) -> Part:
    points = SMALL_BATCH_POINTS_PER_HALVING * max(0.0, math.log2(128 / batch_size))
    return Part("batch size", points, 0.1 + abs(points))


def _storage(storage: StorageName) -> Part:
    points = STORAGE[storage]
    return Part("storage", points, 0.0 if storage == "fp32" else 0.05 - points)


def _evicted(share: float) -> float:
    """Return the identities without a slot, as a share of the 70 % that was measured; 1 beyond."""
    return min(1.0, (1 - share) / 0.7)


def _references(num_references: int, share: float, is_resident: bool) -> float:
    """Return points against R = 1; without references eviction costs more, in both orders of images."""
    if num_references:
        return _interpolate(REFERENCES, num_references)
    if is_resident:
        return RESIDENT_WITHOUT_REFERENCES + RESIDENT_EVICTION_WITHOUT_REFERENCES * _evicted(share)
    return _interpolate(REFERENCES, 0) + EVICTION_WITHOUT_REFERENCES * _evicted(share)


def _age(steps: float) -> Part:
    """Return the cost of old centers.

    Args:
        steps: until an identity is seen again or evicted: C / B, or open identities / B under residency.
    """
    decades = max(0.0, math.log10(steps / ENCODER_TIME_CONSTANT_STEPS))
    points = AGE_POINTS_PER_DECADE * decades
    return Part("age of centers", points, abs(points))


def _backbone(name: str, compared_to: str) -> Part:
    points = BACKBONE[name] - BACKBONE[compared_to]
    return Part("backbone", points, BACKBONE_BAND * abs(points))


def _interpolate(points: Points, x: float) -> float:
    """Return y at `x`, piecewise linear in log x; beyond the ends the outer slope goes on.

    Args:
        points: (x, y) in ascending order; x = 0, which has no logarithm, is a knot of its own.
    """
    knots = dict(points)
    if x in knots:
        return knots[x]
    # The first piece that ends at or beyond x, else the last; below the first knot that is the first piece.
    pieces = [(left, right) for left, right in itertools.pairwise(points) if left[0] > 0]
    (x0, y0), (x1, y1) = next((piece for piece in pieces if x <= piece[1][0]), pieces[-1])
    # y = y0 + (y1 - y0) log(x / x0) / log(x1 / x0)
    return y0 + (y1 - y0) * math.log(x / x0) / math.log(x1 / x0)


if __name__ == "__main__":
    for share_, batch_size_, num_references_ in ((1.0, 128, 1), (0.2, 512, 1), (0.01, 128, 0)):
        head_ = AttFCSettings(dcc_share=share_, num_references=num_references_)
        example = TrainProfile(head=head_, optim=OptimSettings(batch_size=batch_size_)).resolve(2_059_906)
        prior = accuracy_prior(example)
        print(f"share {share_}, B {batch_size_}, R {num_references_}: {prior.low:+.2f} .. {prior.high:+.2f} points")
        for part_ in accuracy_parts(example):
            print(f"    {part_.name}: {part_.points:+.2f} ± {part_.half_band:.2f}")
