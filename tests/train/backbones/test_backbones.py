from __future__ import annotations

import pytest
import torch

from attfc_train.backbones.kinds import BACKBONES, build_backbone
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
