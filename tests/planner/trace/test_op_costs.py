"""FLOPs: as torch counts them where it is right, and the groups that it forgets."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from attfc_train.backbones.mixfacenet import MixedConv
from attfc_train.timing.counting import Counter
from attfc_train.timing.op_cost import OpCost


def convolution(groups: int, channels: int = 8, stride: int = 1) -> torch.Tensor:
    """A convolution's sum, its input with a gradient."""
    layer = torch.nn.Conv2d(channels, 2 * channels if groups == 1 else channels, 3, stride, 1, groups=groups, bias=False)
    return layer(torch.ones(2, channels, 6, 6, requires_grad=True)).sum()


def costs(groups: int, **settings: int) -> dict[str, OpCost]:
    with Counter() as tallied:
        convolution(groups, **settings).backward()  # type: ignore[no-untyped-call]
    return {cost.name: cost for cost in tallied.tally.costs() if "convolution" in cost.name}


@pytest.mark.parametrize("stride", [1, 2])
def test_dense_convolutions_cost_what_torch_counts(stride: int) -> None:
    found = costs(1, stride=stride)
    counter = FlopCounterMode(display=False)
    with counter:
        convolution(1, stride=stride).backward()  # type: ignore[no-untyped-call]
    assert set(found) == {"convolution", "convolution_backward"}
    assert sum(cost.flops for cost in found.values()) == counter.get_total_flops()
    assert {cost.kind for cost in found.values()} == {"conv"}


def test_every_channel_alone_costs_as_much_backward_as_forward_for_input_and_weight_each() -> None:
    found = costs(8)
    assert {name: cost.kind for name, cost in found.items()} == {
        "depthwise_convolution": "depthwise",
        "depthwise_convolution_backward": "depthwise",
    }
    assert found["depthwise_convolution"].flops == 2 * 2 * 8 * 6 * 6 * 9, (
        "two per multiply-add, batch, channels, places, kernel"
    )
    assert found["depthwise_convolution_backward"].flops == 2 * found["depthwise_convolution"].flops


@pytest.mark.parametrize("groups", [2, 4])
def test_narrow_groups_are_a_kind_of_their_own_with_the_flops_of_their_groups(groups: int) -> None:
    """Catches FLOPs of a dense convolution, and the efficiency of one."""
    found = costs(groups)
    assert {name: cost.kind for name, cost in found.items()} == {
        "grouped_convolution": "grouped",
        "grouped_convolution_backward": "grouped",
    }
    assert found["grouped_convolution"].flops == 2 * 2 * 8 * 6 * 6 * 9 * 8 // groups
    assert found["grouped_convolution_backward"].flops == 2 * found["grouped_convolution"].flops


def test_wide_groups_are_convolutions_like_others() -> None:
    assert {cost.kind for cost in costs(2, channels=128).values()} == {"conv"}
    assert {cost.kind for cost in costs(2, channels=126).values()} == {"grouped"}


def test_several_outputs_of_every_channel_alone_are_depthwise() -> None:
    with Counter() as tallied:
        torch.nn.Conv2d(4, 12, 3, groups=4)(torch.ones(1, 4, 6, 6))
        torch.nn.Conv2d(1, 12, 3)(torch.ones(1, 1, 6, 6))
    names = [cost.name for cost in tallied.tally.costs() if "convolution" in cost.name]
    assert names == ["depthwise_convolution", "convolution"]


def test_a_mixed_convolution_is_its_parts() -> None:
    """Catches kernels of several sizes that are priced as the largest."""
    mixed = MixedConv(8, 8, (3, 5), torch.device("cpu"), depthwise=True)
    with Counter() as tallied:
        mixed(torch.ones(2, 8, 6, 6))
    found = {cost.name: cost for cost in tallied.tally.costs()}
    assert found["depthwise_convolution"].flops == 2 * 2 * 6 * 6 * (4 * 9 + 4 * 25)
    assert found["depthwise_convolution"].count == 2
    assert "convolution" not in found


def test_matrix_products_cost_what_torch_counts() -> None:
    left, right, batch = torch.ones(3, 5), torch.ones(5, 7), torch.ones(2, 3, 5)
    with Counter() as tallied, FlopCounterMode(display=False) as counter:
        total = torch.addmm(left @ right, left, right)
        torch.baddbmm(torch.bmm(batch, right.expand(2, 5, 7)), batch, right.expand(2, 5, 7))
    found = {cost.name: cost.flops for cost in tallied.tally.costs() if cost.flops}
    assert set(found) == {"mm", "addmm", "bmm", "baddbmm"}
    assert sum(found.values()) == counter.get_total_flops()
    with Counter() as tallied:
        total.addmm_(left, right)
    assert [cost.flops for cost in tallied.tally.costs()] == [found["addmm"]], "torch does not count what works in place"
