"""The training profile: everything that decides a run, as one closed, frozen JSON document (DESIGN 3).

The planner writes it (``best.json``), presets are it, the trainer reads it. The schema lives here, on the trainer's side,
so that the trainer runs without the planner and the planner cannot write what the trainer cannot read.
Units: ``_bytes`` and counts are ints, ``_seconds`` floats, angles radians. A rule that joins two fields stands in the
model that sees both.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from attfc_train.profile.document import Frozen
from attfc_train.profile.names import Precision as Precision
from attfc_train.profile.names import StorageName as StorageName
from attfc_train.profile.prediction import Prediction, Provenance
from attfc_train.profile.search_summary import SearchSummary
from attfc_train.units import Bytes

SCHEMA_VERSION = 1


class DataSettings(Frozen):
    """What is read, and how images are drawn."""

    path: str | None = None
    """Data set: a RecordIO folder or ``.rec`` file, a folder per identity, or ``synthetic:IDSxIMAGES[+FIRST]``; ``@FIRST:STOP``
    behind it takes a part of the identities."""
    num_ids: int | None = Field(None, ge=2)
    """Identities; None until the data set is opened. A value that contradicts the data set is an error."""
    num_images: int | None = Field(None, ge=2)
    """Images; only used for the length of an epoch before the data set is there."""
    draw: Literal["residency", "permutation", "reference"] = "residency"
    """``residency``: every image once per epoch, an identity's images while its slot lives; ``permutation``: every image once
    per epoch, in uniform order; in both, references are other images. ``reference``: i.i.d., as AttFC's code."""
    window_share: float | None = Field(None, gt=0, le=1)
    """``residency``: share of the identities whose images are being drawn at a time, at most as many as there are slots; None
    is 0.3 with a container and all without one."""
    flip_probability: float = Field(0.5, ge=0, le=1)
    num_workers: int = Field(0, ge=0, le=256)
    """Decoding threads; 0 = one per core, at most 16."""
    prefetch_batches: int = Field(3, ge=1, le=64)
    cache_bytes: Bytes = Field(512 * 1024**2, ge=0)
    """Decoded images are kept in memory when the whole set fits into this many bytes."""
    max_corrupt_share: float = Field(0.01, ge=0, le=1)
    """Share of the images drawn in a run that may be unreadable (and are replaced) before the run stops."""

    @model_validator(mode="after")
    def _window_belongs_to_residency(self) -> Self:
        if self.draw != "residency" and self.window_share not in (None, 1):
            raise ValueError(
                f"window_share needs draw 'residency', but got {self.window_share:g} and draw {self.draw!r}; "
                f"use draw 'residency' or leave it out"
            )
        return self


DEFAULT_WINDOW_SHARE = 0.3
"""Of the identities: narrower than the slots need where all have one, because it was no worse (README, "Heads compared")."""
MAX_DEFAULT_WORKERS = 16
"""Decoding threads where ``data.num_workers`` is 0 and there are more cores."""
NUM_DRAWN_PAIRS = 6000
"""Pairs that are drawn from a data set given as ``--val``: as many as LFW has."""
BACKBONE_NAMES = ("r18", "r34", "r50", "r100", "r200", "mbf", "tiny")
"""The keys of `attfc_train.backbones.kinds.BACKBONES`, for those that must not import torch."""


class ModelSettings(Frozen):
    """The feature encoder."""

    backbone: str = "r50"
    """One of `BACKBONE_NAMES`."""
    embedding_size: int = Field(512, ge=8, le=4096)
    image_size: int = Field(112, ge=32, le=512, multiple_of=16)
    gradient_checkpointing: bool = False


class MarginSettings(Frozen):
    """Margin on the positive cosine: ArcFace (radians on the angle), CosFace (on the cosine) or both and a factor."""

    kind: Literal["arcface", "cosface", "combined"] = "arcface"
    """``combined``: cos(multiplier x theta + margin) - cosine_margin, which ArcFace's paper calls m1, m2 and m3."""
    margin: float = Field(0.5, ge=0, lt=1.5)
    multiplier: float = Field(1.0, ge=1, le=4)
    """m1 of a ``combined`` margin."""
    cosine_margin: float = Field(0.0, ge=0, lt=1)
    """m3 of a ``combined`` margin."""
    scale: float = Field(64.0, gt=0, le=256)
    gradient: Literal["straight_through", "exact"] = "straight_through"
    """``straight_through``: d loss / d cosine = s (p - onehot), as released ArcFace code has it; ``exact``: the derivative."""
    ramp_steps: int = Field(0, ge=0)
    """The margin grows linearly from none over this many steps."""

    @model_validator(mode="after")
    def _factors_belong_to_combined(self) -> Self:
        if self.kind != "combined" and (self.multiplier, self.cosine_margin) != (1, 0):
            raise ValueError(
                f"multiplier and cosine_margin need kind 'combined', but got kind {self.kind!r}, "
                f"{self.multiplier:g} and {self.cosine_margin:g}; use kind 'combined' or leave them out"
            )
        return self


class AttFCSettings(Frozen):
    """The AttFC head (arXiv 2503.06839): a container of generated class centers instead of a weight matrix."""

    kind: Literal["attfc"] = "attfc"
    margin: MarginSettings = MarginSettings()
    policy: Literal["identity", "fifo"] = "identity"
    """``fifo``: the paper's ring; ``identity``: one slot per identity, least recently updated evicted."""
    dcc_size: int | None = Field(None, ge=1)
    """Slots C. None: `dcc_share` of the identities."""
    dcc_share: float = Field(1.0, gt=0, le=1)
    queue_length: float = Field(3.3, ge=1, le=1000)
    """L of the averaged queue: center <- normalise((L-1)/L center + 1/L gcc). 1 = only the newest center, as published."""
    queue_mode: Literal["averaged", "stored"] = "averaged"
    """``averaged``: a running mean per slot; ``stored``: the last L centers themselves, which the positive attends over."""
    storage: StorageName = "fp32"
    """Type of the stored centers: 4, 2, 1 or 1 bytes per dimension; the 8-bit types have a scale per slot."""
    num_references: int = Field(1, ge=0, le=16)
    """R images per query for its class center; 0: no class encoder, the query's own detached feature refreshes its slot."""
    batch_negatives: bool = True
    """A micro-batch's new centers of identities without a slot (``fifo``: all) are its negatives too; false as published."""
    attention_temperature: float = Field(1.0, ge=1e-3)
    encoder_momentum: float = Field(0.999, ge=0, lt=1)
    encoder_momentum_ramp_steps: int = Field(0, ge=0)
    """The momentum starts at 0.9 and approaches `encoder_momentum` (1 - momentum falls geometrically) over this many steps."""
    batchnorm_buffers: Literal["own", "average", "copy"] = "own"
    """Running statistics of the class encoder: its own forward passes', averaged like the weights, or the feature encoder's."""
    chunk_slots: int = Field(8192, ge=16, le=2**24)
    """Slots scored at a time by the streaming loss; batch_size x chunk_slots floats are its scratch memory."""
    loss_kernel: Literal["auto", "chunked", "triton"] = "auto"
    """Streaming loss: ``triton`` (CUDA only), ``chunked`` (any device), or on CUDA whichever is measured to be faster."""

    @model_validator(mode="after")
    def _policy_rules(self) -> Self:
        if self.policy == "fifo" and self.queue_length != 1:
            raise ValueError(f"policy 'fifo' needs queue_length 1, but got {self.queue_length:g}; use policy 'identity'")
        if self.policy == "fifo" and self.num_references == 0:
            raise ValueError("policy 'fifo' needs num_references >= 1, but got 0; use policy 'identity'")
        return self

    @model_validator(mode="after")
    def _stored_queue_rules(self) -> Self:
        if self.queue_mode == "stored" and self.policy != "identity":
            raise ValueError(f"queue_mode 'stored' needs policy 'identity', but got {self.policy!r}; use queue_mode 'averaged'")
        if self.queue_mode == "stored" and not self.queue_length.is_integer():
            raise ValueError(
                f"queue_mode 'stored' needs a whole queue_length, but got {self.queue_length:g}; "
                f"use {round(self.queue_length)} or queue_mode 'averaged'"
            )
        return self


class FullFCSettings(Frozen):
    """A learned weight matrix over all identities: the baseline."""

    kind: Literal["full_fc"] = "full_fc"
    margin: MarginSettings = MarginSettings()


class PartialFCSettings(Frozen):
    """A learned weight matrix of which every step scores and updates a sample (Partial FC, arXiv 2203.15565)."""

    kind: Literal["partial_fc"] = "partial_fc"
    margin: MarginSettings = MarginSettings()
    sample_rate: float = Field(0.2, gt=0, le=1)
    """Share of the identities that a step scores: those of the batch and uniformly drawn others, at least `batch_size`."""


HeadSettings = Annotated[AttFCSettings | FullFCSettings | PartialFCSettings, Field(discriminator="kind")]


MAX_ACCUMULATION = 1024


class OptimSettings(Frozen):
    """SGD with momentum; one optimiser step sees `batch_size` queries on a device, in `accumulation` equal parts."""

    batch_size: int = Field(128, ge=2, le=2**16)
    accumulation: int = Field(1, ge=1, le=MAX_ACCUMULATION)
    learning_rate: float = Field(0.1, gt=0, le=100)
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(5e-4, ge=0, lt=1)
    clip_norm: float = Field(5.0, gt=0)
    """Largest L2 norm of the feature encoder's gradient."""
    schedule: Literal["cosine", "polynomial"] = "cosine"
    polynomial_power: float = Field(1.0, gt=0, le=10)
    warmup_steps: int = Field(0, ge=0)

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


class RunSettings(Frozen):
    """Length, precision, seeds and habits of a run."""

    epochs: float = Field(5.0, gt=0)
    steps: int | None = Field(None, ge=1)
    """Optimiser steps; when given, `epochs` is not used."""
    precision: Precision = "bf16"
    seed: int = Field(2048, ge=0, lt=2**63)
    log_every: int = Field(20, ge=1)
    eval_every: int = Field(2000, ge=1)
    save_every: int = Field(1000, ge=1)
    val: tuple[str, ...] = ()
    """Verification sets: ``.bin`` files, or a data set spec from which pairs are drawn."""


class TrainProfile(Frozen):
    """The whole document. ``schema_version`` must equal `SCHEMA_VERSION`."""

    schema_version: Literal[1] = 1
    name: str = "custom"
    description: str = ""
    data: DataSettings = DataSettings()
    model: ModelSettings = ModelSettings()
    head: HeadSettings = AttFCSettings()
    optim: OptimSettings = OptimSettings()
    run: RunSettings = RunSettings()
    prediction: Prediction | None = None
    provenance: Provenance | None = None
    search: SearchSummary | None = None
    """What the plan was chosen from, and by which rule; it decides nothing."""

    @model_validator(mode="after")
    def _warm_up_within_run(self) -> Self:
        if self.run.steps is not None and self.optim.warmup_steps >= self.run.steps:
            raise ValueError(
                f"optim.warmup_steps must be less than the run's steps, but got {self.optim.warmup_steps} and {self.run.steps}"
            )
        return self

    @model_validator(mode="after")
    def _slots_within_identities(self) -> Self:
        head, num_ids = self.head, self.data.num_ids
        limited = isinstance(head, AttFCSettings) and head.policy == "identity" and head.dcc_size and num_ids
        if limited and self.dcc_size > (num_ids or 0):
            raise ValueError(f"head.dcc_size must be at most data.num_ids, but got {self.dcc_size} and {num_ids}")
        return self

    @property
    def num_references(self) -> int:
        """References per query; 0 for heads without a class encoder."""
        return self.head.num_references if isinstance(self.head, AttFCSettings) else 0

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
        return (self.head.dcc_size or 0) if isinstance(self.head, AttFCSettings) else 0

    @property
    def window(self) -> int | None:
        """Identities of a resolved profile that are open at a time under ``residency``; None is all of them."""
        if self.data.window_share is None and not self.dcc_size:
            return None  # a head that forgets nothing
        open_ids = round((self.data.window_share or DEFAULT_WINDOW_SHARE) * self.num_ids)
        return max(1, min(open_ids, self.dcc_size or self.num_ids))

    def resolve(self, num_ids: int, num_images: int | None = None) -> TrainProfile:
        """A profile in which everything that depended on the data set is a number.

        Args:
            num_ids: identities of the data set.
            num_images: images of the data set; None leaves `run.steps` to `data.num_images` or, without it, as it is.
        """
        num_images = num_images or self.data.num_images
        data = self.data.model_copy(update={"num_ids": num_ids, "num_images": num_images})
        head, run = self.head, self.run
        if isinstance(head, AttFCSettings) and head.dcc_size is None:
            head = head.model_copy(update={"dcc_size": max(1, min(num_ids, round(head.dcc_share * num_ids)))})
        if run.steps is None and num_images is not None:
            run = run.model_copy(update={"steps": max(1, round(run.epochs * num_images / self.optim.batch_size))})
        return TrainProfile.model_validate(self.model_copy(update={"data": data, "head": head, "run": run}).model_dump())
