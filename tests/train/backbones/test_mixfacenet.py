"""MixFaceNets against values that the released network computed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from attfc_train.backbones.kinds import build_backbone
from attfc_train.backbones.mixfacenet import MixUnit, Unit
from tests.contracts.backbone_contract import BackboneContract, parameters_and_macs
from tests.train.backbones.released import Released

CPU = torch.device("cpu")
SIZES = {"s": (3_073_110, 218_141_424), "m": (3_953_046, 303_388_992), "xs": (1_040_866, 76_561_120)}
NAMES = [f"{kind}_{size}" for kind in ("mixfacenet", "shufflemixfacenet") for size in SIZES]


class TestMixFaceNet(BackboneContract):
    name = "mixfacenet_xs"


class TestShuffleMixFaceNet(BackboneContract):
    name = "shufflemixfacenet_xs"


@pytest.mark.parametrize("name", NAMES)
def test_size(name: str) -> None:
    assert parameters_and_macs(name) == SIZES[name.rpartition("_")[2]]


@pytest.mark.parametrize("name", NAMES)
def test_released_network(name: str, golden: Path) -> None:
    """Catches halves that are interleaved in place of sorted, a first unit that does not shuffle, and Swish in the tail."""
    encoder = build_backbone(name, embedding_size=512, image_size=112, gradient_checkpointing=False, device=CPU)
    network = Released(golden / "family" / f"{name}.npz", encoder)
    network.check_eval()
    network.check_train(1.0)
    mean, variance = network.statistics_error()
    assert mean <= 1e-6
    assert variance <= 1e-5


def test_a_unit_sorts_even_channels_from_odd_ones() -> None:
    plain, shuffled = (MixUnit(6, Unit(6, (1, 1, 1), 1), lambda _: nn.Identity(), shuffle, CPU) for shuffle in (False, True))
    shuffled.load_state_dict(plain.state_dict())
    images = torch.randn(2, 6, 4, 4)
    assert torch.equal(shuffled.eval()(images), plain.eval()(images)[:, [0, 2, 4, 1, 3, 5]])


def test_parts_of_the_channels_have_kernels_of_their_own() -> None:
    """Catches a remainder that goes to another part than the first."""
    unit = MixUnit(10, Unit(10, (1, 4, 1), 1), lambda _: nn.Identity(), False, CPU)
    depthwise = [m for m in unit.modules() if isinstance(m, nn.Conv2d) and m.groups > 1]
    assert [(conv.in_channels, conv.kernel_size[0]) for conv in depthwise] == [(4, 3), (2, 5), (2, 7), (2, 9)]


def test_a_file_of_parameters_tells_shuffling_networks_from_others() -> None:
    """Catches a model.pt that is opened as the other network, which has the same shapes."""
    plain, shuffled = (
        build_backbone(name, embedding_size=8, image_size=32, gradient_checkpointing=False, device=torch.device("meta"))
        for name in ("mixfacenet_s", "shufflemixfacenet_s")
    )
    first, second = plain.state_dict(), shuffled.state_dict()
    assert [value.shape for value in first.values()] == [value.shape for value in second.values()]
    assert set(first) != set(second)
