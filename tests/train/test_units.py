"""Numbers as people type and read them."""

from __future__ import annotations

import pytest

from attfc_train.units import parse_count


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("2059906", 2_059_906),
        ("2,059,906", 2_059_906),
        ("2_059_906", 2_059_906),
        ("2 059 906", 2_059_906),
        ("2'059'906", 2_059_906),
        ("2M", 2_000_000),
        ("2m", 2_000_000),
        ("2.06M", 2_060_000),
        ("0.5 k", 500),
        ("2e6", 2_000_000),
        ("2E+6", 2_000_000),
        ("2.059906e6", 2_059_906),
        ("42.5M", 42_500_000),
        ("1B", 10**9),
        ("7.0", 7),
        (" 12 ", 12),
        ("-3", -3),
        ("1e20", 10**20),  # a float would do, too
        ("9007199254740993", 2**53 + 1),  # a float would lose the last digit
    ],
)
def test_counts_as_people_type_them(text: str, number: int) -> None:
    assert parse_count(text) == number


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "M",
        "1.5",
        "2.0599065M",
        "1,23",
        "12,34,567",
        "1,000,0",
        "2 x 3",
        "nan",
        "inf",
        "1e-3",
        "1e9999",
        "0x10",
        "٣",
        "9" * 5000,
    ],
)
def test_what_is_no_count(text: str) -> None:
    """Catches a comma that is taken out wherever it stands, and Python's own digits of other scripts."""
    with pytest.raises(ValueError, match=r"number|digits"):
        parse_count(text)
