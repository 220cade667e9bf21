from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attfc_planner.plan import PlanRequest, base_profile
from attfc_planner.search.space import SearchSpace, Setting, scaled_learning_rate, space_for
from attfc_train.errors import ProfileError
from attfc_train.profile import AttFCSettings, OptimSettings, TrainProfile
from tests.planner.fakes import make_gpu

SPACE = SearchSpace()
indices = st.fixed_dictionaries({name: st.integers(0, len(values) - 1) for name, values in SPACE.knobs.items()})


@given(indices)
def test_indices_and_settings_are_one_to_one(chosen: dict[str, int]) -> None:
    assert SPACE.indices(SPACE.at(chosen)) == chosen


@given(indices, indices, indices)
def test_distance_is_a_metric(a: dict[str, int], b: dict[str, int], c: dict[str, int]) -> None:
    one, two, three = SPACE.at(a), SPACE.at(b), SPACE.at(c)
    assert SPACE.distance(one, two) == SPACE.distance(two, one)
    assert (SPACE.distance(one, two) == 0) == (one == two)
    assert SPACE.distance(one, three) <= SPACE.distance(one, two) + SPACE.distance(two, three)


@given(indices, st.integers(2, 10**8))
def test_every_setting_makes_a_valid_profile(chosen: dict[str, int], num_ids: int) -> None:
    base = base_profile(PlanRequest(num_ids=num_ids), make_gpu())
    setting = SPACE.at(chosen)
    profile = TrainProfile.model_validate(setting.applied_to(base).model_dump())
    assert isinstance(profile.head, AttFCSettings)
    assert 1 <= profile.dcc_size <= num_ids
    assert profile.optim.batch_size == setting.batch_size
    assert profile.num_references == setting.num_references
    assert profile.model.gradient_checkpointing == setting.gradient_checkpointing


@pytest.mark.parametrize("head", [{"queue_mode": "stored", "queue_length": 3}, {"policy": "fifo", "queue_length": 1}])
def test_another_container_than_the_plan_is_about_is_refused(head: dict[str, object]) -> None:
    base = base_profile(PlanRequest(num_ids=100), make_gpu())
    other = base.model_copy(update={"head": base.head.model_copy(update=head)})
    with pytest.raises(ProfileError, match=r"must have head\.policy 'identity' and head\.queue_mode 'averaged'"):
        Setting(1.0, 2.0, 128, 1, False).applied_to(other)


def test_the_space_is_counted_right() -> None:
    settings = list(SPACE)
    assert len(settings) == len(set(settings)) == len(SPACE)


def test_the_learning_rate_is_attfcs_at_its_batch_size_and_linear() -> None:
    recipe = OptimSettings(batch_size=384, learning_rate=0.1)
    assert scaled_learning_rate(384, recipe) == 0.1
    assert scaled_learning_rate(768, recipe) == 0.2
    base = base_profile(PlanRequest(num_ids=100), make_gpu())
    warm_up = {size: Setting(1.0, 1.0, size, 1, False).applied_to(base).optim.warmup_steps for size in (384, 768, 1024)}
    assert warm_up == {384: base.optim.warmup_steps, 768: base.optim.warmup_steps, 1024: 2000}


def test_a_small_data_set_bounds_container_and_batch() -> None:
    small = space_for(num_ids=30, num_images=600)
    assert min(small.dcc_share) * 30 >= 2
    assert max(small.batch_size) == 32
    assert max(space_for(num_ids=30, num_images=6000, epochs=8).batch_size) == 96
    assert space_for(2, 2).dcc_share == (1.0,)
    assert space_for(2, 2).batch_size == (32,)


def test_a_short_run_warms_up_for_a_tenth_of_it() -> None:
    base = base_profile(PlanRequest(num_ids=100, num_images=64_000, epochs=2), make_gpu())
    assert Setting(1.0, 1.0, 128, 1, False).applied_to(base).optim.warmup_steps == 100


def test_ramps_end_within_a_short_run() -> None:
    base = base_profile(PlanRequest(num_ids=100, num_images=64_000, epochs=2), make_gpu())
    assert isinstance(base.head, AttFCSettings)
    margin = base.head.margin.model_copy(update={"ramp_steps": 5000})
    long = base.model_copy(
        update={"head": base.head.model_copy(update={"margin": margin, "encoder_momentum_ramp_steps": 5000})}
    )

    def ramps(recipe: TrainProfile) -> tuple[int, int]:
        head = Setting(1.0, 1.0, 128, 1, False).applied_to(recipe).head
        assert isinstance(head, AttFCSettings)
        return head.margin.ramp_steps, head.encoder_momentum_ramp_steps

    assert ramps(long) == (500, 1000)
    assert ramps(long.model_copy(update={"run": long.run.model_copy(update={"steps": 300})})) == (150, 300)
    unknown = long.data.model_copy(update={"num_images": None})
    assert ramps(long.model_copy(update={"data": unknown})) == (5000, 5000)
    assert ramps(base) == (base.head.margin.ramp_steps, min(1000, base.head.encoder_momentum_ramp_steps))
