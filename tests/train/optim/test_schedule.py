"""Schedules: shares of the rate over a run, and MHLR's halvings call by call as the released code makes them."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attfc_train.optim.plateau import MOST_HALVINGS, Plateaus, Recurrence, TwoAverages, relative, released
from attfc_train.optim.schedule import DECAYS, DELAY, ListeningRate, learning_rate, rate_controller
from attfc_train.profile.profile import OptimSettings, TrainProfile

RULES = {"MHLR": Recurrence, "MHLR1": TwoAverages}


@pytest.mark.parametrize("patience", ["0.05", "0.01"])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("losses", ["decay_then_flat", "flat_noise", "second_loss_higher", "steps"])
def test_halvings_are_those_of_the_released_classes(golden: Path, losses: str, rule: str, patience: str) -> None:
    record = np.load(golden / "family" / "mhlr.npz")
    total = int(record["total_steps"])
    plateaus = Plateaus(RULES[rule](1e-3), 5e-5, int(float(patience) * total))
    rates = [1.0]
    made = []
    for loss in record[f"{losses}_loss"]:
        made.append((plateaus.see(float(loss)), plateaus.stationary, plateaus.halvings))
        rates.append(plateaus.factor)
    decrease, stationary, halvings = zip(*made, strict=True)
    name = f"{losses}_{rule}_tau{patience}"
    np.testing.assert_allclose(decrease, record[f"{name}_D"], rtol=0, atol=1e-15)
    np.testing.assert_array_equal(stationary, record[f"{name}_count"])
    np.testing.assert_array_equal(halvings, record[f"{name}_power"])
    # What a call decides reaches the optimiser at the next one.
    np.testing.assert_array_equal(float(record["lr0"]) * np.array(rates[:-1]), record[f"{name}_lr"])


def test_the_released_class_is_what_released_makes() -> None:
    rule = released(123, 30.0, 7)
    assert isinstance(rule.decrease, Recurrence)
    assert (rule.decrease.rate, rule.bound, rule.patience) == (1e-3, 5e-5, 7)


def test_shares_of_the_run_are_the_released_figures_at_its_own_length_and_scale() -> None:
    rule = relative(202_320, 64.0, 0)
    assert isinstance(rule.decrease, TwoAverages)
    assert 1 / rule.decrease.rate == pytest.approx(1000, rel=0.02)
    assert rule.bound == pytest.approx(5e-5, rel=0.02)


@given(st.integers(50, 20_000), st.floats(1, 128), st.floats(0.5, 20))
def test_a_run_of_any_length_and_scale_is_halved_at_the_same_shares(total: int, scale: float, slope: float) -> None:
    """Catches a bound or a memory in steps: a loss that falls steadily, by so many times what is stationary, is one or not."""
    rule = relative(total, scale, patience=total // 20)
    for step in range(total):
        rule.see(100.0 - slope * 10.0 * scale / 64 * step / total)
    is_stationary = slope < 1
    assert abs(slope - 1) < 1e-6 or (rule.halvings > 0) == is_stationary


@given(st.lists(st.floats(-100, 100), min_size=2, max_size=60), st.sampled_from([0.5, 0.1, 0.01]))
def test_the_averages_are_two_averages(losses: list[float], rate: float) -> None:
    """Against sums of the definition: an average at rate a of x_1 .. x_n is x_1 (1-a)^(n-1) + a sum of x_i (1-a)^(n-i)."""

    def average(values: list[float]) -> list[float]:
        made = [values[0]]
        for value in values[1:]:
            made.append(rate * value + (1 - rate) * made[-1])
        return made

    first = [rate * (before - after) for before, after in itertools.pairwise(losses)]
    inner = [first[0]]
    for change in first[1:]:
        inner.append(change + (1 - rate) * inner[-1])
    rule = TwoAverages(rate)
    differences = [before - after for before, after in itertools.pairwise(losses)]
    made = [rule.next(difference) for difference in differences]
    assert made == pytest.approx(average(inner), rel=1e-9, abs=1e-9)


def test_a_second_loss_above_the_first_misleads_the_recurrence_alone() -> None:
    """The defect for which `mhlr` takes the averages."""
    losses = [10.0, 10.5, *(10.5 - 20 * step / 60_000 for step in range(20_000))]

    def halvings(rule: Plateaus) -> int:
        for loss in losses:
            rule.see(loss)
        return rule.halvings

    assert halvings(Plateaus(Recurrence(1e-3), 5e-5, 3000)) > 0
    assert halvings(Plateaus(TwoAverages(1e-3), 5e-5, 3000)) == 0


def test_the_rate_has_a_floor() -> None:
    rule = Plateaus(TwoAverages(0.5), 1.0, 0)
    for _ in range(20):
        rule.see(1.0)
    assert rule.halvings > MOST_HALVINGS
    assert rule.factor == 2.0**-MOST_HALVINGS


def test_a_loss_counts_after_the_delay_and_a_repeated_step_sees_it_once() -> None:
    rule = Plateaus(TwoAverages(0.5), 1.0, 0)
    rates = ListeningRate(lambda step: 1.0, rule)
    for step in range(DELAY + 2):
        assert rates.rate(step) == 1.0
        rates.observe(torch.tensor(5.0))
    assert [rates.rate(DELAY + 2)] * 3 == [rates.rate(DELAY + 2) for _ in range(3)]
    assert rule.halvings == 1, "the second loss is the first that can be stationary"


def test_a_state_goes_on_as_if_it_had_not_been_saved() -> None:
    """Catches a loss on its way that is forgotten, or a number of the rule."""
    losses = [float(loss) for loss in np.random.default_rng(0).normal(3, 0.3, 200)]

    def run(save_at: int | None) -> list[float]:
        rates = ListeningRate(lambda step: 0.1, relative(len(losses), 64.0, 1))
        made = []
        for step, loss in enumerate(losses):
            if step == save_at:
                state = rates.state_dict()
                rates = ListeningRate(lambda step: 0.1, relative(len(losses), 64.0, 1))
                rates.load_state_dict({})
                rates.load_state_dict(state)
            made.append(rates.rate(step))
            rates.observe(torch.tensor(loss, dtype=torch.float64))
        return made

    undisturbed = run(None)
    assert len(set(undisturbed)) > 3
    for place in (0, 1, DELAY, 77, 199):
        assert run(place) == undisturbed


@pytest.mark.parametrize("schedule", ["mhlr", "mhlr_released"])
def test_a_run_that_becomes_longer_takes_the_shares_of_its_new_length(schedule: str) -> None:
    """Catches averages that remember a share of the former length beside a bound and a patience of the new one."""

    def rates(steps: int) -> ListeningRate:
        profile = TrainProfile(optim=OptimSettings.model_validate({"schedule": schedule}))
        made = rate_controller(profile.model_copy(update={"run": profile.run.model_copy(update={"steps": steps})}))
        assert isinstance(made, ListeningRate)
        return made

    before, longer = rates(1000), rates(4000)
    for step in range(100):
        before.rate(step)
        before.observe(torch.tensor(10.0 - 0.01 * step))
    saved = before.state_dict()
    saved["plateaus"]["decrease"]["rate"] = 0.5  # checkpoints of before hold it
    longer.load_state_dict(saved)
    fresh = rates(4000)._plateaus
    now = longer._plateaus
    assert now.decrease.rate == fresh.decrease.rate  # type: ignore[attr-defined]
    assert (now.bound, now.patience) == (fresh.bound, fresh.patience)
    assert now.decrease.state() == before._plateaus.decrease.state()
    assert now.decrease.state()["count"] > 50


def optim(**changes: Any) -> OptimSettings:
    return OptimSettings(learning_rate=0.4, warmup_steps=10, **changes)


@pytest.mark.parametrize("schedule", DECAYS)
def test_every_schedule_warms_up_and_never_rises_after_that(schedule: str) -> None:
    settings = optim(schedule=schedule)
    rates = [learning_rate(settings, step, 110) for step in range(111)]
    assert rates[:10] == pytest.approx([0.4 * (step + 1) / 11 for step in range(10)])
    assert rates[10] == 0.4
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_steps_are_shares_of_what_follows_the_warm_up() -> None:
    settings = optim(schedule="step", milestones=(0.25, 0.5), step_factor=0.5)
    rates = [learning_rate(settings, step, 110) for step in range(110)]
    assert [rates[step] for step in (34, 35, 59, 60, 109)] == [0.4, 0.2, 0.2, 0.1, 0.1]


def test_constant_is() -> None:
    assert {learning_rate(optim(schedule="constant"), step, 110) for step in range(10, 110)} == {0.4}


@pytest.mark.parametrize(("schedule", "rule"), [("mhlr", TwoAverages), ("mhlr_released", Recurrence)])
def test_a_profile_chooses_the_rule_and_its_patience(schedule: str, rule: type[Any]) -> None:
    """Catches a patience that nothing reads, and a scale of another head."""
    profile = TrainProfile(optim=OptimSettings.model_validate({"schedule": schedule, "patience_share": 0.25}))
    rates = rate_controller(profile.model_copy(update={"run": profile.run.model_copy(update={"steps": 400})}))
    assert isinstance(rates, ListeningRate)
    plateaus = rates._plateaus
    assert isinstance(plateaus.decrease, rule)
    assert plateaus.patience == 100
    if schedule == "mhlr":
        assert plateaus.bound == pytest.approx(10 * profile.head.margin.scale / 64 / 400)
    assert not math.isnan(rates.rate(0))
