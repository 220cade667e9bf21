"""The training profile: everything that decides a run, as one closed, frozen JSON document.

The planner writes it (``best.json``), presets are it, the trainer reads it. The schema lives here, on the trainer's side,
so that the trainer runs without the planner and the planner cannot write what the trainer cannot read.
Units: ``_bytes`` and counts are ints, ``_seconds`` floats, angles radians. A rule that joins two fields stands in the
model that sees both.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeAlias, Union

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainSerializer,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from attfc_train.augment.settings import AugmentSettings
from attfc_train.backbones.kinds import BACKBONES, BatchNormVariance, Checkpointing
from attfc_train.document import MOST, MOST_BYTES, Frozen, Precision, Value
from attfc_train.heads.attfc.settings import AttFCSettings
from attfc_train.heads.kinds import HEADS
from attfc_train.heads.pace import WARMUP_SHARE, Pace
from attfc_train.heads.settings import HeadSettings
from attfc_train.profile.prediction import Prediction, Provenance
from attfc_train.profile.search_summary import SearchSummary
from attfc_train.profile.teacher import NO_TEACHER, TeacherSettings
from attfc_train.sources import read_sources, written_sources
from attfc_train.units import Bytes
from attfc_train.urls import without_secrets

SCHEMA_VERSION = 1
Spec: TypeAlias = Annotated[str, AfterValidator(without_secrets)]
"""What names data; a document never holds the password or the token of a URL."""
DataSpec = Annotated[
    Spec | None,
    BeforeValidator(read_sources, json_schema_input_type=str | list[str] | None),
    PlainSerializer(written_sources, return_type=str | list[str] | None),
]
"""Names data sets: one as text, several as a list of texts in a document."""


MAX_WORKERS = 256
"""Decoding threads that can be asked for."""


class DataSettings(Frozen):
    """What is read, and how images are drawn."""

    path: DataSpec = None
    """Data set: RecordIO, a folder per identity, a list, LMDB, tar shards, Parquet, or ``synthetic:IDSxIMAGES[+FIRST]``
    (docs/data.md); ``@FIRST:STOP`` behind it takes a part of the identities. Several are a list."""
    num_ids: int | None = Field(None, ge=2, le=MOST)
    """Identities; None until the data set is opened. A value that contradicts the data set is an error."""
    num_images: int | None = Field(None, ge=2, le=MOST)
    """Images; only used for the length of an epoch before the data set is there."""
    labels_digest: str | None = Field(None, pattern="^[0-9a-f]{32}$")
    """What a run was started with, of all labels and places of images in their order; only a resumed run compares it."""
    draw: Literal["residency", "permutation", "sequential", "reference"] = "residency"
    """``residency``: every image once per epoch, an identity's images while its slot lives; ``permutation``: every image once
    per epoch, in uniform order; ``sequential``: every image once per epoch, the files read in long stretches, for storage that
    hates seeks; in all three, references are other images. ``reference``: i.i.d., as AttFC's code."""
    window_share: float | None = Field(None, gt=0, le=1)
    """``residency``: share of the identities whose images are being drawn at a time, at most as many as there are slots; None
    is 0.3 with a container, and all without one or with DCQ's ring. ``sequential``: share of the images that are mixed at a
    time; None is 65,536 of them."""
    flip_probability: float = Field(0.5, ge=0, le=1)
    augment: AugmentSettings = AugmentSettings()
    """Probability of each augmentation; a document leaves the section out where nothing is switched on."""
    num_workers: int = Field(0, ge=0, le=MAX_WORKERS)
    """Decoding threads; 0 = one per core, at most 16."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where JPEGs are decoded: ``cuda`` needs torchvision with nvJPEG; a document leaves out ``cpu``."""
    prefetch_batches: int = Field(3, ge=1, le=64)
    cache_bytes: Bytes = Field(512 * 1024**2, ge=0, le=MOST_BYTES)
    """Decoded images are kept in memory when the whole set fits into this many bytes."""
    max_corrupt_share: float = Field(0.01, ge=0, le=1)
    """Share of the images drawn in a run that may be unreadable (and are replaced) before the run stops."""

    @model_validator(mode="after")
    def _window_belongs_to_its_orders(self) -> Self:
        if self.draw not in ("residency", "sequential") and self.window_share not in (None, 1):
            raise ValueError(
                f"window_share needs draw 'residency' or 'sequential', but got {self.window_share:g} and draw {self.draw!r}; "
                f"use one of these, or leave it out"
            )
        return self

    @model_serializer(mode="wrap")
    def _without_what_is_off(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # So a run without augmentations has the document, and the checkpoint, that it had before there were any.
        document: dict[str, Any] = dump(self)
        if self.augment == AugmentSettings():
            document.pop("augment", None)
        if self.device == "cpu":
            document.pop("device", None)
        return document


DEFAULT_WINDOW_SHARE = 0.3
"""Share of the identities: narrower than needed where all hold a slot, because it was no worse (docs/heads-compared.md)."""
MAX_DEFAULT_WORKERS = 16
"""Most decoding threads where ``data.num_workers`` is 0."""
NUM_DRAWN_PAIRS = 6000
"""Pairs drawn from a data set given as ``--val``: as many as LFW has."""
BACKBONE_NAMES = tuple(BACKBONES)
"""The values of ``model.backbone``."""


IMAGE_STEP = 16
"""Of what ``model.image_size`` is a multiple: the backbones halve a map four times."""


def _without_defaults(settings: Frozen, document: dict[str, Any], *names: str) -> dict[str, Any]:
    """Return the document without some fields that have their default.

    So a run that uses none of them has the document, and the checkpoint, that it had before they were there.
    """
    defaults = {name for name in names if getattr(settings, name) == type(settings).model_fields[name].default}
    return {name: value for name, value in document.items() if name not in defaults}


class ModelSettings(Frozen):
    """The feature encoder."""

    backbone: str = "r50"
    """One of `BACKBONE_NAMES`."""
    embedding_size: int = Field(512, ge=8, le=4096)
    image_size: int = Field(112, ge=32, le=512, multiple_of=IMAGE_STEP)
    gradient_checkpointing: Checkpointing = False
    """Whether the blocks' activations are computed again in the backward pass instead of kept; ``wide``: only those of blocks
    whose input is at least half as wide as the image. A CNN makes most of its activations there, by few of its operations."""
    batchnorm_variance: BatchNormVariance = "unbiased"
    """Of a batch, as BatchNorm's running variance collects it: torch's, or ``biased`` as MXNet and PaddlePaddle do."""
    channels_last: bool = False
    """Whether images and filters lie in memory with their channels side by side: another order of the same numbers, which most
    convolutions are faster with. A document leaves it out where they do not."""

    @model_serializer(mode="wrap")
    def _without_what_is_off(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return _without_defaults(self, dump(self), "channels_last")


if TYPE_CHECKING:
    AnyHead: TypeAlias = HeadSettings
else:  # which kinds there are is known when `HEADS` is read; to a type checker they are all `HeadSettings`
    AnyHead = Annotated[Union[tuple(kind.settings for kind in HEADS.values())], Field(discriminator="kind")]  # noqa: UP007  # made of a dict


_SCHEDULES_WITH = {
    "polynomial_power": ("polynomial",),
    "milestones": ("step",),
    "step_factor": ("step",),
    "patience_share": ("mhlr", "mhlr_released"),
}
"""Setting -> the schedules that read it."""
MAX_ACCUMULATION = 1024
MAX_BATCH_SIZE = 2**16


class OptimSettings(Frozen):
    """SGD with momentum; one optimiser step sees `batch_size` queries on all devices, in `accumulation` equal parts."""

    batch_size: int = Field(128, ge=2, le=MAX_BATCH_SIZE)
    accumulation: int = Field(1, ge=1, le=MAX_ACCUMULATION)
    learning_rate: float = Field(0.1, gt=0, le=100)
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(5e-4, ge=0, lt=1)
    clip_norm: float = Field(5.0, gt=0)
    """Largest L2 norm of the feature encoder's gradient."""
    schedule: Literal["cosine", "polynomial", "constant", "step", "mhlr", "mhlr_released"] = "cosine"
    """Of the learning rate after the warm-up; the last two halve it where the loss has stopped falling (FastFace)."""
    polynomial_power: float = Field(1.0, gt=0, le=10)
    milestones: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = Field((0.5, 0.75, 0.9), max_length=64)
    """Shares of the steps after the warm-up at which ``step`` lowers the rate."""
    step_factor: float = Field(0.1, gt=0, lt=1)
    """What the rate is multiplied by at each of them."""
    patience_share: float = Field(0.05, ge=0, le=1)
    """Share of the run that the loss may stand still before ``mhlr`` halves the rate."""
    warmup_steps: int | None = Field(None, ge=0, le=MOST)
    """The learning rate grows linearly from 0 over this many steps. None: over `warmup_images`."""
    warmup_images: int = Field(0, ge=0, le=MOST)
    """Queries over which the learning rate grows, at most a tenth of the run."""

    @model_validator(mode="after")
    def _settings_belong_to_their_schedules(self) -> Self:
        for name, kinds in _SCHEDULES_WITH.items():
            value, default = getattr(self, name), type(self).model_fields[name].default
            if value != default and self.schedule not in kinds:
                words = " or ".join(map(repr, kinds))
                raise ValueError(
                    f"{name} needs schedule {words}, but got schedule {self.schedule!r} and {value}; "
                    f"use schedule {words} or leave it at {default}"
                )
        return self

    @model_validator(mode="after")
    def _equal_parts(self) -> Self:
        if self.batch_size % self.accumulation or self.batch_size // self.accumulation < 2:
            raise ValueError(
                f"accumulation must divide batch_size into parts >= 2, but got {self.accumulation} and {self.batch_size}"
            )
        return self

    @property
    def micro_batch_size(self) -> int:
        """Queries in one forward pass."""
        return self.batch_size // self.accumulation

    @property
    def warmup(self) -> int:
        """Steps of the warm-up, of resolved settings."""
        return self.warmup_steps or 0

    def within(self, pace: Pace) -> OptimSettings:
        """Return the settings with a warm-up in steps that ends before the run does."""
        return self.model_copy(update={"warmup_steps": pace.within(self.warmup_steps, WARMUP_SHARE)})

    def paced(self, pace: Pace) -> OptimSettings:
        """Return the settings with the warm-up in steps."""
        steps = pace.steps_for(self.warmup_images, WARMUP_SHARE) if self.warmup_steps is None else self.warmup_steps
        return self.model_copy(update={"warmup_steps": steps, "warmup_images": 0})


MAX_GPUS = 512


class RunSettings(Frozen):
    """Length, precision, seeds and habits of a run."""

    epochs: float = Field(5.0, gt=0)
    steps: int | None = Field(None, ge=1, le=MOST)
    """Optimiser steps; when given, `epochs` is not used."""
    precision: Precision = "bf16"
    seed: int = Field(2048, ge=0, lt=2**63)
    log_every: int = Field(20, ge=1, le=MOST)
    eval_every: int = Field(2000, ge=1, le=MOST)
    save_every: int = Field(1000, ge=1, le=MOST)
    keep_checkpoints: int = Field(2, ge=1, le=1000)
    """Checkpoints that a run keeps: the last one, and those before it."""
    val: tuple[Spec, ...] = ()
    """Verification sets: ``.bin`` files, or a data set spec from which pairs are drawn."""
    gpus: int = Field(1, ge=1, le=MAX_GPUS)
    """GPUs that share a batch, a process each: what was planned for, and in a run what ``torchrun`` started."""
    compile: bool = False
    """Whether the encoders' passes are compiled by torch.compile; a document leaves it out where they are not."""

    @model_serializer(mode="wrap")
    def _without_what_is_off(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return _without_defaults(self, dump(self), "gpus", "compile")

    def with_steps(self, steps: int) -> RunSettings:
        """Return the settings of a run of so many steps."""
        return self.model_copy(update={"steps": steps})


class TrainProfile(Frozen):
    """The whole document. ``schema_version`` must equal `SCHEMA_VERSION`."""

    schema_version: Literal[1] = 1
    name: str = "custom"
    description: str = ""
    data: DataSettings = DataSettings()
    model: ModelSettings = ModelSettings()
    head: AnyHead = AttFCSettings()
    optim: OptimSettings = OptimSettings()
    run: RunSettings = RunSettings()
    teacher: TeacherSettings = NO_TEACHER
    prediction: Prediction | None = None
    provenance: Provenance | None = None
    search: SearchSummary | None = None
    """What the plan was chosen from, and by which rule; it decides nothing."""

    @model_serializer(mode="wrap")
    def _without_a_teacher_that_is_none(self, serialised: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Files, checkpoints and digests of profiles without one are those that they were before there were any.
        document: dict[str, Any] = serialised(self)
        if self.teacher == NO_TEACHER:
            document.pop("teacher", None)
        return document

    @model_validator(mode="after")
    def _warm_up_within_run(self) -> Self:
        if self.run.steps is not None and self.optim.warmup >= self.run.steps:
            raise ValueError(
                f"optim.warmup_steps must be less than the run's steps, but got {self.optim.warmup} and {self.run.steps}"
            )
        return self

    @model_validator(mode="after")
    def _whole_halves(self) -> Self:
        passes = self.num_passes
        if self.head.is_paired and (self.optim.batch_size % passes or self.optim.batch_size // passes < 2):
            raise ValueError(
                f"a batch of head '{self.head.kind}' is two halves in optim.accumulation equal parts of at least 2, "
                f"but got batch_size {self.optim.batch_size} and accumulation {self.optim.accumulation}; "
                f"use a batch_size that {passes} divides"
            )
        return self

    @model_validator(mode="after")
    def _no_stretches_of_pairs(self) -> Self:
        if self.head.is_paired and self.data.draw == "sequential":
            raise ValueError(
                f"head '{self.head.kind}' draws pairs of images from anywhere, but got data.draw 'sequential'; use 'residency'"
            )
        return self

    @model_validator(mode="after")
    def _slots_within_identities(self) -> Self:
        problem = None if self.data.num_ids is None else self.head.problem_with(self.data.num_ids)
        if problem is not None:
            raise ValueError(problem)
        return self

    @model_validator(mode="after")
    def _trainings_are_of_settings(self) -> Self:
        records = self.search.trainings if self.search else ()
        for kind, setting in {(record.head, tuple(record.setting.items())) for record in records}:
            checked_setting(dict(setting), self.head.kind, kind)
        return self

    @property
    def is_planned(self) -> bool:
        """Whether a planner has chosen the numbers: what somebody wrote is taken as it is written."""
        return self.provenance is not None

    @property
    def num_references(self) -> int:
        """References per query; 0 for heads without a class encoder."""
        return self.head.references_per_query

    @property
    def num_passes(self) -> int:
        """Forward passes of the feature encoder in a step: one a part of the batch, or of either half of a paired one."""
        return self.optim.accumulation * (2 if self.head.is_paired else 1)

    @property
    def gpu_batch_size(self) -> int:
        """Queries of an optimiser step on one of the GPUs."""
        return self.optim.batch_size // self.run.gpus

    @property
    def gpu_part_size(self) -> int:
        """Queries of one of the GPUs in a part of the batch."""
        return self.optim.micro_batch_size // self.run.gpus

    @property
    def num_ids(self) -> int:
        """Identities of a resolved profile (see `resolve`)."""
        assert self.data.num_ids is not None, "profile.resolve() was not called"
        return self.data.num_ids

    @property
    def total_steps(self) -> int:
        """Optimiser steps of a resolved profile."""
        assert self.run.steps is not None, "profile.resolve() was not called"
        return self.run.steps

    @property
    def dcc_size(self) -> int:
        """Slots of a resolved profile; 0 for heads without a container."""
        return self.head.num_slots

    @property
    def window(self) -> int | None:
        """Identities of a resolved profile that are open at a time under ``residency``; None is all of them."""
        slots = self.head.resident_slots
        if self.data.window_share is None and not slots:
            return None  # a head that forgets nothing, or that would not find it again
        open_ids = round((self.data.window_share or DEFAULT_WINDOW_SHARE) * self.num_ids)
        return max(1, min(open_ids, slots or self.num_ids))

    @property
    def buffer_images(self) -> int | None:
        """Images that are mixed at a time under ``sequential`` in a resolved profile; None is the sampler's default."""
        share = self.data.window_share
        return None if share is None or self.data.num_images is None else max(1, round(share * self.data.num_images))

    def resolve(self, num_ids: int, num_images: int | None = None) -> TrainProfile:
        """Return the profile in which everything that depended on the data set is a number.

        With the run's length, what is counted in images becomes steps (`attfc_train.heads.pace`), and steps alone are kept.

        Args:
            num_ids: identities of the data set.
            num_images: images of the data set; None leaves `run.steps` to `data.num_images` or, without it, as it is.
        """
        num_images = num_images or self.data.num_images
        data = self.data.model_copy(update={"num_ids": num_ids, "num_images": num_images})
        whole = self.model_copy(update={"data": data, "head": self.head.resolved(num_ids)})
        if self.run.steps is None and num_images is not None:
            steps = max(1, round(self.run.epochs * num_images / self.optim.batch_size))
            whole = whole.lasting(steps) if self.is_planned else whole.model_copy(update={"run": whole.run.with_steps(steps)})
        return TrainProfile.model_validate(whole._paced().model_dump())

    def lasting(self, steps: int) -> TrainProfile:
        """Return a plan for a run of so many steps; warm-up and ramps that were made for a longer one follow it.

        A plan may be made before its data set is there, which may have fewer images than was said. Nothing is checked.
        """
        pace = Pace(self.optim.batch_size, steps)
        parts = {"optim": self.optim.within(pace), "head": self.head.within(pace), "run": self.run.with_steps(steps)}
        return self.model_copy(update=parts)

    def _paced(self) -> TrainProfile:
        """Return the profile with steps in place of images; as it is where the run's length is not known."""
        if self.run.steps is None:
            return self
        pace = Pace(self.optim.batch_size, self.run.steps)
        return self.model_copy(update={"head": self.head.paced(pace), "optim": self.optim.paced(pace)})


def checked_setting(values: Mapping[str, Value | None], kind: str, named: str | None = None) -> dict[str, Value | None]:
    """Return what a file says of a setting that was trained, in the types of the fields that its knobs are.

    Args:
        values: knob -> value; None is the recipe's.
        kind: of the head that is asked first whether these are its knobs. named: of the setting's head, where the file says it.

    Raises:
        ValueError: no batch size, no head has such knobs, or a value is out of its range.
    """
    if values.get("batch_size") is None:
        raise ValueError("search.trainings must name the batch_size of every setting")
    given = {name: value for name, value in values.items() if value is not None}
    checked: dict[str, Value | None] = dict.fromkeys(values)
    own_knobs = {knob.name for knob in _known_head(named or kind).knobs()}  # one may be called like a field of a section
    for section in (DataSettings, OptimSettings, ModelSettings, RunSettings):
        own = {name: given.pop(name) for name in list(given) if name in section.model_fields and name not in own_knobs}
        settings: Frozen = section.model_validate(own)
        checked |= {name: getattr(settings, name) for name in own}
    if checked.get("backbone") not in (None, *BACKBONE_NAMES):
        raise ValueError(f"search.trainings must be of known backbones, but got {str(checked['backbone'])[:40]!r}")
    head = _head_with_knobs(given, kind, named).model_validate(given)
    return checked | {name: getattr(head, name) for name in given}


def _known_head(kind: str) -> type[HeadSettings]:
    if kind not in HEADS:
        raise ValueError(f"search.trainings must be of known kinds of heads, but got {kind[:40]!r}")
    return HEADS[kind].settings


def _head_with_knobs(names: Iterable[str], kind: str, named: str | None) -> type[HeadSettings]:
    others = () if named is not None else tuple(other.settings for other in HEADS.values())
    kinds = (_known_head(named or kind), *others)
    fitting = (settings for settings in kinds if set(names) <= {knob.name for knob in settings.knobs()})
    found = next(fitting, None)
    if found is None:
        raise ValueError(f"search.trainings must be of the knobs of one head, but got {', '.join(names)}"[:200])
    return found
