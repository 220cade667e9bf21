"""IResNets against the figures of InsightFace's own."""

from __future__ import annotations

import pytest
import torch

from attfc_train.backbones.kinds import build_backbone
from tests.contracts.backbone_contract import BackboneContract, millions_and_giga_macs

META = torch.device("meta")


class TestR18(BackboneContract):
    name = "r18"


@pytest.mark.parametrize(
    ("name", "millions", "giga_macs"),
    [
        ("r18", 24.026, 2.610),
        ("r34", 34.139, 4.460),
        ("r50", 43.591, 6.309),
        ("r100", 65.156, 12.090),
        ("r200", 118.834, 23.419),
    ],
)
def test_size(name: str, millions: float, giga_macs: float) -> None:
    assert millions_and_giga_macs(name) == pytest.approx((millions, giga_macs), abs=5.01e-4)


def test_names_are_insightfaces() -> None:
    encoder = build_backbone("r50", embedding_size=512, image_size=112, gradient_checkpointing=False, device=META)
    shapes = {name: tuple(value.shape) for name, value in encoder.state_dict().items()}
    batch_norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    expected = {"conv1.weight", "prelu.weight", "fc.weight", "fc.bias"}
    expected |= {f"{layer}.{value}" for layer in ("bn1", "bn2", "features") for value in batch_norm}
    for stage, blocks in enumerate((3, 4, 14, 3), start=1):
        for block in range(blocks):
            prefix = f"layer{stage}.{block}."
            expected |= {prefix + name for name in ("conv1.weight", "conv2.weight", "prelu.weight")}
            expected |= {f"{prefix}{layer}.{value}" for layer in ("bn1", "bn2", "bn3") for value in batch_norm}
        expected |= {f"layer{stage}.0.downsample.0.weight"} | {f"layer{stage}.0.downsample.1.{value}" for value in batch_norm}
    assert set(shapes) == expected
    assert shapes["fc.weight"] == (512, 512 * 7 * 7)
    assert shapes["layer2.0.downsample.0.weight"] == (128, 64, 1, 1)


def test_initialisation() -> None:
    torch.manual_seed(0)
    cpu = torch.device("cpu")
    encoder = build_backbone("r18", embedding_size=16, image_size=32, gradient_checkpointing=False, device=cpu)
    weight = encoder.get_parameter("layer3.0.conv2.weight")
    assert weight.std().item() == pytest.approx(0.1, rel=0.01)
    features = encoder.get_parameter("features.weight")
    assert not features.requires_grad
    assert features.unique().tolist() == [1.0]
