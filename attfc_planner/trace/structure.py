"""The structure of a profile: everything that changes the *sequence* of allocations, and not only their sizes.

Two profiles of one structure make the same storages in the same order; a storage's size is an exact affine function of a
few sizes. So a few small traces of a structure predict all its sizes: see `attfc_planner.trace.affine`.

`STRUCTURES` says by kind which settings of a head matter; for a kind that is not there, all do.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from attfc_train.document import StorageName
from attfc_train.heads.attfc.settings import AttFCSettings
from attfc_train.heads.dcq.settings import DCQSettings
from attfc_train.heads.f2c.settings import F2CSettings
from attfc_train.heads.full_fc.settings import FullFCSettings
from attfc_train.heads.learned.settings import LearnedSettings
from attfc_train.heads.partial_fc.settings import PartialFCSettings
from attfc_train.heads.settings import HeadSettings, MarginSettings
from attfc_train.profile.profile import DataSettings, ModelSettings, OptimSettings, RunSettings, TrainProfile
from attfc_train.profile.teacher import FOREIGN, NO_TEACHER, TeacherSettings

_OTHER_CHUNK = 787
"""Slots scored at a time in a second trace: like no other size of a step, so that it cannot be mistaken for one."""
_MORE_IDENTITIES = 502
"""Identities more in another trace, likewise."""

Settings = TypeVar("Settings", bound=HeadSettings)


@dataclass(frozen=True, slots=True)
class Knobs:
    """The numbers that scale storages."""

    batch: int
    """B: queries in one forward pass of a GPU (the micro-batch, or half of a paired one)."""
    slots: int
    """C: the slots, or learned rows, that a GPU scores in a step; 0 where there are none."""
    chunk: int
    """K: slots scored at a time, at most C; 0 where there are none."""
    identities: int
    """N; where several GPUs share the learned rows of all identities, those of one."""
    references: int = 0
    """R; 0 for a head that has none, or always as many."""
    table: int = 0
    """T: the slots of all GPUs together, of which each keeps labels and ages; 0: C are all."""


class HeadStructure(Generic[Settings]):
    """The way in which a kind of head allocates; by default all settings but the margin's numbers may matter."""

    knobs: tuple[str, ...] | None = None
    """The searched knobs of the head that change the sequence of allocations; None: any may."""

    def plain(self, head: Settings) -> Settings:
        """Return the settings with the default for everything that cannot matter."""
        return head.model_copy(update={"margin": _plain_margin(head.margin)})

    scores_all = False
    """Whether every identity has a row that is scored: N follows C."""
    has_container = True
    """Whether the slots are a container's, and not rows of identities."""

    def scored(self, head: Settings, num_ids: int, batch_size: int) -> tuple[int, int]:
        """Return the slots, or learned rows, that a step of so many queries scores, and how many at a time."""
        del num_ids, batch_size
        return head.num_slots, self.chunk(head)

    def chunk(self, head: Settings) -> int:
        """Return the slots that are scored at a time; 0 without a container."""
        del head
        return 0

    def references(self, head: Settings) -> int:
        """Return R; 0 where it cannot change: then what R scales is taken as scaled by B."""
        return head.references_per_query

    def with_knobs(self, head: Settings, knobs: Knobs) -> Settings:
        """Return the settings with other numbers that scale storages."""
        del knobs
        return head

    def is_direct(self, head: Settings, num_ids: int) -> bool:
        """Return whether a container has a slot for everyone and so keeps no map of identities; N then follows C."""
        del head, num_ids
        return False

    def points(self, head: Settings, base: Knobs) -> Sequence[Knobs]:
        """Return where to trace the head, `base` first, so that everything that scales its storages can be told apart."""
        del head
        return base, replace(base, identities=base.identities + _MORE_IDENTITIES)

    def stand_in(self, head: Settings) -> Settings | None:
        """Return the settings to trace in place of these, whose storage and parts are computed; None: trace these."""
        del head
        return None

    def storage(self, head: Settings) -> StorageName:
        """Return the type of the stored centers, where there is a `stand_in`."""
        del head
        return "fp32"


_CANNOT_MATTER = (
    "dcc_size",
    "dcc_share",
    "num_references",
    "attention_temperature",
    "encoder_momentum",
    "encoder_momentum_images",
    "encoder_momentum_ramp_steps",
    "encoder_momentum_ramp_images",
    "chunk_slots",
    "exported_encoder",
    "loss_kernel",
    "first_scored_share",
    "growing_share",
)
"""Settings of an AttFC head that change no order of allocations, or that `Knobs` stand for; any other one may. What grows is
traced at its last size."""


class _AttFCStructure(HeadStructure[AttFCSettings]):
    """A container; no references at all is another structure, and so is a slot for every identity.

    Of slots that learn each type of storage is one too.
    """

    knobs = ("dcc_share", "num_references", "storage")

    def plain(self, head: AttFCSettings) -> AttFCSettings:
        # A stored queue has a tensor of its length, and an average over 1 is none; all other averages allocate alike.
        length_matters = head.queue_mode == "stored" or head.queue_length == 1
        length = head.queue_length if length_matters else 2
        default = AttFCSettings()
        update = {name: getattr(default, name) for name in _CANNOT_MATTER}
        rate = head.slot_rate and 1.0  # a second pass over the slots, whatever its rate
        margin = _plain_margin(head.margin)
        return head.model_copy(update={**update, "margin": margin, "queue_length": length, "slot_rate": rate})

    def chunk(self, head: AttFCSettings) -> int:
        return min(head.chunk_slots, head.num_slots)

    def with_knobs(self, head: AttFCSettings, knobs: Knobs) -> AttFCSettings:
        update = {"dcc_size": knobs.table or knobs.slots, "chunk_slots": knobs.chunk, "num_references": knobs.references}
        return head.model_copy(update=update)

    def is_direct(self, head: AttFCSettings, num_ids: int) -> bool:
        return head.policy == "identity" and head.num_slots >= num_ids

    def points(self, head: AttFCSettings, base: Knobs) -> Sequence[Knobs]:
        """Return other numbers of slots, other chunks, and other identities where these are not the slots."""
        direct = (base.table or base.slots) == base.identities
        shapes = _slots_and_chunks(base, learns=head.slot_rate > 0)
        points = [replace(point, identities=point.table or point.slots) if direct else point for point in shapes]
        has_map = head.policy == "identity" and not direct  # of identities to slots, as long as there are identities
        return [*points, replace(base, identities=base.identities + _MORE_IDENTITIES)] if has_map else points

    def stand_in(self, head: AttFCSettings) -> AttFCSettings | None:
        if not head.keeps_means:
            return None
        # Slots that learn are rounded in a pass whose scratch depends on their type: each type is traced.
        return head if head.slot_rate else head.model_copy(update={"storage": "fp32"})

    def storage(self, head: AttFCSettings) -> StorageName:
        return "fp32" if head.slot_rate else head.storage


class _DCQStructure(HeadStructure[DCQSettings]):
    """AttFC's ring: its slots are never those of all identities, and there is no map."""

    knobs = ()

    def plain(self, head: DCQSettings) -> DCQSettings:
        return DCQSettings(margin=_plain_margin(head.margin), storage=head.storage, batchnorm_buffers=head.batchnorm_buffers)

    def chunk(self, head: DCQSettings) -> int:
        return min(head.chunk_slots, head.num_slots)

    def references(self, head: DCQSettings) -> int:
        del head
        return 0  # always one

    def with_knobs(self, head: DCQSettings, knobs: Knobs) -> DCQSettings:
        return head.model_copy(update={"dcc_size": knobs.table or knobs.slots, "chunk_slots": knobs.chunk})

    def points(self, head: DCQSettings, base: Knobs) -> Sequence[Knobs]:
        """Return other numbers of slots and other chunks."""
        del head
        return _slots_and_chunks(base)

    def stand_in(self, head: DCQSettings) -> DCQSettings | None:
        return head.model_copy(update={"storage": "fp32"})

    def storage(self, head: DCQSettings) -> StorageName:
        return head.storage


class _F2CStructure(HeadStructure[F2CSettings]):
    """A pool, always with a map of identities. Its parts are computed; its storages are not, because chunks differ."""

    knobs = ("storage",)

    def plain(self, head: F2CSettings) -> F2CSettings:
        return F2CSettings(
            margin=_plain_margin(head.margin),
            storage=head.storage,
            support_vectors=head.support_vectors and 1.2,
            hard_negatives=head.hard_negatives,
            batchnorm_buffers=head.batchnorm_buffers,
        )

    def chunk(self, head: F2CSettings) -> int:
        return min(head.chunk_slots, head.num_slots)

    def with_knobs(self, head: F2CSettings, knobs: Knobs) -> F2CSettings:
        return head.model_copy(update={"dcc_size": knobs.table or knobs.slots, "chunk_slots": knobs.chunk})

    def points(self, head: F2CSettings, base: Knobs) -> Sequence[Knobs]:
        """Return other numbers of slots, other chunks and other identities."""
        del head
        return [*_slots_and_chunks(base), replace(base, identities=base.identities + _MORE_IDENTITIES)]

    def stand_in(self, head: F2CSettings) -> F2CSettings | None:
        return head


Learned = TypeVar("Learned", bound=LearnedSettings)
_FILTERED = 0.5
_MORE_GRIDS = (502, 1500, 2602, 3701)
"""Identities more, so that grids of classes (`attfc_train.heads.partial_fc.class_sample`) have other numbers of rows and of
columns, and other rests."""


class _LearnedStructure(HeadStructure[Learned], ABC):
    """Rows of which some or all are scored; parts of the batch are computed."""

    has_container = False
    knobs: tuple[str, ...] | None = ("storage", "momentum")

    def plain(self, head: Learned) -> Learned:
        kept = head.model_dump(include={"kind", "storage", "momentum"})
        filtered = _FILTERED if head.interclass_filter else 0.0
        return type(head).model_validate({**kept, "interclass_filter": filtered, "margin": _plain_margin(head.margin)})

    def scored(self, head: Learned, num_ids: int, batch_size: int) -> tuple[int, int]:
        num_rows = self.num_rows(head, num_ids, batch_size)
        return num_rows, min(head.chunk_slots, num_rows)

    @abstractmethod
    def num_rows(self, head: Learned, num_ids: int, batch_size: int) -> int:
        """Return the rows that a step of so many queries scores."""

    def with_knobs(self, head: Learned, knobs: Knobs) -> Learned:
        return head.model_copy(update={"chunk_slots": knobs.chunk})

    def stand_in(self, head: Learned) -> Learned:
        return head


class _FullFCStructure(_LearnedStructure[FullFCSettings]):
    scores_all = True

    def num_rows(self, head: FullFCSettings, num_ids: int, batch_size: int) -> int:
        del head, batch_size
        return num_ids

    def points(self, head: FullFCSettings, base: Knobs) -> Sequence[Knobs]:
        """Return other numbers of rows, and other chunks."""
        del head
        return [replace(point, identities=point.slots) for point in _slots_and_chunks(base, learns=True)]


class _PartialFCStructure(_LearnedStructure[PartialFCSettings]):
    """Its draw works on a grid of all classes; the sample's share of the classes is a number that scales."""

    def num_rows(self, head: PartialFCSettings, num_ids: int, batch_size: int) -> int:
        return head.num_sampled(num_ids, batch_size)

    def with_knobs(self, head: PartialFCSettings, knobs: Knobs) -> PartialFCSettings:
        return super().with_knobs(head, knobs).model_copy(update={"sample_rate": knobs.slots / knobs.identities})

    def points(self, head: PartialFCSettings, base: Knobs) -> Sequence[Knobs]:
        """Return other samples, other chunks, and other grids."""
        del head
        grids = [replace(base, identities=base.identities + more) for more in _MORE_GRIDS]
        return [*_slots_and_chunks(base, learns=True), *grids]


STRUCTURES: dict[str, HeadStructure[Any]] = {
    "attfc": _AttFCStructure(),
    "dcq": _DCQStructure(),
    "f2c": _F2CStructure(),
    "full_fc": _FullFCStructure(),
    "partial_fc": _PartialFCStructure(),
}
"""Kind of head -> the way in which it allocates."""
_ANY: HeadStructure[Any] = HeadStructure()


def head_structure_of(head: HeadSettings) -> HeadStructure[Any]:
    """Return the way in which a head allocates; for a kind that is not in `STRUCTURES` everything matters."""
    return STRUCTURES.get(head.kind, _ANY)


def knobs_of(profile: TrainProfile) -> Knobs:
    """Return the knobs of a resolved profile."""
    structure = head_structure_of(profile.head)
    gpus = profile.run.gpus
    identities = profile.num_ids if structure.has_container else most_rows(profile.num_ids, gpus)
    slots, chunk = structure.scored(profile.head, identities, profile.optim.batch_size)
    table = slots if gpus > 1 and structure.has_container else 0
    slots = most_rows(slots, gpus) if table else slots
    references = structure.references(profile.head)
    batch = profile.gpu_batch_size // profile.num_passes
    return Knobs(batch, slots, min(chunk, slots), identities, references, table)


def most_rows(total: int, gpus: int) -> int:
    """Return the rows of a table that one of several GPUs holds at most (`attfc_train.ranks.shard`)."""
    return -(-total // gpus)


def with_knobs(profile: TrainProfile, knobs: Knobs) -> TrainProfile:
    """Return the same structure at other knobs; `chunk` is taken as ``chunk_slots``."""
    structure = head_structure_of(profile.head)
    gpus = profile.run.gpus
    identities = knobs.identities if structure.has_container else gpus * knobs.identities
    head = structure.with_knobs(profile.head, knobs)
    optim = profile.optim.model_copy(update={"batch_size": knobs.batch * profile.num_passes * gpus})
    data = DataSettings(num_ids=identities, augment=profile.data.augment)
    return profile.model_copy(update={"head": head, "optim": optim, "data": data})


def structure_of(profile: TrainProfile, base: Knobs) -> TrainProfile:
    """Return the profile that stands for all profiles that allocate in the same order.

    Everything that cannot matter (names, paths, seeds, rates, lengths) has its default; what can matter is kept. Having no
    references at all is another structure; so is a slot for every identity, where the identity policy keeps no map and N
    follows C.
    """
    structure = head_structure_of(profile.head)
    direct = structure.scores_all or structure.is_direct(profile.head, profile.num_ids)
    base = _base_of(structure, base, profile.run.gpus)
    num_ids = (base.table or base.slots) if direct else base.identities
    plain = TrainProfile(
        data=DataSettings(num_ids=num_ids, augment=profile.data.augment.in_full()),
        model=profile.model,
        head=structure.plain(profile.head),
        optim=_optim(profile.optim),
        run=RunSettings(precision=profile.run.precision, steps=1000, gpus=profile.run.gpus),
        teacher=_plain_teacher(profile.teacher),
    )
    return with_knobs(plain, replace(base, identities=plain.num_ids, references=min(1, structure.references(profile.head))))


def _base_of(structure: HeadStructure[Any], base: Knobs, gpus: int) -> Knobs:
    """Return the knobs at which several GPUs are traced: as many slots on each, and more identities than slots at any point."""
    if gpus == 1 or not structure.has_container:
        return base
    return replace(base, table=gpus * base.slots, identities=base.identities + (gpus - 1) * 3 * _OTHER_CHUNK)


def head_structure(structure: TrainProfile) -> TrainProfile:
    """Return the same head on the smallest backbone: the network does not change how sizes depend on the head's knobs."""
    model = ModelSettings(backbone="tiny", embedding_size=structure.model.embedding_size, image_size=32)
    data = DataSettings(num_ids=structure.num_ids)  # no head sees how images were augmented
    return structure.model_copy(update={"model": model, "data": data, "teacher": NO_TEACHER})


def is_direct(structure: TrainProfile) -> bool:
    """Return whether a container has a slot for everyone."""
    return head_structure_of(structure.head).is_direct(structure.head, structure.num_ids)


def with_map(direct: TrainProfile, base: Knobs) -> TrainProfile:
    """Return the structure of the same head with fewer slots than identities: it allocates the same and a little more."""
    mapped = _base_of(head_structure_of(direct.head), base, direct.run.gpus)
    return with_knobs(direct, replace(knobs_of(direct), identities=mapped.identities))


def _slots_and_chunks(base: Knobs, learns: bool = False) -> list[Knobs]:
    """Return `base` first, then more slots, and other chunks.

    Args:
        learns: whether a second pass goes over the slots. Its scratch tells a chunk's size from the number of chunks.
    """
    shapes = [(base.slots, base.chunk), (3 * base.chunk, base.chunk), (2 * _OTHER_CHUNK, _OTHER_CHUNK)]
    if learns:
        shapes.append((3 * _OTHER_CHUNK, _OTHER_CHUNK))
    gpus = base.table // base.slots
    points = [replace(base, slots=slots, chunk=chunk, table=gpus * slots) for slots, chunk in shapes]
    # ceil((K C - (K - 1)) / K) = C: as many slots on each GPU of a shorter table, which tells T from C.
    return [*points, replace(base, table=base.table - (gpus - 1))] if gpus > 1 else points


def _plain_margin(margin: MarginSettings) -> MarginSettings:
    return MarginSettings(kind=margin.kind, gradient=margin.gradient)


def _plain_teacher(teacher: TeacherSettings) -> TeacherSettings:
    if teacher.backbone == FOREIGN:  # its file is its architecture
        return TeacherSettings.model_validate(teacher.model_dump(exclude={"weight"}))
    return TeacherSettings(backbone=teacher.backbone, image_size=teacher.image_size)


def _optim(optim: OptimSettings) -> OptimSettings:
    return OptimSettings(
        batch_size=4 * optim.accumulation,
        accumulation=optim.accumulation,
        momentum=optim.momentum and 0.9,
        weight_decay=optim.weight_decay and 5e-4,
    )
