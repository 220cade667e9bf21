"""Seconds of exchanges from bytes and links, the links themselves, and what a plan says of several GPUs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attfc_planner.gpu.catalog import get_card
from attfc_planner.gpu.links import LEAST_SECONDS, NVLINK_BYTES_PER_SECOND, REACHED
from attfc_planner.speed.communication import communication, sent
from attfc_planner.speed.model import predict_speed
from attfc_train.errors import UsageError
from attfc_train.profile.profile import TrainProfile
from attfc_train.timing.op_cost import OpCost
from tests.planner.trace.profiles import small_profile


def on(gpus: int) -> TrainProfile:
    profile = small_profile({"kind": "full_fc"}, batch_size=32 * gpus)
    return profile.model_copy(update={"run": profile.run.model_copy(update={"gpus": gpus})})


def exchange(name: str, num_bytes: int, phase: str = "update") -> OpCost:
    return OpCost(name, "exchange", phase, 0, num_bytes, 1)


def rings_bytes(name: str, num_bytes: int, gpus: int) -> float:
    """Walk the ring: in every step each process passes one K-th of the buffer on."""
    steps = {"all_reduce": 2 * (gpus - 1), "all_gather": gpus - 1, "reduce_scatter": gpus - 1}[name]
    return sum(num_bytes / gpus for _ in range(steps))


@given(st.sampled_from(["all_reduce", "all_gather", "reduce_scatter"]), st.integers(1, 10**12), st.integers(2, 64))
def test_bytes_that_are_sent_are_those_of_a_ring(name: str, num_bytes: int, gpus: int) -> None:
    assert sent(exchange(name, num_bytes), gpus) == pytest.approx(rings_bytes(name, num_bytes, gpus))


def test_seconds_are_bytes_over_the_link_and_the_least_of_every_exchange() -> None:
    """Catches bits for bytes, a direction for two, and slow ends for fast ones."""
    links = get_card("h100-sxm").beside_others(8).links_among(8)
    costs = [exchange("all_reduce", 8 * 10**9), exchange("all_gather", 8, "loss"), OpCost("mm", "matmul", "loss", 9, 9, 1)]
    made = communication(costs, links)
    assert made.count == 2
    assert made.sent_bytes == 14 * 10**9 + 7
    assert made.seconds.high == pytest.approx(2 * 15e-6 + made.sent_bytes / (0.8 * 450e9))
    assert made.seconds.low == pytest.approx(2 * 30e-6 + made.sent_bytes / (0.6 * 450e9))
    assert made.gradients.low < made.seconds.low
    assert made.could_hide(1e-9) == 1e-9


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
