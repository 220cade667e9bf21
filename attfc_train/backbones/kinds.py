"""The feature encoders by name: a new one is its file and a line here.

Free of torch: the module that holds a backbone is loaded when one is built.
"""

from __future__ import annotations

from collections.abc import Mapping
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, TypeAlias

from attfc_train.errors import ProfileError

if TYPE_CHECKING:
    import torch
    from torch import nn


class Builder(Protocol):
    """What makes a backbone, such as its class.

    It takes plain numbers, creates its parameters on the given device, also under FakeTensorMode, and makes a module that maps
    float32 [B, 3, H, W] in [-1, 1] to un-normalised float32 embeddings [B, D]. The forward pass needs nothing of the host.
    Autocast is the caller's; the last layers stay in float32.
    """

    def __call__(
        self, *, embedding_size: int, image_size: int, recomputed_from: int | None, device: torch.device, **options: Any
    ) -> nn.Module:
        """Return a freshly initialised backbone in train mode; see `build_backbone`."""
        ...


class BackboneKind(NamedTuple):
    """One kind of backbone."""

    builder: str
    """Where its `Builder` is: ``module:name``."""
    options: Mapping[str, Any] = {}
    """What it takes beyond the arguments of every builder."""


def _iresnet(*blocks: int) -> BackboneKind:
    return BackboneKind("attfc_train.backbones.iresnet:IResNet", {"blocks": blocks})


def _mixfacenet(variant: str, *, shuffle: bool) -> BackboneKind:
    return BackboneKind("attfc_train.backbones.mixfacenet:MixFaceNet", {"variant": variant, "shuffle": shuffle})


BACKBONES: dict[str, BackboneKind] = {
    "r18": _iresnet(2, 2, 2, 2),
    "r34": _iresnet(3, 4, 6, 3),
    "r50": _iresnet(3, 4, 14, 3),
    "r100": _iresnet(3, 13, 30, 3),
    "r200": _iresnet(6, 26, 60, 6),
    "mbf": BackboneKind("attfc_train.backbones.mobilefacenet:MobileFaceNet"),
    "vargfacenet": BackboneKind("attfc_train.backbones.vargfacenet:VarGFaceNet"),
    "vargfacenet_nose": BackboneKind("attfc_train.backbones.vargfacenet:VarGFaceNet", {"squeeze_excite": False}),
    "mixfacenet_s": _mixfacenet("s", shuffle=False),
    "mixfacenet_m": _mixfacenet("m", shuffle=False),
    "mixfacenet_xs": _mixfacenet("xs", shuffle=False),
    "shufflemixfacenet_s": _mixfacenet("s", shuffle=True),
    "shufflemixfacenet_m": _mixfacenet("m", shuffle=True),
    "shufflemixfacenet_xs": _mixfacenet("xs", shuffle=True),
    "tiny": BackboneKind("attfc_train.backbones.tiny:Tiny"),
}
"""``r18`` ... ``r200``: InsightFace's IResNets; ``mbf``: its MobileFaceNet; ``vargfacenet``: as published, ``_nose``: without
squeeze-and-excitation; ``mixfacenet_``, ``shufflemixfacenet_``: as published; ``tiny``: for CPUs at 64x64."""

BatchNormVariance: TypeAlias = Literal["unbiased", "biased"]
"""What BatchNorm's running variance collects (`attfc_train.backbones.batch_norm`)."""

Checkpointing: TypeAlias = Literal[True, False, "wide"]
"""Which blocks are computed again in the backward pass instead of kept: all, none, or those whose input is at least half
as wide as the image (`attfc_train.backbones.checkpointing`)."""


class EncoderSettings(Protocol):
    """The settings that decide what a feature encoder is, as a profile's ``model`` has them."""

    @property
    def backbone(self) -> str:
        """A key of `BACKBONES`."""
        ...

    @property
    def embedding_size(self) -> int:
        """D."""
        ...

    @property
    def image_size(self) -> int:
        """H = W in pixels."""
        ...

    @property
    def gradient_checkpointing(self) -> Checkpointing:
        """Which activations are computed again in the backward pass; makes no difference without one."""
        ...

    @property
    def batchnorm_variance(self) -> BatchNormVariance:
        """What BatchNorm's running variance collects."""
        ...

    @property
    def channels_last(self) -> bool:
        """Whether images and filters lie in memory with their channels side by side."""
        ...


def build_encoder(model: EncoderSettings, device: torch.device) -> nn.Module:
    """Return the freshly initialised encoder of a profile's ``model``; see `build_backbone`."""
    encoder = build_backbone(
        model.backbone,
        embedding_size=model.embedding_size,
        image_size=model.image_size,
        gradient_checkpointing=model.gradient_checkpointing,
        device=device,
        batchnorm_variance=model.batchnorm_variance,
    )
    if model.channels_last:
        from attfc_train.backbones.channels_last import lay_channels_last

        lay_channels_last(encoder)
    return encoder


def _narrowest_recomputed(checkpointing: Checkpointing, image_size: int) -> int | None:
    """Return the width in pixels from which on a block's input has it recomputed; None: no block is.

    ``wide`` takes in the stem, the first stage and the block that leads out of it.
    """
    widths: dict[Checkpointing, int | None] = {False: None, True: 0, "wide": image_size // 2}
    return widths[checkpointing]


def build_backbone(
    name: str,
    *,
    embedding_size: int,
    image_size: int,
    gradient_checkpointing: Checkpointing,
    device: torch.device,
    batchnorm_variance: BatchNormVariance = "unbiased",
) -> nn.Module:
    """Return a freshly initialised backbone in train mode.

    Args:
        name: a key of `BACKBONES`.
        embedding_size: D, the length of an embedding.
        image_size: H = W in pixels, a multiple of 16.
        gradient_checkpointing: trade a second forward pass, of all blocks or the wide ones, for their activations; same result.
        device: where parameters and buffers are created.
        batchnorm_variance: ``unbiased`` is torch's running variance, ``biased`` that of MXNet and PaddlePaddle.

    Raises:
        ProfileError: no backbone has this name.
    """
    kind = BACKBONES.get(name)
    if kind is None:
        raise ProfileError("model.backbone must be a known name", f"'{name}'", f"Choose one of: {', '.join(BACKBONES)}.")
    builder: Builder = resolve_name(kind.builder)
    encoder = builder(
        embedding_size=embedding_size,
        image_size=image_size,
        recomputed_from=_narrowest_recomputed(gradient_checkpointing, image_size),
        device=device,
        **kind.options,
    )
    if batchnorm_variance == "biased":
        from attfc_train.backbones.batch_norm import keep_biased_variance

        keep_biased_variance(encoder)
    return encoder
