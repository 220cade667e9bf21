"""Distances go with the threshold, and what makes no sense is refused."""

from __future__ import annotations

import pytest

from attfc_train.cluster.settings import ClusterSettings
from attfc_train.errors import UsageError


def test_the_defaults_scale_to_themselves():
    """Catches 0.7 * 1.6 = 1.1199999999999999."""
    assert ClusterSettings.scaled(0.7) == ClusterSettings() == ClusterSettings(0.7, 0.99, 1.12, 5, 5)


def test_what_is_given_stays():
    settings = ClusterSettings.scaled(0.35, connect_weak=0.9)
    assert (settings.connect, settings.connect_weak) == (pytest.approx(0.495), 0.9)


@pytest.mark.parametrize(
    "values", [(0, 0.9, 1), (0.7, 0.6, 1), (0.7, 0.9, 0.8), (0.7, 0.9, 2), (0.7, 0.9, float("nan")), (0.7, 0.9, 1, 0)]
)
def test_what_makes_no_sense_is_refused(values):
    with pytest.raises(UsageError, match="--"):
        ClusterSettings(*values)
