"""Others' measurements: how they are read and judged, and the figures of the page that tells of them."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from torch import Tensor, nn

from attfc_planner.gpu.catalog import get_card
from attfc_train.units import MIB
from benchmarks.external_memory import (
    CARDS,
    NETWORKS,
    SchedtuneRow,
    XmemRow,
    judge,
    possible_rows,
    read_schedtune,
    read_xmem,
    rests,
    slopes,
    spread,
    summary,
)
from benchmarks.external_networks import NetworkRun, Setting, TorchvisionMissing, record_network, record_training
from benchmarks.provenance import RESULTS
from tests.architecture.modules import ROOT

CAPACITY = 10_000 * MIB
SMALL = Setting("small", 4, "Adam", 0.0, batch_size=8, image_size=64, num_steps=2, modern=True)


def row(died: bool = False, **died_at: bool) -> XmemRow:
    """A run that took 5,000 MiB, with capped runs at 3,000 and 6,000 MiB."""
    estimates = {"xmem": 6000 * MIB, "dnnmem": 3000 * MIB}
    return XmemRow("ResNet101", "SGD", 1, "RTX 3060", CAPACITY, 5000 * MIB, died, estimates, died_at)


def test_every_setting_of_xmem_is_known() -> None:
    rows = read_xmem()
    assert len(rows) == 19
    assert {one.model for one in rows} <= set(NETWORKS)
    assert {one.gpu for one in rows} <= set(CARDS)
    assert sum(one.died for one in rows) == 5


def test_a_limit_that_was_tried_decides() -> None:
    tried = row(xmem=False, dnnmem=True)
    assert tried.lives_at(6000 * MIB) is True
    assert tried.lives_at(7000 * MIB) is True, "more than a limit that sufficed"
    assert tried.lives_at(3000 * MIB) is False
    assert tried.lives_at(2000 * MIB) is False, "less than a limit that did not"
    assert tried.lives_at(4500 * MIB) is None
    assert tried.lives_at(5960 * MIB) is True, "xMem rounds the share to a hundredth"


def test_a_prediction_is_judged_as_xmem_judges() -> None:
    """Catches a death at the limit that is not a failure, and a death on the whole card that is foretold and yet one."""
    tried = row(xmem=False, dnnmem=True)
    assert not judge(tried, 6000 * MIB).failed
    assert judge(tried, 3000 * MIB).failed
    assert judge(tried, 6000 * MIB).error == pytest.approx(0.2)
    assert judge(tried, 3000 * MIB).error == pytest.approx(-0.4)
    assert judge(tried, None).failed, "it lived"
    assert judge(tried, CAPACITY + 1).failed, "it lived"
    assert not judge(row(died=True), None).failed
    assert not judge(row(died=True), CAPACITY + 1).failed
    assert judge(row(died=True), 9000 * MIB).failed
    assert judge(row(died=True), 9000 * MIB).error is None


def test_where_no_run_tells_less_than_the_peak_is_a_failure() -> None:
    untold = judge(row(xmem=False, dnnmem=True), 4500 * MIB)
    assert untold.failed
    assert not untold.told
    assert not judge(row(dnnmem=True), 5001 * MIB).failed


@pytest.mark.parametrize("name", ["xmem", "dnnmem", "schedtune"])
def test_the_judge_agrees_with_xmems_own_capped_runs(name: str) -> None:
    """Catches a limit that is rounded in another way, or compared the wrong way round."""
    rows = [one for one in read_xmem() if name in one.died_at_estimate]
    assert rows
    assert [one.lives_at(one.estimates[name]) for one in rows] == [not one.died_at_estimate[name] for one in rows]


def test_xmems_estimates_are_judged_too() -> None:
    judged = summary([judge(one, one.estimates["xmem"]) for one in read_xmem()])
    assert judged["runs_with_an_error"] == 14
    assert judged["median_error"] == pytest.approx(0.0284, abs=1e-4)
    assert judged["failures"] == 0


def test_what_no_card_can_have_run_is_left_out() -> None:
    rows = read_schedtune()
    left_out = [one for one in rows if one not in possible_rows(rows)]
    assert len(rows) == 240
    assert len(left_out) == 18
    assert {one.card for one in left_out} == {"Tesla K80", "RTX 2070 Super", "RTX 3070"}
    assert {one.batch_size for one in left_out} == {64}


def jobs(measured: Callable[[int, int], int]) -> list[SchedtuneRow]:
    return [
        SchedtuneRow(model, batch, card, 20_000 * MIB, measured(batch, base) * MIB)
        for card, base in (("a", 300), ("b", 700))
        for model in ("one", "two", "three")
        for batch in (8, 32)
    ]


def test_a_right_setting_leaves_the_same_rest_for_all_networks() -> None:
    rows = jobs(lambda batch, base: base + 90 * batch)
    assert rests(rows, right) == {"a": 300 * MIB, "b": 700 * MIB}
    assert spread(rows, right) == 0
    assert spread(rows, wrong) == 100 * MIB
    assert slopes(rows, right)["two"] == {"a": (90, 90), "b": (90, 90)}


def right(job: SchedtuneRow) -> int:
    return 90 * job.batch_size * MIB


def wrong(job: SchedtuneRow) -> int:
    """What another optimiser would keep: more, in proportion to the network's weights."""
    return right(job) + {"one": 100, "two": 200, "three": 300}[job.model] * MIB


def test_a_half_of_the_slope_is_seen() -> None:
    rows = jobs(lambda batch, base: base + 90 * batch)
    assert slopes(rows, lambda job: 45 * job.batch_size * MIB)["one"]["a"] == (90, 45)
    assert spread(rows, lambda job: 45 * job.batch_size * MIB) > 0


def small_network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 1, 1),
        nn.Conv2d(1, 16, 3),
        nn.Conv2d(16, 16, 3, groups=16),
        nn.BatchNorm2d(16),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 4),
    )


@pytest.fixture(scope="module")
def run() -> NetworkRun:
    return record_training(SMALL, small_network())


def test_the_workspaces_are_the_planners(run: NetworkRun) -> None:
    """Catches a depthwise convolution that takes one, and a backward one that takes one for both gradients."""
    of_first = 1 + 1  # no gradient reaches the images
    of_second = 1 + 2
    assert (run.workspaces(get_card("rtx-4090")) > 0).sum() == SMALL.num_steps * (of_first + of_second)
    assert not run.workspaces(None).any()


class Residual(nn.Module):
    """Two branches, so that autograd adds their gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.branch = nn.Conv2d(3, 3, 1)

    def forward(self, images: Tensor) -> Tensor:
        start = self.branch(images)
        return start + self.branch(start)


def test_torch_1_adds_gradients_into_a_new_tensor() -> None:
    """Catches sums that are in place in both, and in neither; the network's own addition makes a tensor in both."""
    images_bytes = SMALL.batch_size * 3 * SMALL.image_size**2 * 4
    network = nn.Sequential(Residual(), nn.ReLU(), nn.Flatten(), nn.Linear(3 * SMALL.image_size**2, 4))
    sums = {}
    for modern in (True, False):
        trace = record_training(replace(SMALL, optimizer="SGD", modern=modern), network).trace
        sums[modern] = sum(op == "add" and size == images_bytes for op, size in zip(trace.ops, trace.nbytes, strict=True))
    assert sums == {True: SMALL.num_steps, False: 2 * SMALL.num_steps}


def test_adam_keeps_two_moments(run: NetworkRun) -> None:
    parameters = sum(parameter.numel() for parameter in small_network().parameters())
    plain = record_training(Setting("small", 4, "SGD", 0.0, 8, 64, 2, modern=True), small_network())
    assert kept(run) - kept(plain) >= 2 * 4 * parameters


def kept(run: NetworkRun) -> int:
    """The bytes that are alive after the last step."""
    ends = [event for event in run.trace.events if event < 0]
    alive = set(range(len(run.trace.nbytes))) - {~event for event in ends}
    return int(run.trace.nbytes[list(alive)].sum())


def test_without_room_cudnn_takes_less(run: NetworkRun) -> None:
    """Catches a run that is said to die for want of a workspace."""
    workspaces = run.workspaces(get_card("rtx-4090"))
    free = run.reserved(workspaces)
    bare = run.reserved(np.zeros_like(workspaces))
    assert free is not None
    assert bare is not None
    assert free >= bare + 40 * MIB, "64 MiB, of which some fits into what is cached"
    squeezed = run.reserved(workspaces, capacity=bare + 8 * MIB)
    assert squeezed is not None
    assert squeezed <= bare + 8 * MIB
    assert run.reserved(workspaces, capacity=4 * MIB) is None


def test_without_torchvision_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr("importlib.import_module", missing)
    with pytest.raises(TorchvisionMissing, match="pip install torchvision"):
        record_network(SMALL)


def test_a_network_of_torchvision() -> None:
    try:
        importlib.import_module("torchvision.models")
    except (ImportError, RuntimeError, AttributeError):
        pytest.skip("torchvision is not installed: pip install torchvision")
    setting = Setting("resnet18", 1000, "SGD", 0.9, batch_size=2, image_size=64, num_steps=2, modern=False)
    weights = 11_689_512 * 4
    reserved = record_network(setting).reserved(np.zeros(1, np.int64))
    assert reserved is not None
    assert 3 * weights < reserved < 6 * weights, "weights, gradients and momentum"


def test_the_page_has_the_figures_of_the_file() -> None:
    """Catches a run of the benchmark after which docs/how-true.md was left as it was."""
    result = json.loads((RESULTS / "external_memory.json").read_text(encoding="utf-8"))
    page = (ROOT / "docs" / "how-true.md").read_text(encoding="utf-8")
    for figures in result["xmem"]["summary"].values():
        assert f"| {figures['median_error']:.2%} | {figures['failures']:.1%} |" in page
    for model, by_card in result["schedtune"]["slopes"].items():
        low, *_, high = sorted(measured for measured, _ in by_card.values())
        assert f"| {model} | {low:.0f} to {high:.0f} |" in page
