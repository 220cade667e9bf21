"""The capped runs of the memory matrix: which are made, and what becomes of errors; on a device that only counts."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from attfc_train.units import GIB, MIB, Bytes
from benchmarks import memory_probe
from benchmarks.memory_ballast import ballast_bytes
from benchmarks.memory_probe import Job, Steps, probe, steps_on
from tests.planner.trace.profiles import small_profile

CARDS = tuple(size * GIB for size in (8, 12, 16, 24, 40, 80))
CPU = torch.device("cpu")


class Device:
    """Steps that live from so many bytes on."""

    def __init__(self, least: Bytes, context: Bytes | None = GIB) -> None:
        self.least = least
        self.context = context
        self.asked: list[Bytes | None] = []

    def __call__(self, capacity: Bytes | None, steps: int) -> Steps:
        self.asked.append(capacity)
        if capacity is None:
            return Steps("lived", measured={"reserved_bytes": self.least, "context_bytes": self.context})
        return Steps("lived" if capacity >= self.least else "died")


def job(need: Bytes, **changes: Any) -> Job:
    return Job(**{"profile": {}, "need": need, "context": GIB // 2, "headroom": GIB, "cards": CARDS, **changes})


def played(result: dict[str, Any]) -> dict[int, tuple[bool, str]]:
    return {
        run["card_bytes"] // GIB: (run["predicted_to_fit"], run["outcome"]) for run in result["capped"] if run["kind"] == "card"
    }


def test_the_cards_beside_the_need_are_played() -> None:
    device = Device(12 * GIB)
    result = probe(job(14 * GIB), device)
    assert played(result) == {16: (True, "lived"), 12: (False, "died")}
    assert device.asked == [None, 13.5 * GIB, 12.5 * GIB, 15 * GIB, 11 * GIB], "a card is played less the measured context"
    assert [(run["kind"], run["predicted_to_fit"]) for run in result["capped"][:2]] == [("prediction", True), ("bare", None)]
    assert result["free"]["measured"]["reserved_bytes"] == 12 * GIB


def test_a_wrong_verdict_is_followed_up() -> None:
    assert played(probe(job(14 * GIB), Device(30 * GIB))) == {
        16: (True, "died"),
        24: (True, "died"),
        40: (True, "lived"),
        12: (False, "died"),
    }
    assert played(probe(job(30 * GIB), Device(10 * GIB))) == {
        40: (True, "lived"),
        24: (False, "lived"),
        16: (False, "lived"),
        12: (False, "lived"),
        8: (False, "died"),
    }


def test_the_need_itself_is_a_card_that_fits() -> None:
    assert played(probe(job(16 * GIB), Device(15 * GIB)))[16] == (True, "lived")


def test_beyond_the_device_only_cards_are_played() -> None:
    device = Device(150 * GIB)
    result = probe(job(160 * GIB, free=False), device)
    assert result["free"] is None
    assert device.asked == [79.5 * GIB], "neither without a cap nor at a prediction that nobody made for this device"
    assert played(result) == {80: (False, "died")}


def test_an_untold_context_is_the_predicted_one() -> None:
    device = Device(12 * GIB, context=None)
    probe(job(14 * GIB), device)
    assert device.asked[-2:] == [15.5 * GIB, 11.5 * GIB]


def test_a_cold_run_is_the_only_one() -> None:
    device = Device(12 * GIB)
    result = probe(job(14 * GIB, cold=True), device)
    assert device.asked == [13.5 * GIB]
    assert [(run["kind"], run["predicted_to_fit"], run["outcome"]) for run in result["capped"]] == [("cold", True, "lived")]


def test_a_cold_run_has_the_whole_card_but_the_context_it_begins_with() -> None:
    """Catches the predicted context, which a bare one grows towards: what grows would be counted twice."""
    device = Device(12 * GIB)
    probe(job(14 * GIB, cold=True), device, context=GIB // 4)
    assert device.asked == [13.75 * GIB]


def test_a_card_without_room_for_a_ballast_is_no_verdict() -> None:
    """Catches a run that nobody made among the false-safe ones."""

    def full(capacity: Bytes | None, steps: int) -> Steps:
        return Steps("lived", measured={}) if capacity is None else Steps("unplayed", "no room")

    result = probe(job(14 * GIB), full)
    assert result["free"]["outcome"] == "lived"
    assert result["capped"] == probe(job(14 * GIB, cold=True), full)["capped"] == []


def test_real_steps_live() -> None:
    steps = steps_on(small_profile(), CPU)(None, 1)
    assert (steps.outcome, steps.reason) == ("lived", "")
    assert steps.measured is not None
    assert steps.measured["process_bytes"] > 0


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), "died"),
        (RuntimeError("FIND was unable to find an engine to execute this computation"), "died"),
        (RuntimeError("CUDA error: out of memory"), "died"),
        (RuntimeError("an illegal memory access was encountered"), "failed"),
    ],
)
def test_errors_are_told_apart(error: RuntimeError, outcome: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(memory_probe, "measure", fail)
    steps = steps_on(small_profile(), CPU)(10, 0)
    assert steps.outcome == outcome
    assert steps.reason in str(error)
    assert steps.reason


@pytest.mark.parametrize(("free", "held"), [(5 * MIB, 4 * MIB), (4 * MIB - 1, 2 * MIB), (MIB, 0), (MIB - 1, -2 * MIB)])
def test_a_ballast_is_whole_pages_and_leaves_no_less(free: Bytes, held: Bytes) -> None:
    assert ballast_bytes(free, MIB) == held
