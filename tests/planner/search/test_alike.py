"""Settings that differ by far less than their intervals are one row; limits and durations speak of intervals."""

from __future__ import annotations

from dataclasses import replace

import pytest

from attfc_planner.screens.front_table import front_table
from attfc_planner.search.alike import FAR_BELOW, are_alike, rows_of
from attfc_planner.search.candidates import Candidate
from attfc_planner.search.words import time_words, unit_for
from attfc_planner.speed.model import SpeedPrediction
from attfc_train.profile.prediction import Interval, MemoryPrediction, MemoryTerm
from attfc_train.units import GIB, MIB, format_seconds
from tests.planner.planned import planned

CHOSEN = planned(head="attfc", num_trials=1).chosen


def band(middle: float, half: float) -> Interval:
    return Interval(low=middle - half, high=middle + half, source="a test")


def candidate(share: float, rate: float = 1000, points: float = -0.1, gib: float = 20, headroom_mib: int = 1024) -> Candidate:
    """A setting of so many slots, whose rate is known to 400 images/s and whose accuracy to 0.4 points."""
    terms = (
        MemoryTerm(name="activations", bytes=round(gib * GIB) - headroom_mib * MIB, source="a test"),
        MemoryTerm(name="headroom", bytes=headroom_mib * MIB, source="a test"),
    )
    memory = MemoryPrediction(terms=terms, budget_bytes=24 * GIB, peak_phase="backward", peak_operator="mm")
    speed = SpeedPrediction(band(rate, 400), "a test", band(5000, 100))
    setting = CHOSEN.setting.turned(dcc_share=share)
    return Candidate(setting, CHOSEN.profile, band(points, 0.4), lambda: speed, lambda: memory)


@pytest.mark.parametrize(
    ("other", "alike"),
    [
        (candidate(0.5, rate=1000 + 400 * FAR_BELOW - 1), True),
        (candidate(0.5, rate=1000 + 400 * FAR_BELOW + 1), False),
        (candidate(0.5, points=-0.1 - 0.4 * FAR_BELOW + 0.001), True),
        (candidate(0.5, points=-0.1 - 0.4 * FAR_BELOW - 0.001), False),
        (candidate(0.5, gib=20 - FAR_BELOW + 0.01), True),
        (candidate(0.5, gib=20 - FAR_BELOW - 0.01), False),
    ],
)
def test_every_figure_must_be_alike(other: Candidate, alike: bool) -> None:
    """Catches a figure that is not compared, and one that is compared with the whole interval."""
    assert are_alike(candidate(1.0), other) == alike


def test_another_kind_of_head_is_another_row() -> None:
    one = candidate(1.0)
    full = planned(head="full_fc", num_trials=1).chosen
    assert not are_alike(one, replace(one, profile=full.profile))


def test_a_row_pretends_no_difference() -> None:
    """Catches a 'least memory' that is a row of its own beside a choice that needs as much."""
    chosen = candidate(1.0)
    least = candidate(0.5, gib=19.9)
    far = candidate(0.1, rate=1300, points=-0.5, gib=19)
    table = front_table([far, chosen], chosen, {"least memory": least}, {})
    assert list(table.columns[0].cells) == ["", "chosen, least memory, 2 alike"]
    assert "which nobody can tell apart" in str(table.caption)
    assert table.row_count == 2
    alone = front_table([far, chosen], chosen, {"least memory": candidate(0.5, gib=12)}, {})
    assert set(alone.columns[0].cells) == {"", "chosen", "least memory"}
    assert alone.caption is None


def test_the_chosen_setting_stands_for_its_row() -> None:
    chosen = candidate(0.5)
    row = rows_of([candidate(1.0, rate=1010), chosen], first=[chosen])
    assert [member.setting["dcc_share"] for member in row[0]] == [0.5, 1.0]


def test_the_file_says_which_settings_are_one_row() -> None:
    search = planned(head="attfc", num_ids=50_000, num_trials=1).profile.search
    assert search is not None
    leaders = {point.row for point in search.front}
    assert all(search.front[row].row == row for row in leaders if row is not None)
    assert None not in leaders


@pytest.mark.parametrize(
    ("hours", "expected"),
    [
        ((2.8, 8.7), "about 4.2 h (2.8 to 8.7)"),
        ((0.5, 2.0), "about 48 min 00 s (30 min 00 s to 2.0 h)"),
        ((30.0, 90.0), "about 45.0 h (30.0 h to 3.8 days)"),
        ((20 * 8766, 60 * 8766), "about 30.0 years (20.0 to 60.0)"),
    ],
)
def test_a_time_is_said_with_its_interval(hours: tuple[float, float], expected: str) -> None:
    assert time_words(Interval(low=hours[0], high=hours[1], source="a test")) == expected


@pytest.mark.parametrize(
    ("days", "text"),
    [(3, "3.0 days"), (99, "99.0 days"), (120, "3.9 months"), (725, "23.8 months"), (800, "2.2 years"), (10**6, "2,738 years")],
)
def test_long_times_have_units_that_people_use(days: float, text: str) -> None:
    assert format_seconds(days * 86400) == text


@pytest.mark.parametrize(
    ("hours", "name", "text"),
    [
        (5.0, "hours", "5.0"),
        (900.0, "hours", "900"),
        (1500.0, "days", "62.5"),
        (8766.0, "months", "12.0"),
        (87660.0, "years", "10.0"),
    ],
)
def test_a_column_has_one_unit(hours: float, name: str, text: str) -> None:
    unit = unit_for([hours, 3 * hours])
    assert (unit.name, unit.text(hours)) == (name, text)
