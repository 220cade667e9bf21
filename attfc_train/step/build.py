"""The only constructor of a run's state: here the profile is flattened into plain parameters, nowhere else."""

from __future__ import annotations

import torch
from torch import nn

from attfc_train.backbones.kinds import build_backbone
from attfc_train.heads.attfc.head import AttFCHead
from attfc_train.heads.containers.container import DynamicClassContainer, FifoContainer, IdentityContainer
from attfc_train.heads.containers.slot_storage import DTYPES, LARGEST
from attfc_train.heads.containers.stored_queue import StoredQueueContainer
from attfc_train.heads.full_fc.head import FullFCHead
from attfc_train.heads.head import Head
from attfc_train.heads.partial_fc.head import PartialFCHead
from attfc_train.losses.choose import Workload, choose
from attfc_train.optim.class_encoder import MomentumEncoder, make_class_encoder
from attfc_train.optim.precision import LossScaler
from attfc_train.optim.sgd import SGD
from attfc_train.phase import phase
from attfc_train.profile.profile import AttFCSettings, FullFCSettings, PartialFCSettings, TrainProfile
from attfc_train.step.state import TrainState


def build(profile: TrainProfile, device: torch.device) -> TrainState:
    """A fresh state for a resolved profile, initialised from its seed.

    Raises:
        ProfileError: the backbone is unknown.
    """
    torch.manual_seed(profile.run.seed)
    with phase("build"):
        feature_encoder = _build_encoder(profile, device).train()
        head = _build_head(profile, device)
        learned = [*feature_encoder.parameters(), *head.parameters()]
        rows = [head.rows] if isinstance(head, PartialFCHead) else []
        return TrainState(
            profile=profile,
            device=device,
            feature_encoder=feature_encoder,
            class_encoder=_build_class_encoder(profile, feature_encoder, device),
            head=head,
            optimizer=SGD(learned, profile.optim.momentum, profile.optim.weight_decay, rows),
            scaler=LossScaler(device) if profile.run.precision == "fp16" else None,
            first_bad_step=torch.full((), -1, device=device),
        )


def _build_encoder(profile: TrainProfile, device: torch.device) -> nn.Module:
    model = profile.model
    return build_backbone(
        model.backbone,
        embedding_size=model.embedding_size,
        image_size=model.image_size,
        gradient_checkpointing=model.gradient_checkpointing,
        device=device,
    )


def _build_class_encoder(profile: TrainProfile, feature_encoder: nn.Module, device: torch.device) -> MomentumEncoder | None:
    if not isinstance(profile.head, AttFCSettings) or profile.head.num_references == 0:
        return None
    class_encoder = make_class_encoder(lambda: _build_encoder(profile, device), feature_encoder)
    return MomentumEncoder(class_encoder, feature_encoder, profile.head.batchnorm_buffers)


def _build_head(profile: TrainProfile, device: torch.device) -> Head:
    if isinstance(profile.head, FullFCSettings):
        return _build_full_fc(profile.head, profile.num_ids, profile.model.embedding_size, device)
    if isinstance(profile.head, PartialFCSettings):
        return _build_partial_fc(profile.head, profile.num_ids, profile.model.embedding_size, profile.run.seed, device)
    return _build_attfc(profile, profile.head, device)


def _build_full_fc(head: FullFCSettings, num_ids: int, embedding_size: int, device: torch.device) -> FullFCHead:
    return FullFCHead(
        num_ids,
        embedding_size,
        scale=head.margin.scale,
        device=device,
    )


def _build_partial_fc(
    head: PartialFCSettings, num_ids: int, embedding_size: int, seed: int, device: torch.device
) -> PartialFCHead:
    return PartialFCHead(
        num_ids,
        embedding_size,
        sample_rate=head.sample_rate,
        seed=seed,
        scale=head.margin.scale,
        device=device,
    )


def _build_attfc(profile: TrainProfile, head: AttFCSettings, device: torch.device) -> AttFCHead:
    dim, slot_type = profile.model.embedding_size, DTYPES[head.storage]
    work = Workload(
        batch_size=profile.optim.micro_batch_size,
        dcc_size=profile.dcc_size,
        embedding_size=dim,
        slot_type=slot_type,
        scaled=slot_type in LARGEST,
        scale=head.margin.scale,
        chunk=head.chunk_slots,
    )
    return AttFCHead(
        loss=choose(head.loss_kernel, device, work),  # before the container is there: measuring needs memory
        container=_build_container(head, profile.num_ids, profile.dcc_size, dim, device),
        num_references=head.num_references,
        scale=head.margin.scale,
        temperature=head.attention_temperature,
        chunk=head.chunk_slots,
        batch_negatives=head.batch_negatives,
    )


def _build_container(
    head: AttFCSettings, num_ids: int, dcc_size: int, embedding_size: int, device: torch.device
) -> DynamicClassContainer:
    if head.policy == "fifo":
        return FifoContainer(dcc_size, embedding_size, head.storage, device=device)
    if head.queue_mode == "averaged":
        return IdentityContainer(num_ids, dcc_size, embedding_size, head.queue_length, head.storage, device=device)
    length, temperature = int(head.queue_length), head.attention_temperature
    return StoredQueueContainer(num_ids, dcc_size, embedding_size, length, temperature, head.storage, device=device)
