"""How large the short trainings are made for the time that is left."""

from __future__ import annotations

from attfc_planner.tune.stages.budget import Scale, affordable


def scale(seconds: float, rates: tuple[float, ...] = (1000.0,) * 6, **changes: float) -> Scale | None:
    given = {"startup": 10.0, "epochs": 5.0, "images_per_id": 20.0, "num_ids": 100_000, "batch_size": 128, **changes}
    return affordable(seconds, rates, **given)  # type: ignore[arg-type]


def test_more_time_gives_more_identities() -> None:
    hour = scale(3600)
    two_hours = scale(7200)
    assert hour is not None
    assert two_hours is not None
    assert hour.num_ids < two_hours.num_ids < 100_000
    assert hour.epochs == two_hours.epochs == 5.0
    assert hour.num_settings == 6


def test_all_identities_are_the_most() -> None:
    assert scale(10**7) == Scale(100_000, 5.0, 6)


def test_little_time_takes_settings_first_and_then_passes() -> None:
    scales = [scale(seconds) for seconds in range(20, 400, 5)]
    numbers = [each.num_settings for each in scales if each is not None and each.epochs == 5.0]
    assert numbers == sorted(numbers)
    assert set(numbers) >= {1, 6}
    shorter = [each for each in scales if each is not None and each.epochs < 5.0]
    assert {each.num_settings for each in shorter} == {1}
    assert scales[0] is None


def test_slow_settings_get_fewer_identities() -> None:
    slow = scale(3600, (100.0,) * 3)
    fast = scale(3600, (1000.0,) * 3)
    assert slow is not None
    assert fast is not None
    assert slow.num_ids < fast.num_ids
