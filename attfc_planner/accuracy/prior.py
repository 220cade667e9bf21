"""A prior for the accuracy of a setting, in points relative to a full FC layer.

It is a prior, not a prediction: it orders settings before anything was trained on the user's data. Its figures come from a
regression over this project's comparisons of heads and published tables (`attfc_planner.accuracy.fitted`), bands are its 95 %
intervals, and `assumptions`, which ``attfc-plan explain`` shows, lists what it takes for granted. ``attfc-plan tune`` replaces
the prior by measurements. Run ``python -m attfc_planner.accuracy.prior`` for a few settings.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from attfc_planner.accuracy.fitted import fitted
from attfc_planner.accuracy.prior_features import (
    FEWEST_VIEWS,
    LEVELS,
    PARTS,
    PRIORS,
    RARELY_SEEN,
    Features,
    prior_features,
    rareness_beyond,
    views_of,
)
from attfc_train.heads.attfc.settings import AttFCSettings
from attfc_train.profile.prediction import Interval
from attfc_train.profile.profile import OptimSettings, TrainProfile

POINTS_PER_LOG_ODDS = 100 * 0.04 * 0.96
"""Points of accuracy in a small change of the log odds, at the 4 % errors of a full-length training: 100 x d a / d log odds =
100 a (1 - a). The prior is about such trainings, and so is every figure in points."""
Z = 1.96
"""95 %, two-sided."""
SMALL_BATCH_POINTS_PER_HALVING = -0.1
"""Below 128. Assumption; from 1,024 to 8,192 InsightFace's WebFace42M r50 rows (93.83, 93.96, 94.04) are flat."""

BACKBONE = {"mbf": -18.8, "r18": -17.56, "r50": -2.66, "r100": 0.0, "r200": 1.01}
"""Points against r100, MFR-ALL, InsightFace's table: WebFace42M at sample rate 0.3 for r18, r50, r100, r200 (79.13, 94.03,
96.69, 97.70); mbf from MS1MV3 and Glint360K (63.78 and 70.18 against 81.97 and 89.52), the mean. No row has r34 or tiny."""
BACKBONE_BAND = 0.1
"""Half width as a share of the difference: between the data sets of that table, r50's distance to r100 is 2.66 to 3.18."""

UNKNOWN_BAND = 5.0
"""Half width in points for a kind of head that is not in `PRIORS`."""
_NOTHING = 0.01
"""Of `RARELY_SEEN`: a run of whole steps sees identities a little less often than its epochs say."""
_OTHER_DATA = "your data and setting"


@dataclass(frozen=True)
class Part:
    """A contribution: points relative to a full FC layer, and half the width of its band."""

    name: str
    points: float
    half_band: float


def accuracy_parts(profile: TrainProfile, compared_to: str | None = None) -> tuple[Part, ...]:
    """Return the contributions to a profile's accuracy; none for a full FC layer, which is the measure.

    The bands are of each part alone: parts of the regression hang together, so that the whole may be narrower.

    Args:
        profile: with data.num_ids.
        compared_to: the backbone of that full FC layer, one of `BACKBONE`; None: the profile's own.
    """
    others = tuple(_other_parts(profile, compared_to))
    if profile.head.kind not in PRIORS:
        return others
    values = prior_features(profile)
    # A feature whose value is 0 adds nothing.
    alone = {name: fitted().moments(values, names) for name, names in PARTS.items() if any(map(values.get, names))}
    parts = [_part(name, *moments) for name, moments in alone.items()]
    return (*parts, *([_part(_OTHER_DATA, 0.0, _unexplained(values))] if parts else []), *others)


def accuracy_prior(profile: TrainProfile, compared_to: str | None = None) -> Interval:
    """Return the sum of the parts with its band.

    Args:
        profile, compared_to: see `accuracy_parts`.
    """
    parts = list(_other_parts(profile, compared_to))
    if profile.head.kind in PRIORS:
        values = prior_features(profile)
        mean, variance = fitted().moments(values)
        parts.append(_part("", mean, variance + _unexplained(values)))
    middle = sum(part.points for part in parts)
    # Bands in quadrature, as of independent errors: half^2 = sum of half_i^2.
    half = math.sqrt(sum(part.half_band**2 for part in parts))
    return Interval(low=round(middle - half, 3), high=round(middle + half, 3), source=source_of(profile))


def source_of(profile: TrainProfile) -> str:
    """Return the source of a profile's prior, in words."""
    if profile.head.kind not in PRIORS:
        return f"prior: nothing is known of head '{profile.head.kind}', taken as level with full FC; not measured on your data"
    if not any(prior_features(profile).values()):
        return "prior: a full FC layer is what accuracy is measured against"
    compared = fitted().data_sets
    held = (
        f"; taken as at {FEWEST_VIEWS:g} views of an identity, the fewest that were compared, with a wider band, because "
        f"yours are seen {views_of(profile):.2g} times"
        if _is_held(profile)
        else ""
    )
    return (
        f"prior: regression over {sum(compared.values())} heads compared on {len(compared)} data sets (attfc's own runs, and "
        f"Partial FC's published tables); not measured on your data{held}"
    )


def assumptions() -> tuple[str, ...]:
    """Return what the prior takes for granted, a line each."""
    compared = ", ".join(f"{name} ({number})" for name, number in fitted().data_sets.items())
    between = POINTS_PER_LOG_ODDS * math.sqrt(fitted().between_sets_variance)
    return (
        f"Regression over heads compared on the same data: {compared}. WebFace rows are Partial FC's published table (r100, "
        "MFR-ALL); the others are attfc's own runs of a small network on 32 pixels. Bands are 95 % intervals.",
        "Differences are taken in log odds, and given in points of a training with 4 % errors.",
        f"Kinds of heads differ from data set to data set: by {between:.1f} points (standard deviation), in every band.",
        "Identities seen under about 20 times in a run: generated centers are ahead of learned rows. From short runs. Under "
        f"{FEWEST_VIEWS:g} times nothing was compared: taken as at {FEWEST_VIEWS:g}, in a band that holds a growing lead, too.",
        "Age: a tenfold age of the centers, over the class encoder's memory, is expected to cost 0.5 points; hardly measured.",
        "Queues shorter than 3.3, and another order or no batch negatives where slots are few: from short runs. Rounded "
        "centers: 0.1 points in fp8, less in int8 and bf16. Assumed.",
        "Networks other than the small one, and more than 25,000 identities: the same differences. Not measured.",
        "Batch size: flat from 128 on (published from 1,024 to 8,192), 0.1 points a halving below. Assumed.",
        "Accumulation and checkpointing: no loss; a part has 32 images or more, where BatchNorm's error is flat (Wu and He "
        "2018, table 2: 23.6 % at 32, 23.7 % at 16, 24.8 % at 8 images). Precision: no loss.",
        "Backbones, where several are compared: InsightFace's MFR-ALL table (WebFace42M; mbf from MS1MV3 and Glint360K).",
    )


def midpoint(interval: Interval) -> float:
    """Return the middle of a band."""
    return (interval.low + interval.high) / 2


def _part(name: str, mean: float, variance: float) -> Part:
    """Return a part from moments in log odds."""
    return Part(name, POINTS_PER_LOG_ODDS * mean, POINTS_PER_LOG_ODDS * Z * math.sqrt(variance))


def _unexplained(values: Features) -> float:
    """Return the variance of what no feature tells: of this setting, and of its kind on data that nobody compared on."""
    own = fitted().own_variance if any(values.values()) else 0.0
    return own + (fitted().between_sets_variance if any(values.get(name) for name in LEVELS) else 0.0)


def _other_parts(profile: TrainProfile, compared_to: str | None) -> Iterator[Part]:
    """Yield what is assumed or published elsewhere."""
    if profile.head.kind not in PRIORS:
        yield Part(f"head {profile.head.kind}, of which nothing is known", 0.0, UNKNOWN_BAND)
    if _is_held(profile):
        # The lead may go on to grow as it does from many views to few, or turn into as large a loss: no comparison tells.
        mean, variance = fitted().moments({RARELY_SEEN: rareness_beyond(profile)})
        yield _part(f"fewer views than {FEWEST_VIEWS:g}", 0.0, mean**2 + variance)
    if profile.head.num_slots:
        yield _batch_size(profile.optim.batch_size)
    if compared_to is not None:
        points = BACKBONE[profile.model.backbone] - BACKBONE[compared_to]
        yield Part("backbone", points, BACKBONE_BAND * abs(points))


def _is_held(profile: TrainProfile) -> bool:
    """Return whether a head's identities are seen more rarely than in any comparison, where that matters to it."""
    return profile.head.kind in PRIORS and RARELY_SEEN in prior_features(profile) and rareness_beyond(profile) > _NOTHING


def _batch_size(batch_size: int) -> Part:
    points = SMALL_BATCH_POINTS_PER_HALVING * max(0.0, math.log2(128 / batch_size))
    return Part("batch size", points, 0.1 + abs(points))


if __name__ == "__main__":
    for share_, batch_size_, num_references_ in ((1.0, 128, 1), (0.2, 512, 1), (0.01, 128, 0)):
        head_ = AttFCSettings(dcc_share=share_, num_references=num_references_)
        example = TrainProfile(head=head_, optim=OptimSettings(batch_size=batch_size_)).resolve(2_059_906)
        prior = accuracy_prior(example)
        print(f"share {share_}, B {batch_size_}, R {num_references_}: {prior.low:+.2f} .. {prior.high:+.2f} points")
        for part_ in accuracy_parts(example):
            print(f"    {part_.name}: {part_.points:+.2f} ± {part_.half_band:.2f}")
