"""Seconds of exchanges from bytes and links, the links themselves, and what a plan says of several GPUs."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attfc_planner.gpu.catalog import get_card
from attfc_planner.gpu.links import LEAST_SECONDS, NVLINK_BYTES_PER_SECOND, REACHED
from attfc_planner.speed.communication import Communication, communication, sent
from attfc_planner.speed.efficiency import Range
from attfc_planner.speed.model import predict_speed
from attfc_train.errors import UsageError
from attfc_train.profile.profile import TrainProfile
from attfc_train.timing.op_cost import BESIDE, OpCost
from tests.planner.trace.profiles import small_profile


def on(gpus: int) -> TrainProfile:
    profile = small_profile({"kind": "full_fc"}, batch_size=32 * gpus)
    return profile.model_copy(update={"run": profile.run.model_copy(update={"gpus": gpus})})


def exchange(name: str, num_bytes: int, phase: str = "update") -> OpCost:
    return OpCost(name, "exchange", phase, 0, num_bytes, 1)


def rings_bytes(name: str, num_bytes: int, gpus: int) -> float:
    """Walk the ring: in every step each process passes one K-th of the buffer on."""
    steps = {"all_reduce": 2 * (gpus - 1), BESIDE: 2 * (gpus - 1), "all_gather": gpus - 1, "reduce_scatter": gpus - 1}[name]
    return sum(num_bytes / gpus for _ in range(steps))


@given(st.sampled_from(["all_reduce", BESIDE, "all_gather", "reduce_scatter"]), st.integers(1, 10**12), st.integers(2, 64))
def test_bytes_that_are_sent_are_those_of_a_ring(name: str, num_bytes: int, gpus: int) -> None:
    assert sent(exchange(name, num_bytes), gpus) == pytest.approx(rings_bytes(name, num_bytes, gpus))


def test_seconds_are_bytes_over_the_link_and_the_least_of_every_exchange() -> None:
    """Catches bits for bytes, a direction for two, and slow ends for fast ones."""
    links = get_card("h100-sxm").beside_others(8).links_among(8)
    costs = [
        exchange(BESIDE, 8 * 10**9, "backward"),
        exchange("all_gather", 8, "loss"),
        OpCost("mm", "matmul", "loss", 9, 9, 1),
    ]
    made = communication(costs, links)
    assert made.count == 2
    assert made.sent_bytes == 14 * 10**9 + 7
    assert made.seconds.high == pytest.approx(2 * 15e-6 + made.sent_bytes / (0.8 * 450e9))
    assert made.seconds.low == pytest.approx(2 * 30e-6 + made.sent_bytes / (0.6 * 450e9))
    assert made.beside.low < made.seconds.low


def waited_by_hand(seconds: float, buckets: int, computed: float, at_a_time: float = 1e-4) -> float:
    """Let time pass: a bucket is sent when the link is free and its part of the pass is done."""
    time = link_is_free_at = 0.0
    waiting, sent_buckets = 0, 0
    while sent_buckets < buckets:
        if sent_buckets + waiting < buckets and time >= (sent_buckets + waiting + 1) / buckets * computed:
            waiting += 1
        elif waiting and time >= link_is_free_at:
            waiting -= 1
            sent_buckets += 1
            link_is_free_at = time + seconds / buckets
        else:
            time += at_a_time
    return max(0.0, link_is_free_at - computed)


@settings(max_examples=50)
@given(st.floats(0.01, 1), st.integers(1, 9), st.floats(0.01, 1))
def test_a_step_waits_for_what_the_backward_pass_does_not_hide(seconds: float, buckets: int, computed: float) -> None:
    """Catches a last bucket that is hidden, and buckets that are sent all at once."""
    exact = Range(seconds, seconds)
    made = Communication(0.0, buckets + 2, Range(seconds + 0.5, seconds + 0.5), exact, buckets)
    waited = made.waited(Range(computed, computed))
    assert waited.low == waited.high == pytest.approx(0.5 + waited_by_hand(seconds, buckets, computed), abs=2e-3)
    assert made.hidden(Range(computed, computed)) == pytest.approx(seconds + 0.5 - waited.low)
    assert waited.low >= 0.5 + seconds / buckets - 1e-9


def test_without_gradients_a_step_waits_for_all() -> None:
    made = communication([exchange("all_gather", 10**9)], get_card("h100-sxm").beside_others(8).links_among(8))
    assert made.waited(Range(1.0, 1.0)) == made.seconds


def test_a_step_takes_its_exchanges_besides_and_one_gpu_takes_none() -> None:
    card = get_card("h100-sxm").in_host(10_000)
    work = [OpCost("mm", "matmul", "forward", 10**13, 10**6, 1)]
    exchanges = [exchange("all_reduce", 8 * 10**9)]
    one = predict_speed(on(1), card, work).images_per_second
    assert predict_speed(on(1), card, [*work, *exchanges]).images_per_second == one
    free = predict_speed(on(8), card, work).images_per_second
    assert free.high == pytest.approx(8 * one.high, rel=1e-3)
    slower = predict_speed(on(8), card, [*work, *exchanges])
    assert 32 * 8 / slower.images_per_second.high == pytest.approx(32 / one.high + 14e9 / (0.8 * 450e9) + 15e-6, rel=1e-3)
    assert predict_speed(on(8), card, exchanges).limited_by == "communication (nvlink)"


def test_the_slowest_link_is_the_cards_best_or_ethernet_between_machines() -> None:
    assert get_card("h100-sxm").beside_others(8).links_among(8).name == "nvlink"
    assert get_card("rtx-4090").beside_others(8).links_among(8).name == "pcie"
    assert get_card("h100-sxm").beside_others(8, 2).links_among(8).name == "eth100"
    assert get_card("h100-sxm").beside_others(1) == get_card("h100-sxm")
    assert all(get_card(slug).slug == slug for slug in NVLINK_BYTES_PER_SECOND)
    assert set(REACHED) == set(LEAST_SECONDS)


@pytest.mark.parametrize(
    ("card", "gpus", "nodes", "link", "rule"),
    [
        ("rtx-4090", 8, 1, "nvlink", "a card with NVLink"),
        ("h100-sxm", 8, 2, "pcie", "from machine to machine"),
        ("h100-sxm", 8, 1, "eth100", "between machines"),
        ("h100-sxm", 8, 3, None, "as many on each of --nodes"),
        ("h100-sxm", 1, 2, None, "--nodes needs --gpus"),
    ],
)
def test_links_that_cannot_be_are_refused(card: str, gpus: int, nodes: int, link: str | None, rule: str) -> None:
    with pytest.raises(UsageError, match=rule):
        get_card(card).beside_others(gpus, nodes, link)  # type: ignore[arg-type]
