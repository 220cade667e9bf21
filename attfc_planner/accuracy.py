"""A prior for the accuracy of a setting, in points relative to a full FC layer: published tables, interpolated, with bands.

It is a prior, not a prediction: it orders settings sensibly before anything was trained on the user's data. Every part says
where its figures are from and how far they can be trusted; `tune` replaces the prior by measurements. Nothing is credited for
beating a full FC layer.
Run ``python -m attfc_planner.accuracy`` for a few settings.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

from attfc_train.prediction import Interval
from attfc_train.profile import AttFCSettings, FullFCSettings, OptimSettings, PartialFCSettings, TrainProfile

Points = tuple[tuple[float, float], ...]

COVERAGE: Points = ((0.0018, -3.2), (0.05, -0.64), (0.1, -0.20), (0.2, 0.0), (1.0, 0.0))
"""Share of the identities scored -> points. InsightFace's Partial FC table, WebFace12M r100, MFR-ALL: 94.69 at full, 94.71 at
0.3, 94.75 at 0.2 (both count as 0), 94.49 at 0.1, 94.05 at 0.05; and WebFace42M r100: 93.08 at 0.0018 against 96.27 at 0.2."""

QUEUE_LENGTH: Points = ((1.0, -0.34), (3.3, 0.0), (5.0, -0.43), (8.0, -0.92))
"""L -> points against L = 3.3. attfc's own prototype (1,156 identities, full FC 79.9 at 48,600 images) at equal numbers of
images, times `SHRINKAGE`; 8 is extrapolated from 3.3 and 5."""

REFERENCES: Points = ((0, -0.64), (1, 0.0), (2, -0.25))
"""R -> points against R = 1, same prototype: without eviction 81.5 against 84.1 (R = 0), with it 81.8 against 82.8 (R = 2)."""

EVICTION_WITHOUT_REFERENCES = -1.2
"""Points more that R = 0 lost in the prototype when 70 % of the identities had no slot (79.7 against 82.8 at fewer images)."""

SHRINKAGE = 0.25
"""The prototype's error rate is about 16 %, that of full-length runs about 4 %: differences are taken to shrink alike."""

ENCODER_TIME_CONSTANT_STEPS = 1000.0
"""1 / (1 - m) at the published m = 0.999: steps in which the class encoder forgets."""

AGE_POINTS_PER_DECADE = -0.5
"""Points for every tenfold age of the oldest centers beyond one time constant. An assumption: AttFC's published configuration
(C = 27,648, B = 384) is at 0.07 time constants, and nothing is known beyond; the band is as wide as the penalty."""

SMALL_BATCH_POINTS_PER_HALVING = -0.1
"""Below 128. Assumption; from 1,024 to 8,192 InsightFace's WebFace42M r50 rows (93.83, 93.96, 94.04) are flat."""

SOURCE = (
    "prior: Partial FC sampling-rate tables (InsightFace, WF12M/WF42M r100 MFR-ALL), attfc's prototype for R and L, "
    "assumed cost of stale centers; not measured on your data"
)


@dataclass(frozen=True)
class Part:
    """One contribution: points relative to a full FC layer, and half the width of its band."""

    name: str
    points: float
    half_band: float


def accuracy_parts(profile: TrainProfile) -> tuple[Part, ...]:
    """The contributions for a profile whose data.num_ids is known; none for a full FC layer, which is the measure."""
    head = profile.head
    if isinstance(head, FullFCSettings):
        return ()
    if isinstance(head, PartialFCSettings):
        return (_coverage(max(head.sample_rate, min(1.0, profile.optim.batch_size / profile.num_ids))),)
    slots = head.dcc_size or head.dcc_share * profile.num_ids
    share, batch_size = min(1.0, slots / profile.num_ids), profile.optim.batch_size
    queue = _interpolate(QUEUE_LENGTH, head.queue_length)
    references = _references(head.num_references, share)
    age = _age(slots / batch_size)
    batch = SMALL_BATCH_POINTS_PER_HALVING * max(0.0, math.log2(128 / batch_size))
    return (
        _coverage(share),
        Part("age of centers", age, abs(age)),
        Part("queue length", queue, 0.3 + 0.5 * abs(queue)),
        Part("references", references, 0.3 + 0.5 * abs(references)),
        Part("batch size", batch, 0.1 + abs(batch)),
    )


def accuracy_prior(profile: TrainProfile) -> Interval:
    """The sum of the parts; their bands, taken as independent, add in quadrature."""
    parts = accuracy_parts(profile)
    middle = sum(part.points for part in parts)
    half = math.sqrt(sum(part.half_band**2 for part in parts))
    return Interval(low=round(middle - half, 3), high=round(middle + half, 3), source=SOURCE)


def midpoint(interval: Interval) -> float:
    """The middle of a band."""
    return (interval.low + interval.high) / 2


def _coverage(share: float) -> Part:
    points = _interpolate(COVERAGE, share)
    return Part("identities scored", points, 0.15 + 0.5 * abs(points))


def _references(num_references: int, share: float) -> float:
    points = _interpolate(REFERENCES, num_references)
    if num_references == 0:
        points += EVICTION_WITHOUT_REFERENCES * min(1.0, (1 - share) / 0.7)
    return points


def _age(steps: float) -> float:
    """C / B steps is the age at which a slot is evicted, or seen again where every identity has one."""
    return AGE_POINTS_PER_DECADE * max(0.0, math.log10(steps / ENCODER_TIME_CONSTANT_STEPS))


def _interpolate(points: Points, x: float) -> float:
    """Piecewise linear in log x (x = 0 is a knot of its own); beyond the ends the outer slope goes on."""
    knots = dict(points)
    if x in knots:
        return knots[x]
    pairs = [(a, b) for a, b in itertools.pairwise(points) if a[0] > 0]
    (x0, y0), (x1, y1) = next((pair for pair in pairs if x <= pair[1][0]), pairs[-1])
    return y0 + (y1 - y0) * math.log(x / x0) / math.log(x1 / x0)


if __name__ == "__main__":
    for share_, batch_size_, num_references_ in ((1.0, 128, 1), (0.2, 512, 1), (0.01, 128, 0)):
        head_ = AttFCSettings(dcc_share=share_, num_references=num_references_)
        example = TrainProfile(head=head_, optim=OptimSettings(batch_size=batch_size_)).resolve(2_059_906)
        prior = accuracy_prior(example)
        print(f"share {share_}, B {batch_size_}, R {num_references_}: {prior.low:+.2f} .. {prior.high:+.2f} points")
        for part_ in accuracy_parts(example):
            print(f"    {part_.name}: {part_.points:+.2f} ± {part_.half_band:.2f}")
