"""Real peaks correct predictions, and what ran out of memory is not tried again in larger sizes."""

from __future__ import annotations

import pytest

from attfc_planner.tune.stages.correction import LEAST_MARGIN, MemoryCorrection, Observation
from attfc_train.units import GIB, MIB


def learned(*rows: tuple[str, float, float | None]) -> MemoryCorrection:
    return MemoryCorrection.learned(
        Observation(kind, round(predicted * GIB), None if real is None else round(real * GIB)) for kind, predicted, real in rows
    )


def test_before_anything_ran_a_prediction_stands_with_its_headroom() -> None:
    nothing = learned()
    assert nothing.corrected(5 * GIB) == 5 * GIB
    assert nothing.needed(5 * GIB, 300 * MIB) == 5 * GIB + 300 * MIB
    assert nothing.refusal("a", 100 * GIB) is None


def test_the_careful_one_of_offset_and_ratio_is_applied() -> None:
    more = learned(("a", 2, 3))
    assert more.corrected(4 * GIB) == 6 * GIB, "half as much again"
    assert more.corrected(1 * GIB) == 2 * GIB, "1 GiB more"
    less = learned(("a", 4, 3))
    assert less.corrected(8 * GIB) == 7 * GIB
    assert less.corrected(2 * GIB) == 1.5 * GIB


def test_one_outlier_does_not_decide() -> None:
    several = learned(("a", 1, 1.1), ("a", 2, 2.2), ("a", 3, 9), ("b", 4, 4.4))
    assert several.ratio == pytest.approx(1.1, abs=0.01)


def test_scatter_becomes_margin() -> None:
    assert learned(("a", 2, 2)).margin(2 * GIB) == LEAST_MARGIN
    assert learned(("a", 2, 2)).margin(20 * GIB) == pytest.approx(0.2 * GIB, rel=0.01)
    assert learned(("a", 4, 3), ("a", 4, 4), ("a", 4, 5)).margin(4 * GIB) == 3 * GIB


def test_nothing_larger_of_its_kind_is_tried_after_an_out_of_memory() -> None:
    known = learned(("a", 6, 6), ("a", 4, None))
    assert known.refusal("a", 4 * GIB) == "one predicted to need 4.00 GiB ran out of memory"
    assert known.refusal("a", 4 * GIB - 1) is None


def test_another_kind_is_tried_where_something_larger_ran() -> None:
    assert learned(("b", 6, 6), ("a", 4, None)).refusal("c", 5 * GIB) is None
    assert learned(("b", 3, 3), ("a", 4, None)).refusal("c", 5 * GIB) is not None
