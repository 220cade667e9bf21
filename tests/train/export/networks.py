"""Small encoders whose running statistics and scales are not those of a fresh network."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from attfc_train.backbones.kinds import build_encoder
from attfc_train.export.model_file import Encoder
from attfc_train.profile.profile import ModelSettings

CPU = torch.device("cpu")
TINY = ModelSettings(backbone="tiny", image_size=32, embedding_size=16)


def trained(settings: ModelSettings, images: Tensor | None = None) -> nn.Module:
    """A network whose every layer scales and shifts, normalised for `images`, by default noise.

    Of a fresh network, and with statistics of a few steps, all embeddings are nearly one, and any two networks look alike.
    """
    images = noise(settings.image_size) if images is None else images
    torch.manual_seed(0)
    network = build_encoder(settings, CPU).train()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.ndim == 1 and not name.startswith("features"):
                parameter.add_(0.1 * torch.randn_like(parameter))
        norms = [each for each in network.modules() if isinstance(each, nn.BatchNorm1d | nn.BatchNorm2d)]
        for norm in norms:
            norm.momentum = 1.0  # the statistics of this batch alone
        network(images)
        network.eval()
        one, other = network(images[:2])
        assert torch.cosine_similarity(one, other, dim=0) < 0.9, "a comparison could not fail"
    return network


def opened(settings: ModelSettings, images: Tensor | None = None) -> Encoder:
    return Encoder(trained(settings, images), settings.image_size, settings.embedding_size, CPU, Path("model.pt"), settings)


def noise(size: int, num: int = 32) -> Tensor:
    return torch.rand(num, 3, size, size, generator=torch.Generator().manual_seed(1)) * 2 - 1


def needs(*packages: str) -> None:
    """Skip, with a reason that is counted, where an optional package is missing."""
    for package in packages:
        pytest.importorskip(package, reason=f"needs the package {package} (extras 'export' and 'interop')")
