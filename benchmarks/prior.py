"""The accuracy prior, fitted to the recorded comparisons of heads and to published tables.

    python -m benchmarks.prior            # fit, write attfc_planner/accuracy/prior.json, print what it says

A cell is a head on a data set: how far apart it holds genuine and impostor pairs (d', from every figure on record, as if
cosines were normal), in log odds of accuracy, a mean over seeds. Cells of one data set and number of steps share a level, so
that only differences between heads count. The regression is `attfc_planner.accuracy.bayes`: slopes of unknown common size, a
deviation of every setting, and one of every kind of head on every data set, which the band of a new data set must cover.

The first release's 300 steps are left out: heads differ there several times as much as at the end of a training (the published
ring by 1.2 in log odds, 0.25 after four epochs). What only they have measured is assumed, at three quarters.
"""

from __future__ import annotations

import argparse
import itertools
import math
import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any, Final

import numpy as np

from attfc_planner.accuracy.bayes import Design, Hyperparameters, Posterior, posterior, shared
from attfc_planner.accuracy.fitted import BETWEEN_SETS, FILE, OWN, stored
from attfc_planner.accuracy.prior import POINTS_PER_LOG_ODDS, Z
from attfc_planner.accuracy.prior_features import FEATURES, LEVELS, prior_features
from attfc_train.files import write_text_atomically
from attfc_train.profile.profile import TrainProfile
from benchmarks.heads.records import Line, file_of, recorded
from benchmarks.heads.variants import VARIANTS, Variant, profile_of
from benchmarks.provenance import RESULTS

ASSUMED: Final = {
    "age of centers": (-0.04, 0.04),
    "identities seen rarely": (1.0, 0.6),
    "shorter queue": (-0.45, 0.45),
    "another order, where slots are few": (-0.6, 0.6),
    "no batch negatives, where slots are few": (-0.41, 0.41),
    "rounded centers": (-0.026, 0.03),
}
"""Feature -> mean and deviation of its coefficient where they are not those of a slope, in log odds. Age: 0.5 points, or none,
for every tenfold age of the centers. Rarely seen: by the first release's computed faces and the beginnings of the runs of
25,000 identities; no recorded training as long as one that is planned sees identities so rarely. Rounding: 0.1 points for the
coarsest storage. The others: three quarters of what they cost in the first release's short runs on real faces, as uncertain;
with half of it, what tunings measure lies outside of its band too often (tests/planner/accuracy/test_regression.py)."""
_SLOPES: Final = (0.02, 0.05, 0.1, 0.2, 0.4)
_NOISE_FACTORS: Final = (0.3, 0.6, 1.0, 2.0, 4.0, 8.0)
_OWN: Final = (0.02, 0.05, 0.1)
_BETWEEN: Final = (0.03, 0.1, 0.2, 0.4)
"""Grid of standard deviations in log odds (of slopes, settings, and kinds on data sets), and of the noise over the pairs'."""
_LEVEL: Final = 0.5
"""Deviation of a level, in log odds."""
_BASELINE_VARIANCE: Final = 100.0
_BASELINE: Final = "data set and steps"


LOG_ODDS_PER_D: Final = 1.12
"""d log odds / d d' of accuracy = phi(d'/2) / (2 a (1 - a)) at a = Phi(d'/2) = 96 %."""


@dataclass(frozen=True)
class Judged:
    """A data set of the records: its size, and the pairs on which a model is judged."""

    num_ids: int
    num_images: int
    batch_size: int
    num_pairs: int
    """Of each verification set."""
    num_strangers: int = 0
    """Identities of which all pairs are scored; as many genuine pairs are taken for independent."""


SETS: Final = {
    "lfw": Judged(1000, 5307, 128, 600),
    "glyphs-5k": Judged(5000, 116_223, 256, 6000, 2487),
    "glyphs-25k": Judged(25_000, 581_993, 256, 6000, 2487),
    "glyphs-70k": Judged(73_950, 1_744_806, 256, 6000, 2487),
}
PUBLISHED: Final = {
    "WebFace12M": (617_970, 12_720_066, 1024, {1.0: 94.69, 0.3: 94.71, 0.2: 94.75, 0.1: 94.49, 0.05: 94.05}),
    "WebFace42M": (2_059_906, 42_474_557, 1024, {0.2: 96.27, 0.0018: 93.08}),
}
"""Data set -> identities, images, batch, Partial FC's sampling rate -> MFR-ALL of an r100 after 20 epochs, as InsightFace's
table (recognition/arcface_torch) has them."""
_PUBLISHED_POINTS: Final = 0.1
"""What a repeated training of that table is taken to differ by; nobody repeated one."""


@dataclass(frozen=True)
class Cell:
    """A head on a data set."""

    data: str
    steps: int
    name: str
    kind: str
    features: tuple[float, ...]
    """Of `FEATURES`."""
    log_odds: float
    variance: float
    """Of the pairs; the noise factor multiplies it."""
    extra_variance: float = 0.0
    """Of seeds, or of what is taken for it; no factor."""


def cells(results: Path = RESULTS) -> list[Cell]:
    """Return everything that is known: recorded comparisons and published tables."""
    return [*_of_records(results), *_published()]


def _of_records(results: Path) -> Iterator[Cell]:
    for data in SETS:
        runs = [line for line in recorded(file_of(data, results)) if line["kind"] == "run" and line["name"] in VARIANTS]
        for (name, steps, rate), lines in _grouped(runs, "name", "steps", "rate"):
            yield _cell(data, profile_of(VARIANTS[name], SETS[data].batch_size, steps, 0, rate), name, steps, lines)


def _grouped(lines: Iterable[Line], *keys: str) -> list[tuple[tuple[Any, ...], list[Line]]]:
    """Return the lines by the values of `keys`, in the order of their first lines."""
    groups: dict[tuple[Any, ...], list[Line]] = {}
    for line in lines:
        groups.setdefault(tuple(line[key] for key in keys), []).append(line)
    return list(groups.items())


def _cell(data: str, profile: TrainProfile, name: str, steps: int, lines: Sequence[Line]) -> Cell:
    judged = SETS[data]
    means, variances = zip(*(_separation(line, judged) for line in lines), strict=True)
    # All seeds are judged on the same pairs, whose noise does not average out; what seeds scatter beyond it does.
    of_pairs = statistics.mean(variances)
    of_seeds = max(0.0, statistics.variance(means) - of_pairs) / len(lines) if len(lines) > 1 else 0.0
    log_odds, square = LOG_ODDS_PER_D * statistics.mean(means), LOG_ODDS_PER_D**2
    resolved = profile.resolve(judged.num_ids, judged.num_images)
    return Cell(data, steps, name, resolved.head.kind, _vector(resolved), log_odds, square * of_pairs, square * of_seeds)


def _separation(line: Line, judged: Judged) -> tuple[float, float]:
    """Return d' and its variance from the pairs, the mean of what each figure says, weighted by certainty.

    With cosines N(0, 1) of impostors and N(d', 1) of genuine pairs: accuracy = Phi(d'/2), true accept rate = Phi(d' - z).
    """
    accuracies = [value for key, value in line.items() if key == "accuracy" or key.endswith(" accuracy")]
    figures = [(2.0, accuracy, judged.num_pairs) for accuracy in accuracies]
    if judged.num_strangers:
        figures.append((1.0, line["tar"], judged.num_strangers))  # z is the same for all heads
    means, variances = zip(*(_normal(*figure) for figure in figures), strict=True)
    weights = 1 / np.array(variances)
    return float(weights @ means / weights.sum()), float(1 / weights.sum())


def _normal(factor: float, share: float, count: int) -> tuple[float, float]:
    """Return factor x Phi^-1(share) and its variance for a share of `count` independent pairs."""
    place = NormalDist().inv_cdf(share)
    # Var Phi^-1(p) = p (1 - p) / (n phi^2)
    return factor * place, factor**2 * share * (1 - share) / (count * NormalDist().pdf(place) ** 2)


def _vector(profile: TrainProfile) -> tuple[float, ...]:
    values = prior_features(profile)
    return tuple(values.get(name, 0.0) for name in FEATURES)


def _published() -> Iterator[Cell]:
    for data, (num_ids, num_images, batch_size, table) in PUBLISHED.items():
        for rate, percent in table.items():
            head = Variant("", "", {"kind": "partial_fc", "sample_rate": rate})
            profile = profile_of(head, batch_size, 1000, 0).resolve(num_ids, num_images)
            place = NormalDist().inv_cdf(percent / 100)
            noise = LOG_ODDS_PER_D * _PUBLISHED_POINTS / 100 / NormalDist().pdf(place)
            log_odds = LOG_ODDS_PER_D * place
            yield Cell(data, 0, f"Partial FC {rate:g}", "partial_fc", _vector(profile), log_odds, 0.0, noise**2)


def fit(known: Sequence[Cell]) -> Posterior:
    """Return the posterior of the coefficients of `FEATURES`."""
    rows = np.array([cell.features for cell in known])
    expected = np.array([ASSUMED.get(name, (0.0,))[0] for name in FEATURES])
    log_odds = np.array([cell.log_odds for cell in known])
    baselines = [(cell.data, cell.steps) for cell in known]
    # Levels of a data set are as good as unknown; around their mean, so that the wide variance is only of what is wide.
    means = {key: log_odds[[each == key for each in baselines]].mean() for key in set(baselines)}
    design = Design(
        rows=rows,
        expected=expected,
        residual=log_odds - np.array([means[key] for key in baselines]) - rows @ expected,
        variances=np.array([cell.variance for cell in known]),
        extra_variances=np.array([cell.extra_variance for cell in known]),
        groups={
            _BASELINE: shared(baselines),
            BETWEEN_SETS: shared([(cell.data, cell.kind) for cell in known]) & _both([_has_level(cell) for cell in known]),
            OWN: shared([(cell.data, cell.features) for cell in known]) & _both([any(cell.features) for cell in known]),
        },
    )
    return posterior(design, [_hyper(*point) for point in itertools.product(_SLOPES, _NOISE_FACTORS, _OWN, _BETWEEN)])


def _has_level(cell: Cell) -> bool:
    """Return whether a head is of a kind that differs as such from a full FC layer."""
    return any(cell.features[FEATURES.index(name)] for name in LEVELS)


def _both(flags: Sequence[bool]) -> Any:
    """Return bool [T, T]: whether both are flagged."""
    return np.logical_and.outer(flags, flags)


def _hyper(slope: float, factor: float, own: float, between: float) -> Hyperparameters:
    usual = dict.fromkeys(LEVELS, _LEVEL) | {name: deviation for name, (_, deviation) in ASSUMED.items()}
    deviations = np.array([usual.get(name, slope) for name in FEATURES])
    return Hyperparameters(
        prior_variances=deviations**2,
        group_variances={_BASELINE: _BASELINE_VARIANCE, BETWEEN_SETS: between**2, OWN: own**2},
        noise_factor=factor,
        log_prior=-(math.log(factor) ** 2) / 2,
    )


@dataclass(frozen=True)
class HeldOut:
    """A cell against a full FC layer on the same data, as a fit without that data set has it, and as it came; in log odds."""

    cell: Cell
    expected: float
    half_band: float
    """95 %."""
    observed: float


def held_out(known: Sequence[Cell]) -> Iterator[HeldOut]:
    """Yield every cell that has a full FC layer beside it, predicted without its data set."""
    for family in dict.fromkeys(_family(cell) for cell in known):
        found = fit([cell for cell in known if _family(cell) != family])
        held = [cell for cell in known if _family(cell) == family]
        whole = {(cell.data, cell.steps): cell for cell in held if not any(cell.features)}
        for cell in held:
            reference = whole.get((cell.data, cell.steps))
            if reference is not None and reference is not cell:
                yield _held_out(found, cell, reference)


def _family(cell: Cell) -> str:
    """Return the data set without its size: those of one kind are alike."""
    return cell.data.partition("-")[0]


def _held_out(found: Posterior, cell: Cell, reference: Cell) -> HeldOut:
    step = np.array(cell.features)
    unexplained = found.group_variances[OWN] + found.group_variances[BETWEEN_SETS] * _has_level(cell)
    noise = sum(found.noise_factor * each.variance + each.extra_variance for each in (cell, reference))
    variance = float(step @ found.covariance @ step) + unexplained + noise
    return HeldOut(cell, float(found.mean @ step), Z * math.sqrt(variance), cell.log_odds - reference.log_odds)


def summary(found: Posterior) -> Iterator[str]:
    """Yield a line for every feature: points a unit with half its 95 % interval."""
    for name, mean, deviation in zip(FEATURES, found.mean, np.sqrt(np.diag(found.covariance)), strict=True):
        yield f"{name:42s} {POINTS_PER_LOG_ODDS * mean:+6.2f} ± {POINTS_PER_LOG_ODDS * Z * deviation:.2f}"


def counts(known: Sequence[Cell]) -> dict[str, int]:
    """Return data set -> heads that were compared on it."""
    return dict(Counter(cell.data for cell in known))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the records")
    parser.add_argument("--output", type=Path, default=FILE, help="where the fit is written")
    options = parser.parse_args()
    known = cells(options.results)
    found = fit(known)
    write_text_atomically(options.output, stored(FEATURES, found, counts(known)).model_dump_json(indent=1) + "\n")
    print("points a unit of each feature, and half the 95 % interval")
    print(*summary(found), sep="\n")
    rows = list(held_out(known))
    inside = sum(abs(row.expected - row.observed) <= row.half_band for row in rows)
    print(f"{inside} of {len(rows)} heads on data sets that were left out lie in their 95 % bands")


if __name__ == "__main__":
    main()
