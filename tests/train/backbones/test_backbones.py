from __future__ import annotations

import pytest
import torch

from attfc_train.backbones.kinds import BACKBONES, build_backbone
from attfc_train.backbones.layout import laid_out
from attfc_train.errors import ProfileError


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ProfileError, match=r"'r51'.*r18, r34, r50, r100, r200, mbf, vargfacenet, .*, tiny") as caught:
        build_backbone("r51", embedding_size=8, image_size=32, gradient_checkpointing=False, device=torch.device("cpu"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", BACKBONES)
def test_everything_is_created_on_the_device(name: str) -> None:
    encoder = build_backbone(name, embedding_size=8, image_size=32, gradient_checkpointing=True, device=torch.device("meta"))
    assert {value.device.type for value in encoder.state_dict().values()} == {"meta"}
    assert encoder.training


@pytest.mark.parametrize(("device", "strides"), [("cpu", (3072, 1, 96, 3)), ("meta", (3072, 1024, 32, 1))])
def test_images_are_laid_out_for_the_device(device: str, strides: tuple[int, ...]) -> None:
    # Catches channels last on every device: on GPUs neither its time nor its kernels' memory was measured.
    images = laid_out(torch.empty(2, 3, 32, 32, device=device))
    assert images.stride() == strides


@pytest.mark.parametrize("name", ["r18", "mbf", "tiny"])
def test_the_order_in_memory_lasts_to_the_last_convolution(name: str) -> None:
    # Catches a layer that brings the old order back, after which every convolution copies.
    encoder = build_backbone(name, embedding_size=8, image_size=64, gradient_checkpointing=False, device=torch.device("cpu"))
    outputs: list[torch.Tensor] = []
    for layer in encoder.modules():
        if isinstance(layer, torch.nn.Conv2d):
            layer.register_forward_hook(lambda _layer, _inputs, output: outputs.append(output))
    encoder(torch.rand(2, 3, 64, 64))
    assert [tuple(each.shape) for each in outputs if not each.is_contiguous(memory_format=torch.channels_last)] == []
