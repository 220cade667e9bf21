"""VarGFaceNet against values that the released MXNet network computed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from attfc_train.backbones.kinds import BatchNormVariance, build_backbone
from tests.contracts.backbone_contract import BackboneContract, parameters_and_macs
from tests.train.backbones.released import Released

RECORDED = {"vargfacenet": "vargfacenet_se", "vargfacenet_nose": "vargfacenet_nose"}


class TestVarGFaceNet(BackboneContract):
    name = "vargfacenet"


class TestWithoutSqueezeExcite(BackboneContract):
    name = "vargfacenet_nose"


def released(golden: Path, name: str, variance: BatchNormVariance) -> Released:
    cpu = torch.device("cpu")
    encoder = build_backbone(
        name, embedding_size=512, image_size=112, gradient_checkpointing=False, device=cpu, batchnorm_variance=variance
    )
    return Released(golden / "family" / f"{RECORDED[name]}.npz", encoder)


@pytest.mark.parametrize(
    ("name", "parameters", "macs"),
    [("vargfacenet", 5_198_292, 512_593_440), ("vargfacenet_nose", 4_957_512, 512_355_840)],
)
def test_size(name: str, parameters: int, macs: int) -> None:
    assert parameters_and_macs(name) == (parameters, macs)


@pytest.mark.parametrize("name", RECORDED)
def test_released_network(name: str, golden: Path) -> None:
    """Catches torch's epsilon, pixels / 127.5, a frozen last scale, and blocks in another order."""
    network = released(golden, name, "biased")
    network.check_eval()
    # MXNet has another gradient for slopes of PReLU where the map is 1 x 1, at any tolerance; torch's is the derivative.
    network.check_train(1 / 127.5, apart=("attention.activation.weight", "pointwise.2.weight"))
    mean, variance = network.statistics_error()
    assert mean <= 3e-6
    assert variance <= 3e-6
    assert network.encoder.get_parameter("features.weight").requires_grad


def test_torchs_running_variance_is_larger_by_a_third_with_four_images(golden: Path) -> None:
    """Catches a switch that does nothing."""
    network = released(golden, "vargfacenet", "unbiased")
    network.check_train(1 / 127.5, apart=("attention.activation.weight", "pointwise.2.weight"))
    running = network.encoder.get_buffer("features.running_var")
    before = network.drawn_weights["fc1_moving_var"] * 0.9
    theirs = torch.from_numpy(network.record["running_var_after"])
    torch.testing.assert_close(running - before, (theirs - before) * 4 / 3, rtol=1e-3, atol=1e-4)


def test_groups_have_eight_channels_whatever_the_width() -> None:
    """Catches groups of another size, of which MACs and parameters alone do not tell which stage has them."""
    encoder = build_backbone(
        "vargfacenet", embedding_size=64, image_size=64, gradient_checkpointing=False, device=torch.device("meta")
    )
    grouped = [m for m in encoder.modules() if isinstance(m, torch.nn.Conv2d) and m.groups > 1]
    assert {conv.in_channels // conv.groups for conv in grouped} == {8}
    assert len(grouped) == 3 + 3 * 4 + 2 * (2 + 6 + 3) + 1
