"""The constructor of a run's state: here the profile is flattened into plain parameters, nowhere else."""

from __future__ import annotations

import torch
from torch import nn

from attfc_train.augment.augmenter import Augmenter
from attfc_train.backbones.kinds import build_encoder
from attfc_train.device_hash import STEP_STRIDE, mixed_key
from attfc_train.heads.kinds import HeadSite, build_head
from attfc_train.optim.class_encoder import MomentumEncoder, make_class_encoder
from attfc_train.optim.precision import LossScaler
from attfc_train.optim.schedule import rate_controller
from attfc_train.optim.sgd import SGD
from attfc_train.phase import phase
from attfc_train.profile.profile import ModelSettings, TrainProfile
from attfc_train.ranks.ranks import ALONE, Ranks
from attfc_train.step.input_buffers import input_buffers
from attfc_train.step.state import TrainState
from attfc_train.step.teacher import Teacher


def build(profile: TrainProfile, device: torch.device, ranks: Ranks = ALONE, teacher: nn.Module | None = None) -> TrainState:
    """Build a fresh state for a resolved profile, initialised from its seed.

    Args:
        ranks: the processes that train together, of which each builds its part of the head.
        teacher: the network of the profile's teacher, which is moved to `device`; None: one of its architecture, untrained.

    Raises:
        ProfileError: the backbone is unknown.
    """
    torch.manual_seed(profile.run.seed)
    with phase("build"):
        feature_encoder = build_encoder(profile.model, device).train()
        if ranks.size > 1:  # encoders are alike on all processes, their parts of the head must not be
            torch.manual_seed(mixed_key(profile.run.seed + ranks.rank * STEP_STRIDE))
        head = build_head(profile.head, _site(profile, ranks), device)
        learned = [*feature_encoder.parameters(), *head.parameters()]
        return TrainState(
            profile=profile,
            device=device,
            ranks=ranks,
            feature_encoder=feature_encoder,
            class_encoder=_build_class_encoder(profile, feature_encoder, device),
            head=head,
            optimizer=SGD(learned, profile.optim.momentum, profile.optim.weight_decay),
            rates=rate_controller(profile),
            scaler=LossScaler(device) if profile.run.precision == "fp16" else None,
            augmenter=_build_augmenter(profile, device),
            first_bad_step=torch.full((), -1, device=device),
            teacher=_build_teacher(profile, teacher, device),
            inputs=input_buffers(device),
        )


def _build_teacher(profile: TrainProfile, trained: nn.Module | None, device: torch.device) -> Teacher | None:
    settings = profile.teacher
    if not settings.is_on:
        return None
    image_size = settings.image_size or profile.model.image_size
    # Last of all, so that the student's random weights are those that it has without a teacher.
    network = _untrained_teacher(profile, image_size, device) if trained is None else trained.to(device)
    return Teacher(network, image_size, settings.weight)


def _untrained_teacher(profile: TrainProfile, image_size: int, device: torch.device) -> nn.Module:
    backbone = profile.teacher.backbone
    assert backbone is not None, "the teacher's file was not opened"
    architecture = ModelSettings(backbone=backbone, embedding_size=profile.model.embedding_size, image_size=image_size)
    return build_encoder(architecture, device)


def _site(profile: TrainProfile, ranks: Ranks) -> HeadSite:
    return HeadSite(
        num_ids=profile.num_ids,
        embedding_size=profile.model.embedding_size,
        batch_size=profile.optim.batch_size,
        micro_batch_size=profile.optim.micro_batch_size,
        seed=profile.run.seed,
        total_steps=profile.total_steps,
        ranks=ranks,
    )


def _build_augmenter(profile: TrainProfile, device: torch.device) -> Augmenter | None:
    augment = profile.data.augment
    if not augment.probabilities:
        return None
    return Augmenter(augment.probabilities, profile.model.image_size, profile.run.seed, device, augment.references)


def _build_class_encoder(profile: TrainProfile, feature_encoder: nn.Module, device: torch.device) -> MomentumEncoder | None:
    settings = profile.head.class_encoder
    if settings is None:
        return None
    class_encoder = make_class_encoder(lambda: build_encoder(profile.model, device), feature_encoder)
    return MomentumEncoder(class_encoder, feature_encoder, settings.buffers)
