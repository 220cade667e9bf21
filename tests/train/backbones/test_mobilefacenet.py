from __future__ import annotations

import pytest
import torch

from attfc_train.backbones.kinds import build_backbone
from tests.contracts.backbone_contract import BackboneContract, millions_and_giga_macs


class TestMobileFaceNet(BackboneContract):
    name = "mbf"


def test_size_and_names_are_insightfaces() -> None:
    meta = torch.device("meta")
    encoder = build_backbone("mbf", embedding_size=512, image_size=112, gradient_checkpointing=False, device=meta)
    assert millions_and_giga_macs("mbf") == pytest.approx((2.060, 0.438), abs=5.01e-4)
    shapes = {name: tuple(value.shape) for name, value in encoder.named_parameters()}
    some = {
        "layers.0.layers.0.weight": (128, 3, 3, 3),
        "layers.1.layers.0.weight": (128, 2, 3, 3),
        "layers.1.layers.2.weight": (128,),
        "layers.2.layers.1.layers.0.weight": (128, 1, 3, 3),
        "layers.3.layers.3.layers.2.layers.1.bias": (128,),
        "layers.6.layers.0.layers.0.weight": (512, 256, 1, 1),
        "layers.7.layers.1.layers.0.layers.0.weight": (256, 256, 1, 1),
        "conv_sep.layers.0.weight": (512, 256, 1, 1),
        "features.layers.0.layers.0.weight": (512, 1, 7, 7),
        "features.layers.2.weight": (512, 512),
        "features.layers.3.weight": (512,),
    }
    assert some.items() <= shapes.items()
