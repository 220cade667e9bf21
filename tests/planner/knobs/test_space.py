from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attfc_planner.knobs.recipe import scaled_learning_rate
from attfc_planner.knobs.space import Setting, space_for, with_default_head
from attfc_planner.plan.problem import base_profile, pose
from attfc_planner.plan.request import PlanRequest, precisions
from attfc_planner.search.constraints import indivisible
from attfc_train.errors import ProfileError
from attfc_train.heads.attfc.settings import AttFCSettings
from attfc_train.profile.file import load_preset
from attfc_train.profile.profile import OptimSettings, TrainProfile
from tests.planner.fakes import FakeMemoryModel, make_gpu
from tests.planner.settings import setting as setting_of

SPACE = space_for(40_000_000, kind="attfc")
settings = st.fixed_dictionaries({name: st.sampled_from(values) for name, values in SPACE.values.items()}).map(Setting.of)


@given(settings.filter(lambda setting: setting.divides), st.integers(2, 10**8))
def test_every_setting_makes_a_valid_profile(setting: Setting, num_ids: int) -> None:
    base = base_profile(PlanRequest(num_ids=num_ids), make_gpu())
    profile = TrainProfile.model_validate(setting.applied_to(base).model_dump())
    assert isinstance(profile.head, AttFCSettings)
    assert 1 <= profile.dcc_size <= num_ids
    assert (profile.optim.batch_size, profile.optim.accumulation) == (setting.batch_size, setting.accumulation)
    assert profile.num_references == setting["num_references"]
    assert profile.head.storage == setting["storage"]
    assert profile.model.gradient_checkpointing == setting.gradient_checkpointing
    assert profile.run.precision == base.run.precision


@given(settings)
def test_a_batch_is_split_into_equal_parts_that_batchnorm_can_bear(setting: Setting) -> None:
    parts = setting.batch_size / setting.accumulation
    assert setting.divides == (setting.accumulation == 1 or (parts.is_integer() and parts >= 32))
    assert (indivisible(setting) <= 0) == setting.divides


def test_a_setting_without_storage_keeps_the_recipes() -> None:
    base = base_profile(PlanRequest(num_ids=100), make_gpu())
    base = base.model_copy(update={"head": base.head.model_copy(update={"storage": "int8"})})
    assert setting_of(1.0, 2.0, 128, 1, False).applied_to(base).head.storage == "int8"  # type: ignore[union-attr]


def test_precisions_that_another_one_equals_are_not_searched() -> None:
    rates = {"fp32_flops": 40 * 10**12, "bf16_flops": 160 * 10**12, "fp16_flops": 160 * 10**12}
    assert precisions(None, make_gpu(**rates))[0] == ("bf16",)
    assert precisions("fp32", make_gpu(**rates)) == (("fp32",), ())
    slow, left_out = precisions(None, make_gpu(**{**rates, "bf16_flops": 20 * 10**12, "fp16_flops": 10 * 10**12}))
    assert slow == ("bf16", "fp32"), "fewer bytes or more speed"
    assert len(left_out) == 1
    assert left_out[0].startswith("precision fp16")
    noise = {**rates, "fp16_flops": 163 * 10**12}
    assert precisions(None, make_gpu(**noise))[0] == ("bf16",), "2 % is less than a probe can tell"


@pytest.mark.parametrize("head", [{"queue_mode": "stored", "queue_length": 3}, {"policy": "fifo", "queue_length": 1}])
def test_another_container_than_the_plan_is_about_is_refused(head: dict[str, object]) -> None:
    base = base_profile(PlanRequest(num_ids=100), make_gpu())
    other = base.model_copy(update={"head": base.head.model_copy(update=head)})
    with pytest.raises(ProfileError, match=r"must have head\.policy 'identity' and head\.queue_mode 'averaged'"):
        setting_of(1.0, 2.0, 128, 1, False).applied_to(other)


def test_the_space_is_counted_right() -> None:
    settings = list(SPACE)
    assert len(settings) == len(set(settings)) == len(SPACE)


def test_the_learning_rate_is_attfcs_at_its_batch_size_and_linear() -> None:
    recipe = OptimSettings(batch_size=384, learning_rate=0.1)
    assert scaled_learning_rate(384, recipe) == 0.1
    assert scaled_learning_rate(768, recipe) == 0.2
    base = base_profile(PlanRequest(num_ids=100, num_images=10**7), make_gpu())
    sizes = (128, 384, 768, 1024)
    warm_up = {size: setting_of(1.0, 1.0, size, 1, False).applied_to(base).optim.warmup_steps for size in sizes}
    assert warm_up == {128: 3000, 384: 1000, 768: 500, 1024: 2000}, "the same images, but for a rate beyond twice the recipe's"
    ramps = [setting_of(1.0, 1.0, size, 1, False).applied_to(base).head.class_encoder for size in sizes]
    assert [encoder.ramp_steps for encoder in ramps if encoder] == [6000, 2000, 1000, 750]


def test_a_plan_without_images_can_be_trained_on_however_few() -> None:
    """Catches a warm-up of the recipe's length, which the trainer refuses where a run is shorter."""
    base = base_profile(PlanRequest(num_ids=100), make_gpu())
    for size in (128, 384, 2048):
        planned = setting_of(1.0, 1.0, size, 1, False).applied_to(base)
        for images in (100, 3_000, 64_000):
            known = base_profile(PlanRequest(num_ids=100, num_images=images), make_gpu())
            at_once = setting_of(1.0, 1.0, size, 1, False).applied_to(known).resolve(100, images)
            later = planned.resolve(100, images)
            assert later.optim.warmup <= 0.1 * later.total_steps
            ramps = [each.head.class_encoder.ramp_steps for each in (later, at_once) if each.head.class_encoder]
            assert later.optim.warmup == pytest.approx(at_once.optim.warmup, abs=1), "a planned run's steps are not rounded"
            assert ramps == pytest.approx([ramps[0]] * 2, abs=1)


def test_a_small_data_set_bounds_container_and_batch() -> None:
    small = space_for(num_ids=30, num_images=600, kind="attfc")
    assert min(small.values["dcc_share"]) * 30 >= 2
    assert max(small.values["batch_size"]) == 32
    assert max(space_for(num_ids=30, num_images=6000, epochs=8, kind="attfc").values["batch_size"]) == 96
    assert space_for(2, 2, kind="attfc").values["dcc_share"] == (1.0,)
    assert space_for(2, 2, kind="attfc").values["batch_size"] == (32,)


def test_a_short_run_warms_up_for_a_tenth_of_it() -> None:
    base = base_profile(PlanRequest(num_ids=100, num_images=64_000, epochs=2), make_gpu())
    assert setting_of(1.0, 1.0, 128, 1, False).applied_to(base).optim.warmup_steps == 100


def test_ramps_end_within_a_short_run() -> None:
    base = base_profile(PlanRequest(num_ids=100, num_images=64_000, epochs=2), make_gpu())
    assert isinstance(base.head, AttFCSettings)
    margin = base.head.margin.model_copy(update={"ramp_steps": 5000})
    long = base.model_copy(
        update={"head": base.head.model_copy(update={"margin": margin, "encoder_momentum_ramp_steps": 5000})}
    )

    def ramps(recipe: TrainProfile) -> tuple[int | None, int | None]:
        head = setting_of(1.0, 1.0, 128, 1, False).applied_to(recipe).head
        assert isinstance(head, AttFCSettings)
        return head.margin.ramp_steps, head.encoder_momentum_ramp_steps

    assert ramps(long) == (500, 1000)
    assert ramps(long.model_copy(update={"run": long.run.model_copy(update={"steps": 300})})) == (150, 300)
    unknown = long.data.model_copy(update={"num_images": None})
    assert ramps(long.model_copy(update={"data": unknown})) == (5000, 5000)
    assert ramps(base) == (0, 1000), "the recipe's 768,000 images are six times the run"


@pytest.mark.parametrize("preset", ["attfc", "tiny"])
def test_what_is_recommended_is_the_preset(preset: str) -> None:
    """Catches a kind that is compared beside another recipe by settings that its own preset does not have."""
    head = load_preset(preset).head
    assert isinstance(head, AttFCSettings)
    recommended = with_default_head(load_preset("full-fc"), "attfc").head
    assert isinstance(recommended, AttFCSettings)
    for name in ("policy", "queue_length", "num_references", "slot_rate", "dcc_share", "storage"):
        assert getattr(recommended, name) == getattr(head, name)


def test_references_are_not_searched_where_slots_learn() -> None:
    """Catches a search that doubles its traces for what no measurement speaks for, and one that never looks at references."""
    request = PlanRequest(num_ids=1000)

    def references(slot_rate: float) -> tuple[object, ...]:
        head = AttFCSettings(slot_rate=slot_rate)
        return SPACE.fixed(head.fixed_knobs())["num_references"].values

    assert references(0.0) == SPACE["num_references"].values
    assert references(1.0) == (AttFCSettings().num_references,)
    assert pose(request, make_gpu(), lambda *_: FakeMemoryModel(1)).spaces.members[0]["num_references"].values == (0,)
