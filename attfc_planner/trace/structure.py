"""What of a profile changes the *sequence* of allocations, and what only changes their sizes.

Two profiles of one structure make the same storages in the same order; a storage's size is an exact affine function of a
few knobs. So a few small traces of a structure predict all its sizes: see `attfc_planner.trace.affine`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from attfc_train.profile.profile import (
    AttFCSettings,
    DataSettings,
    FullFCSettings,
    HeadSettings,
    MarginSettings,
    ModelSettings,
    OptimSettings,
    PartialFCSettings,
    RunSettings,
    TrainProfile,
)


@dataclass(frozen=True, slots=True)
class Knobs:
    """The numbers that scale storages."""

    batch: int
    """B: queries in one forward pass (the micro-batch)."""
    slots: int
    """C; 0 without a container."""
    chunk: int
    """K: slots scored at a time, at most C; 0 without a container."""
    identities: int
    """N."""
    references: int = 0
    """R."""


def knobs_of(profile: TrainProfile) -> Knobs:
    """The knobs of a resolved profile."""
    chunk = min(profile.head.chunk_slots, profile.dcc_size) if isinstance(profile.head, AttFCSettings) else 0
    return Knobs(profile.optim.micro_batch_size, profile.dcc_size, chunk, profile.num_ids, profile.num_references)


def with_knobs(profile: TrainProfile, knobs: Knobs) -> TrainProfile:
    """The same structure at other knobs; `chunk` is taken as ``chunk_slots``."""
    head, optim = profile.head, profile.optim
    if isinstance(head, AttFCSettings):
        update = {"dcc_size": knobs.slots, "chunk_slots": knobs.chunk, "num_references": knobs.references}
        head = head.model_copy(update=update)
    optim = optim.model_copy(update={"batch_size": knobs.batch * optim.accumulation})
    return profile.model_copy(update={"head": head, "optim": optim, "data": DataSettings(num_ids=knobs.identities)})


def structure_of(profile: TrainProfile, base: Knobs) -> TrainProfile:
    """The one profile that stands for all profiles that allocate in the same order.

    Everything that cannot matter (names, paths, seeds, rates, lengths) has its default; what can matter is kept. Having no
    references at all is another structure; so is a slot for every identity, where the identity policy keeps no map and N
    follows C.
    """
    head = profile.head
    direct = isinstance(head, AttFCSettings) and head.policy == "identity" and profile.dcc_size >= profile.num_ids
    plain = TrainProfile(
        data=DataSettings(num_ids=base.slots if direct else base.identities),
        model=profile.model,
        head=_head(head),
        optim=_optim(profile.optim),
        run=RunSettings(precision=profile.run.precision, steps=1000),
    )
    return with_knobs(plain, replace(base, identities=plain.num_ids, references=min(1, profile.num_references)))


def head_structure(structure: TrainProfile) -> TrainProfile:
    """The same head on the smallest backbone: how sizes depend on the head's knobs does not depend on the network."""
    model = ModelSettings(backbone="tiny", embedding_size=structure.model.embedding_size, image_size=32)
    return structure.model_copy(update={"model": model})


def is_direct(structure: TrainProfile) -> bool:
    """Whether an identity container has a slot for everyone."""
    head = structure.head
    return isinstance(head, AttFCSettings) and head.policy == "identity" and structure.dcc_size == structure.num_ids


def with_map(direct: TrainProfile, base: Knobs) -> TrainProfile:
    """The structure whose container has fewer slots than identities: it allocates the same and a little more."""
    return with_knobs(direct, replace(knobs_of(direct), identities=base.identities))


def _head(head: HeadSettings) -> HeadSettings:
    margin = MarginSettings(kind=head.margin.kind, gradient=head.margin.gradient)
    if isinstance(head, FullFCSettings):
        return FullFCSettings(margin=margin)
    if isinstance(head, PartialFCSettings):
        return PartialFCSettings(margin=margin, sample_rate=head.sample_rate)
    return AttFCSettings(
        margin=margin,
        policy=head.policy,
        queue_length=head.queue_length if head.queue_mode == "stored" or head.queue_length == 1 else 2,
        queue_mode=head.queue_mode,
        storage=head.storage,
        batch_negatives=head.batch_negatives,
        batchnorm_buffers=head.batchnorm_buffers,
    )


def _optim(optim: OptimSettings) -> OptimSettings:
    return OptimSettings(
        batch_size=2 * optim.accumulation,
        accumulation=optim.accumulation,
        momentum=optim.momentum and 0.9,
        weight_decay=optim.weight_decay and 5e-4,
    )
