"""The screens of ``attfc-train evaluate``, for 80 columns; every plus-minus and every interval says what it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from rich.console import Console
from rich.table import Table

from attfc_train.evaluate.operating_points import operating_points, samples_text, shortcomings
from attfc_train.evaluate.paired import Comparison, compare_decisions
from attfc_train.evaluate.pairs import Verification, correct_pairs, verify_distances
from attfc_train.evaluate.resampling import Interval, rate_interval, resampled
from attfc_train.evaluate.scored import Scored

_LEGEND = (
    "± over folds: standard deviation of the ten folds' accuracies, as InsightFace prints it; no error of the mean.\n"
    "95 % of the mean: where the accuracy on other such people lies, bootstrap by person, at least Wilson's interval."
)


Results: TypeAlias = list[tuple[str, list[Scored]]]
"""The file of each model, and the sets that it was tried on."""


def verification(scored: Scored) -> Verification:
    """Return the figures of a set."""
    return verify_distances(scored.distances, scored.same, scored.embedding_norm)


def accuracy_interval(scored: Scored) -> Interval:
    """Return the interval of the accuracy, over people that are drawn anew."""
    correct = correct_pairs(scored.distances, scored.same)
    drawn = np.array([(weights @ correct) / weights.sum() for weights in resampled(scored.groups, scored.same)])
    return rate_interval(drawn, float(correct.mean()), correct.size)


def show_points(model: str, scored: Scored, fars: Sequence[float], console: Console, figure: str) -> None:
    """Print thresholds and true accept rates of one model on one set, and what the set is too small for.

    Args:
        figure: what else is known of the set, for its first line.
    """
    genuine = int(scored.same.sum())
    impostor = scored.same.size - genuine
    console.print(f"{scored.name}: {figure}, {genuine:,} pairs of one person, {impostor:,} of two", soft_wrap=True)
    console.print(f"by {model}", soft_wrap=True)
    points = operating_points(scored.cosines, scored.same, scored.groups, fars)
    if points:
        table = _table("FAR", "accept above cosine", "95 %", "TAR", "95 %", "false accepts")
        for point in points:
            threshold = f"{point.threshold:.4f}", _range(point.threshold_interval, ".3f")
            rate = f"{point.tar:.2%}", _range(point.tar_interval, ".1%")
            table.add_row(f"{point.far:g}", *threshold, *rate, f"{point.false_accepts:,}")
        console.print(table)
        console.print(samples_text(scored.same.size, int(scored.groups.max()) + 1), soft_wrap=True)
    for text in shortcomings(impostor, fars):
        console.print(f"warning: {text}")
    console.print()


def show_comparisons(models: Sequence[str], views: Sequence[Scored], console: Console) -> None:
    """Print how each further model differs from the first on one set."""
    first, *others = views
    correct = correct_pairs(first.distances, first.same)
    for model, view in zip(models[1:], others, strict=True):
        result = compare_decisions(correct, correct_pairs(view.distances, view.same), first.same, first.groups)
        console.print(f"{view.name}, two models on the same pairs\n  A: {models[0]}\n  B: {model}", soft_wrap=True)
        console.print(comparison_text(result), soft_wrap=True)
        console.print()


def comparison_text(result: Comparison) -> str:
    """Return the difference of two models in words."""
    low, high = 100 * result.interval.low, 100 * result.interval.high
    if result.is_shown:
        verdict = f"{'B' if result.difference > 0 else 'A'} is better"
    else:
        verdict = "no difference is shown"
    return (
        f"  B - A: {100 * result.difference:+.2f} points of accuracy\n"
        f"  95 %: {low:+.2f} to {high:+.2f}, paired bootstrap by person\n"
        f"  A alone is right on {result.only_first:,} pairs, B alone on {result.only_second:,}\n"
        f"  McNemar's exact test on them: p = {result.p_value:.2g}\n"
        f"  {verdict} (both must agree, at 5 %)"
    )


def show_summary(results: Results, console: Console) -> None:
    """Print the accuracy on every set, by model, with both kinds of plus-minus and what they are."""
    for model, sets in results:
        console.print(model, soft_wrap=True)
        table = _table("set", "pairs", "accuracy", "± over folds", "95 % of the mean", "AUC", "images/s", left=1)
        for each in sets:
            result = verification(each)
            auc = "-" if result.auc is None else f"{result.auc:.4f}"
            ranges = f"± {result.std:.2%}", _range(accuracy_interval(each), ".1%")
            speed = f"{each.images_per_second:,.0f}"
            table.add_row(each.name, f"{result.num_pairs:,}", f"{result.accuracy:.2%}", *ranges, auc, speed)
        console.print(table)
    console.print(_LEGEND)


def _range(interval: Interval, form: str) -> str:
    return f"{interval.low:{form}} to {interval.high:{form}}"


def _table(*columns: str, left: int = 0) -> Table:
    """Return a table without lines, whose first columns are text that may be folded."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for place, name in enumerate(columns):
        if place < left:
            table.add_column(name, overflow="fold", min_width=8)
        else:
            table.add_column(name, justify="right", no_wrap=True)
    return table
