"""The AttFC head in a loop of one's own: a container of class centers, and the loss against it (arXiv 2503.06839).

    container = DynamicClassContainer(num_ids, slots=30_000, embedding_size=512)
    loss, centers = attfc_loss(features, references, labels, container)
    loss.backward()
    optimizer.step()
    container.enqueue(centers, labels, step)

It is the head that `attfc-train` trains with, with the same defaults. What is missing here and what the trainer does beside:
averaged gradients over several processes, resuming, out-of-memory care, and the draw that keeps an identity's images together.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from attfc_train.errors import UsageError
from attfc_train.heads.attfc.head import AttFCHead
from attfc_train.heads.attfc.settings import AttFCSettings
from attfc_train.heads.containers.container import IdentityContainer
from attfc_train.losses.choose import LossKernel, Workload, choose
from attfc_train.losses.container_loss import ContainerLoss
from attfc_train.losses.margin import Margin
from attfc_train.rounding import DTYPES, StorageType

_DEFAULTS = AttFCSettings()


class DynamicClassContainer(IdentityContainer):
    """The class centers of up to `slots` identities: those updated longest ago give way.

    A module with buffers: ``container.to(device)``, ``state_dict`` and checkpoints work as for any other. A loop calls
    ``container.enqueue(centers, labels, step)`` once after each optimiser step.

    Args:
        num_ids: identities, numbered from 0.
        slots: identities that have a center at a time, at most `num_ids`; None: all.
        embedding_size: D.
        queue_length: a center is a running mean of about so many; 1 keeps the newest.
        storage: type of the stored centers: ``fp32``, ``bf16``, ``int8`` or ``fp8``.
        device: of the buffers.

    Raises:
        UsageError: a number is out of its range.
    """

    def __init__(
        self,
        num_ids: int,
        slots: int | None = None,
        embedding_size: int = 512,
        *,
        queue_length: float = _DEFAULTS.queue_length,
        storage: StorageType = "fp32",
        device: torch.device | str | None = None,
    ) -> None:
        slots = num_ids if slots is None else slots
        if not 2 <= slots <= num_ids:
            raise UsageError("slots must be from 2 to num_ids", f"{slots} and {num_ids}", "Leave it out for a slot each.")
        if not queue_length >= 1:
            raise UsageError("queue_length must be at least 1", f"{queue_length:g}", "1 keeps the newest center.")
        if storage not in DTYPES:
            raise UsageError("storage must be a known type", f"'{storage}'", f"Choose one of: {', '.join(DTYPES)}.")
        where = None if device is None else torch.device(device)
        super().__init__(num_ids, slots, embedding_size, queue_length, storage, device=where)
        self.num_ids = num_ids
        self.embedding_size = embedding_size


def attfc_loss(
    features: Tensor,
    references: Tensor | None,
    labels: Tensor,
    container: DynamicClassContainer,
    *,
    margin: Margin | float = 0.5,
    scale: float = _DEFAULTS.margin.scale,
    temperature: float = _DEFAULTS.attention_temperature,
    batch_negatives: bool = _DEFAULTS.batch_negatives,
    kernel: LossKernel = "auto",
) -> tuple[Tensor, Tensor]:
    """Return the mean loss of a batch against the container, and the class centers to enqueue after the optimiser's step.

    Args:
        features: [B, D] embeddings of the queries, not normalised, with gradient.
        references: [R, B, D] or [B, D] embeddings of other images of the same identities by a momentum copy of the network,
            without gradient. None: no class encoder; a query then counts once its identity has a center.
        labels: int64 [B], in [0, `container.num_ids`).
        container: changes only in its `enqueue`.
        margin: of ArcFace, in radians; or any `Margin` that lacks no statistics of former steps.
        scale: s.
        temperature: of the attention over references.
        batch_negatives: the batch's own new centers are negatives too, of identities that have no slot.
        kernel: ``chunked`` runs everywhere; ``triton`` on CUDA; ``auto`` takes the faster one, once.

    Returns:
        The loss, a scalar, and unit vectors [B, D] for ``container.enqueue(centers, labels, step)``.

    Raises:
        UsageError: shapes, types or devices do not belong together.
    """
    stacked = _stacked(features, references, labels, container)
    settings = margin if isinstance(margin, Margin) else Margin("arcface", margin)
    if settings.lacks_statistics:
        rule = "margin must be arcface, cosface or combined, or have its statistics, which the trainer would keep"
        raise UsageError(rule, f"'{settings.kind}'", f"Train with attfc-train --set head.margin.kind={settings.kind}.")
    head = AttFCHead(
        container,
        loss=_chosen(kernel, features.device, _workload(features, container, scale)),
        num_references=len(stacked),
        scale=scale,
        temperature=temperature,
        chunk=_DEFAULTS.chunk_slots,
        batch_negatives=batch_negatives,
    )
    weights = head.begin_step(labels, 0)
    output = head.forward(features, stacked, labels, weights, settings)
    return output.loss, output.centers


def _stacked(features: Tensor, references: Tensor | None, labels: Tensor, container: DynamicClassContainer) -> Tensor:
    """Return the references as [R, B, D], once everything is known to belong together."""
    size = container.embedding_size
    if features.ndim != 2 or features.shape[1] != size or labels.shape != features.shape[:1] or labels.dtype != torch.int64:
        got = f"{list(features.shape)} and {str(labels.dtype).removeprefix('torch.')} {list(labels.shape)}"
        raise UsageError(f"features must be [B, {size}] and labels int64 [B]", got, "Check both.")
    if references is None:
        references = features.new_empty(0, *features.shape)
    references = references[None] if references.ndim == 2 else references
    if references.shape[1:] != features.shape:
        got = f"{list(references.shape)} for features {list(features.shape)}"
        raise UsageError("references must be [R, B, D] or [B, D]", got, "Give the embeddings of as many images.")
    devices = {str(tensor.device) for tensor in (features, references, labels, container.slot_labels)}
    if len(devices) > 1:
        raise UsageError("features, references, labels and container must be on one device", ", ".join(devices), "Use .to().")
    return references


def _workload(features: Tensor, container: DynamicClassContainer, scale: float) -> Workload:
    slots = container.slots
    return Workload(
        batch_size=len(features),
        dcc_size=slots.size,
        embedding_size=container.embedding_size,
        slot_type=slots.values.dtype,
        scaled=slots.scales is not None,
        scale=scale,
        chunk=_DEFAULTS.chunk_slots,
    )


@cache
def _chosen(kernel: LossKernel, device: torch.device, work: Workload) -> ContainerLoss:
    return choose(kernel, device, work)
