from __future__ import annotations

from dataclasses import replace
from typing import get_args

import pytest

from attfc_planner.gpu.catalog import get_card
from attfc_planner.gpu.profile import GpuProfile
from attfc_planner.speed.efficiency import efficiencies
from attfc_planner.speed.loading import STATED
from attfc_planner.speed.model import hours_per_epoch, input_bytes, on_device, predict_speed, rate_of, step_seconds
from attfc_train.document import Precision
from attfc_train.heads.attfc.settings import AttFCSettings
from attfc_train.heads.full_fc.settings import FullFCSettings
from attfc_train.heads.settings import HeadSettings
from attfc_train.profile.prediction import Interval
from attfc_train.profile.profile import OptimSettings, RunSettings, TrainProfile
from attfc_train.timing.arithmetic import Arithmetic
from attfc_train.timing.ceilings import Ceilings
from attfc_train.timing.op_cost import OpCost, OpKind
from tests.planner.fakes import make_gpu
from tests.planner.planned import planned

CONV = OpCost("convolution", "conv", "forward", 10**13, 10**9, 100)
RTX_4090 = get_card("rtx-4090")
AT_ONCE = 1e15
"""Bytes/s of a bus over which the copy of a batch takes no time."""


def profile(batch_size: int = 128, references: int = 0, precision: str = "bf16") -> TrainProfile:
    head = AttFCSettings(num_references=references)
    return TrainProfile(
        head=head,
        optim=OptimSettings(batch_size=batch_size),
        run=RunSettings(precision=precision, steps=1),  # type: ignore[arg-type]
    ).resolve(1000)


def test_arithmetic_bounds_a_large_convolution() -> None:
    speed = predict_speed(profile(), make_gpu(num_cores=64, pcie_bytes_per_second=AT_ONCE), [CONV])
    share = efficiencies(make_gpu(), "bf16").arithmetic["conv"]
    assert speed.images_per_second.low == pytest.approx(128 / (1e13 / (160e12 * share.low)), rel=1e-3)
    assert speed.images_per_second.high == pytest.approx(128 / (1e13 / (160e12 * share.high)), rel=1e-3)
    assert speed.limited_by == "feature encoder (arithmetic)"


def test_memory_traffic_bounds_an_operator_without_flops() -> None:
    gpu = make_gpu(num_cores=64, pcie_bytes_per_second=AT_ONCE)
    speed = predict_speed(profile(), gpu, [OpCost("add", "elementwise", "backward", 0, 10**11, 10)])
    assert speed.limited_by == "feature encoder (memory bandwidth)"
    assert speed.images_per_second.high == pytest.approx(
        128 / 0.1 * efficiencies(make_gpu(), "bf16").bandwidth["default"].high, rel=1e-3
    )


def test_the_loss_is_fp32_whatever_the_precision() -> None:
    loss = OpCost("addmm", "loss", "loss", 10**13, 10**6, 10)
    fast, slow = (predict_speed(profile(precision=name), make_gpu(num_cores=64), [loss]) for name in ("bf16", "fp32"))
    assert (fast.images_per_second.low, fast.images_per_second.high) == (
        slow.images_per_second.low,
        slow.images_per_second.high,
    )


def of_slots(kernel: str, storage: str, traffic: int, gpu: GpuProfile) -> tuple[OpCost, ...]:
    """Return how a device makes 10^13 FLOPs of a pass in chunks that move so many bytes."""
    head = AttFCSettings(num_references=0, storage=storage, loss_kernel=kernel)  # type: ignore[arg-type]
    return made_by(head, [OpCost("slots_addmm", "loss", "loss", 10**13, traffic, 1000)], gpu)


def made_by(head: HeadSettings, chunks: list[OpCost], gpu: GpuProfile) -> tuple[OpCost, ...]:
    """Return how a device makes passes in chunks."""
    trained = profile().model_copy(update={"head": head.resolved(1000)})
    return on_device(chunks, trained, gpu, efficiencies(gpu, "bf16"))


def two_passes(scoring: int, learning: int) -> list[OpCost]:
    """Return passes in chunks that move so many bytes; without any they are faster than a kernel in fp32, which has thrice
    their FLOPs."""
    return [
        OpCost("slots_addmm", "loss", "loss", 10**13, scoring, 1000),
        OpCost("slots_addmm", "optimizer", "update", 10**13, learning, 1000),
    ]


@pytest.mark.parametrize(("scoring", "learning"), [(0, 10**12), (10**12, 0), (0, 0), (10**12, 10**12)])
def test_each_pass_of_a_container_is_chosen_by_itself(scoring: int, learning: int) -> None:
    """Catches one choice for both: the fastest step of the two has a pass that the run makes in the other way."""
    kinds = {cost.phase: cost.kind for cost in made_by(AttFCSettings(slot_rate=1.0), two_passes(scoring, learning), RTX_4090)}
    assert kinds == {"loss": "wide kernel" if scoring else "loss", "update": "wide kernel" if learning else "optimizer"}


@pytest.mark.parametrize(("learning", "is_kernel"), [(10**10, False), (10**12, True)])
def test_both_passes_of_a_learned_layer_are_chosen_together(learning: int, is_kernel: bool) -> None:
    """Catches a choice for each: a run times both passes as one work."""
    kinds = {cost.kind for cost in made_by(FullFCSettings(), two_passes(0, learning), RTX_4090)}
    assert kinds == ({"wide kernel"} if is_kernel else {"loss", "optimizer"})


def test_a_choice_does_not_see_what_the_rest_of_a_step_hides() -> None:
    """Catches launches of chunks that hide behind the network in a prediction: a run times a pass alone."""
    pass_in_chunks = OpCost("slots_addmm", "loss", "loss", 10**9, 10**9, 10**5)
    long = replace(CONV, flops=10**16)
    costs = made_by(AttFCSettings(num_references=0, storage="fp32"), [long, pass_in_chunks], RTX_4090)
    assert [cost.kind for cost in costs] == ["conv", "wide kernel"]


@pytest.mark.parametrize(
    ("kernel", "storage", "traffic", "kind"),
    [
        ("auto", "bf16", 10**12, "narrow kernel"),
        ("auto", "fp32", 10**12, "wide kernel"),
        ("auto", "fp32", 10**6, "loss"),
        ("triton", "fp32", 10**6, "wide kernel"),
        ("chunked", "bf16", 10**12, "loss"),
    ],
)
def test_passes_over_slots_are_made_in_the_faster_way(kernel: str, storage: str, traffic: int, kind: str) -> None:
    (cost,) = of_slots(kernel, storage, traffic, get_card("rtx-4090"))
    assert cost.kind == kind


def test_a_cpu_and_a_card_that_triton_does_not_know_go_through_chunks() -> None:
    for gpu in (make_gpu(kind="cpu", architecture="cpu"), get_card("v100-16")):
        (cost,) = of_slots("auto", "bf16", 10**12, gpu)
        assert cost.is_over_slots


def test_kernels_multiply_in_the_slots_type() -> None:
    """Catches the rate of the precision in place of the storage's."""
    gpu = get_card("a100-80")
    table = efficiencies(gpu, "fp32")
    for kind, rate in (("narrow kernel", gpu.ceiling("bf16_flops")), ("wide kernel", gpu.ceiling("tf32_flops"))):
        step, _ = step_seconds([OpCost("scores", kind, "loss", 10**13, 0, 1)], gpu, "fp32", table)  # type: ignore[arg-type]
        share = table.arithmetic["loss"]
        assert (step.slow, step.fast) == pytest.approx((1e13 / (rate * share.low), 1e13 / (rate * share.high)))


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("slug", ["a100-80", "t4"])
def test_a_prediction_and_a_report_hold_operators_against_the_same_ceilings(slug: str, precision: Precision) -> None:
    """Catches a second opinion of what a run multiplies in."""
    gpu = get_card(slug)
    if not gpu.supports(precision):
        return
    rates: dict[Arithmetic, float] = {"fp32": gpu.fp32_flops}
    for name, rate in (("tf32", gpu.tf32_flops), ("fp16", gpu.fp16_flops), ("bf16", gpu.bf16_flops)):
        rates |= {name: rate} if rate else {}  # type: ignore[misc]
    ceilings = Ceilings(precision, gpu.tf32_flops is not None, rates, gpu.memory_bandwidth_bytes_per_second, None)
    for kind in get_args(OpKind):
        if kind != "narrow kernel" or gpu.supports("bf16"):  # which Turing has none of
            cost = OpCost("any", kind, "loss", 10**12, 0, 1)
            assert ceilings.arithmetic_seconds(cost) == 10**12 / rate_of(kind, gpu, precision)


def test_a_card_without_a_rate_for_bf16_multiplies_at_that_of_fp32() -> None:
    """Catches a profile of one's own, which may leave out what the card does not support, as a fault of the planner."""
    card = get_card("rtx-3090")
    gpu = card.model_copy(update={"bf16_flops": None})
    (cost,) = of_slots("triton", "bf16", 10**12, gpu)
    step, _ = step_seconds([cost], gpu, "fp16", efficiencies(gpu, "fp16"))
    expected, _ = step_seconds([replace(cost, kind="wide kernel")], card, "fp16", efficiencies(card, "fp16"))
    assert (step.slow, step.fast) == (expected.slow, expected.fast)


ADD = OpCost("add", "elementwise", "loss", 0, 10**9, 7)


@pytest.mark.parametrize("bus", [25e9, 1e5])
@pytest.mark.parametrize("launches", [100, 10**6])
def test_phases_add_up_to_the_step_or_its_copy(launches: int, bus: float) -> None:
    """Catches a phase that is left out, and one that waits for its own launches where others hide them."""
    gpu = make_gpu(num_cores=64, pcie_bytes_per_second=bus)
    costs = [replace(CONV, count=launches), ADD, replace(CONV, phase="backward", flops=2 * 10**13), replace(ADD, phase="input")]
    speed = predict_speed(profile(), gpu, costs)
    assert [term.name for term in speed.phases] == ["forward", "loss", "backward", "input"]
    step, _ = step_seconds(costs, gpu, "bf16", efficiencies(gpu, "bf16"))
    copied = input_bytes(profile()) / gpu.ceiling("pcie_bytes_per_second")
    assert (copied > step.slow) == (bus == 1e5)
    assert sum(term.slow for term in speed.phases) == pytest.approx(max(step.slow, copied / 0.5))
    assert sum(term.fast for term in speed.phases) == pytest.approx(max(step.fast, copied / 0.9))
    if launches == 100:
        assert speed.phases[2].slow > 1.9 * speed.phases[0].slow


def test_a_plan_keeps_the_seconds_of_its_phases() -> None:
    """Catches ends that are turned round."""
    plan = planned()
    assert plan.profile.prediction is not None
    phases = plan.profile.prediction.phases
    assert 0 < sum(each.low for each in phases) < sum(each.high for each in phases)
    rate = plan.profile.prediction.images_per_second
    whole = sum(each.high for each in phases if each.phase != "input")
    assert whole <= plan.profile.optim.batch_size / rate.low * 1.001


def test_references_cost_copying() -> None:
    assert input_bytes(profile(references=2)) == 3 * input_bytes(profile())


def test_a_batch_is_copied_beside_the_step_before() -> None:
    """Catches a copy that adds to its step, and one that is forgotten where it takes longer than a step."""
    rates = {}
    for bus in (25e9, 1e9, 1e6):
        gpu = make_gpu(num_cores=10_000, pcie_bytes_per_second=bus)
        rates[bus] = predict_speed(profile(), gpu, [CONV])
    assert rates[1e9].images_per_second == rates[25e9].images_per_second
    assert rates[1e9].limited_by == "feature encoder (arithmetic)"
    image = 3 * 112**2
    slow = rates[1e6].images_per_second
    assert (slow.low, slow.high) == pytest.approx((0.5 * 1e6 / image, 0.9 * 1e6 / image), rel=1e-3)
    assert rates[1e6].limited_by == "input copy (PCIe)"


def test_many_small_operators_are_bound_by_launching_them() -> None:
    speed = predict_speed(
        profile(batch_size=2), make_gpu(num_cores=64), [OpCost("add", "elementwise", "backward", 0, 10**6, 10**5)]
    )
    assert speed.limited_by == "kernel launches (host)"


# Catches the largest in place of the sum: without the decoding of 128 images on two cores the rate would be 4 % higher.
def test_a_cpu_does_one_after_the_other() -> None:
    gpu = make_gpu(kind="cpu", architecture="cpu", num_cores=2)
    alone = predict_speed(profile(precision="fp32"), gpu, [CONV]).images_per_second
    share = efficiencies(gpu, "fp32")
    step = 1e13 / 40e12 / share.arithmetic["conv"].high + 100 * share.launch_seconds.high
    decoding = 128 / (2 * STATED.per_core.high)
    assert alone.high == pytest.approx(128 / (step + decoding), rel=1e-3)


def test_measured_ceilings_replace_the_datasheets() -> None:
    whole = make_gpu(num_cores=64, pcie_bytes_per_second=AT_ONCE)
    half = whole.model_copy(update={"measured": {"bf16_flops": 80e12}})
    fast, slow = (predict_speed(profile(), gpu, [CONV]).images_per_second for gpu in (whole, half))
    assert slow.high == pytest.approx(fast.high / 2, rel=1e-3)
    assert "measured" in slow.source


def test_hours_per_epoch_turn_the_interval_around() -> None:
    hours = hours_per_epoch(Interval(low=1000, high=2000, source=""), 7_200_000)
    assert hours is not None
    assert (hours.low, hours.high) == (1, 2)
    assert hours_per_epoch(Interval(low=1, high=2, source=""), None) is None
