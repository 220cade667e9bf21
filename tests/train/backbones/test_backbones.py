from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from attfc_train.backbones.kinds import BACKBONES, build_backbone
from attfc_train.errors import ProfileError


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ProfileError, match=r"'r51'.*r18, r34, r50, r100, r200, mbf, vargfacenet, .*, tiny") as caught:
        build_backbone("r51", embedding_size=8, image_size=32, gradient_checkpointing=False, device=torch.device("cpu"))
    assert "\n" not in str(caught.value)


WIDE = {
    "r18": {"conv1", "layer1.0", "layer1.1", "layer2.0"},
    "mbf": {"layers.0", "layers.1", "layers.2"},
    "vargfacenet": {"stem", "blocks.0", "blocks.1"},
    "mixfacenet_s": {"stem", "units.0", "units.1", "units.2", "units.3"},
    "tiny": {"stages.0", "stages.1"},
}
"""Kind of network -> its blocks whose input is at least 56 of 112 pixels wide: up to the one that leads to 28."""


@pytest.mark.parametrize("name", WIDE)
def test_wide_maps_are_those_of_the_stem_the_first_stage_and_the_way_out_of_it(name: str) -> None:
    """Each convolution inside is run twice, and no other: catches a block that is not asked, and a bound that is off by one."""
    runs: Counter[str] = Counter()
    with FakeTensorMode(allow_fallback_kernels=False):
        cpu = torch.device("cpu")
        encoder = build_backbone(name, embedding_size=8, image_size=112, gradient_checkpointing="wide", device=cpu)
        for module_name, module in encoder.named_modules():
            if isinstance(module, nn.Conv2d):
                module.register_forward_hook(lambda *_, module_name=module_name: runs.update([module_name]))
        encoder(torch.zeros(2, 3, 112, 112)).sum().backward()
    assert runs
    for module_name, times in runs.items():
        is_wide = any(f"{module_name}.".startswith(f"{block}.") for block in WIDE[name])
        assert times == 1 + is_wide, module_name


@pytest.mark.parametrize("name", BACKBONES)
def test_everything_is_created_on_the_device(name: str) -> None:
    encoder = build_backbone(name, embedding_size=8, image_size=32, gradient_checkpointing=True, device=torch.device("meta"))
    assert {value.device.type for value in encoder.state_dict().values()} == {"meta"}
    assert encoder.training
