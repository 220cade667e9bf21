"""What published trainings say of grouped convolutions lies in what is stated of them."""

from __future__ import annotations

import pytest

from attfc_planner.gpu.catalog import get_card
from attfc_planner.speed.efficiency import efficiencies
from attfc_train.document import Precision
from benchmarks.grouped_convolutions import PUBLISHED, grouped_shares, step_costs


@pytest.mark.parametrize(("name", "precision"), [row[:2] for row in PUBLISHED], ids=str)
def test_shares_of_published_trainings_lie_in_the_stated_range(name: str, precision: Precision) -> None:
    """Catches groups that are priced like dense or like depthwise convolutions: 4 to 8 times too fast."""
    seconds, bandwidth, _ = grouped_shares(name, precision)
    card = next(row[4] for row in PUBLISHED if row[:2] == (name, precision))
    stated = efficiencies(get_card(card), precision).bandwidth["grouped"]
    assert seconds > 0
    assert stated.low <= bandwidth <= stated.high


def test_the_networks_are_the_published_ones() -> None:
    """Multiply-adds of one image: 4.1 and 8.0 thousand million in their papers."""
    for blocks, width, groups, expected in (((3, 4, 6, 3), 64, 1, 4.1e9), ((3, 4, 23, 3), 128, 32, 8.0e9)):
        forward = [cost for cost in step_costs(blocks, width, groups, 2, "fp32") if "backward" not in cost.name]
        convolutions = sum(cost.flops for cost in forward if "convolution" in cost.name)
        assert convolutions / 2 / 2 == pytest.approx(expected, rel=0.02)
