"""Settings of the AttFC head, and what they tell about themselves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal, Self

from pydantic import Field, model_validator

from attfc_train.document import STORAGES, StorageName, Value
from attfc_train.heads.knob import Knob
from attfc_train.heads.settings import FIRST_MOMENTUM, BufferPolicy, ClassEncoder, HeadSettings, MarginSettings, Refusal

FASTEST_FORGETTING = 1 - FIRST_MOMENTUM
"""Largest 1 - m' of a short run: a class encoder that forgets faster is none."""


class AttFCSettings(HeadSettings):
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
    batchnorm_buffers: BufferPolicy = "own"
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

    @property
    def references_per_query(self) -> int:
        """See `HeadSettings.references_per_query`."""
        return self.num_references

    @property
    def num_slots(self) -> int:
        """See `HeadSettings.num_slots`."""
        return self.dcc_size or 0

    @property
    def class_encoder(self) -> ClassEncoder | None:
        """See `HeadSettings.class_encoder`; none without references."""
        if self.num_references == 0:
            return None
        return ClassEncoder(self.encoder_momentum, self.encoder_momentum_ramp_steps, self.batchnorm_buffers)

    @property
    def container_form(self) -> tuple[object, ...]:
        """See `HeadSettings.container_form`."""
        length = self.queue_length if self.queue_mode == "stored" else None
        return self.dcc_size, self.storage, self.queue_mode, length

    @property
    def keeps_means(self) -> bool:
        """Whether a slot is a running mean of its identity's centers, which is what plans are about."""
        return self.policy == "identity" and self.queue_mode == "averaged"

    def resolved(self, num_ids: int) -> Self:
        """Return the settings with a number of slots."""
        if self.dcc_size is not None:
            return self
        return self.model_copy(update={"dcc_size": max(1, min(num_ids, round(self.dcc_share * num_ids)))})

    def problem_with(self, num_ids: int) -> str | None:
        """Return what is wrong where one slot per identity leaves slots over."""
        if self.policy == "identity" and self.dcc_size and self.dcc_size > num_ids:
            return f"head.dcc_size must be at most data.num_ids, but got {self.dcc_size} and {num_ids}"
        return None

    def describe(self) -> str:
        """See `HeadSettings.describe`."""
        return f"{self.kind}, {self.num_slots:,} slots, R={self.num_references}"

    def rows(self) -> tuple[tuple[str, str], ...]:
        """See `HeadSettings.rows`."""
        slots = f"{self.dcc_size:,}" if self.dcc_size else f"{self.dcc_share:.0%} of the identities"
        return (
            ("DCC slots", f"{slots}, {self.storage}, policy {self.policy}"),
            ("queue", f"{self.queue_mode}, length {self.queue_length:g}"),
            ("references", str(self.num_references)),
        )

    @classmethod
    def knobs(cls) -> tuple[Knob, ...]:
        """Return slots, queue length, references and storage."""
        return _KNOBS

    def search_refusal(self) -> Refusal | None:
        """Refuse what the knobs are not about: they are about one slot per identity with an averaged queue."""
        if self.keeps_means:
            return None
        return Refusal(
            "must have head.policy 'identity' and head.queue_mode 'averaged'",
            f"'{self.policy}' and '{self.queue_mode}'",
            "Plan with averaged queues, then train with --set head.queue_mode=stored --set head.queue_length=3.",
        )

    def searchable(self) -> Self:
        """Return the settings with one slot per identity and an averaged queue."""
        return self.model_copy(update={"policy": "identity", "queue_mode": "averaged"})

    def value_of(self, knob: str, num_ids: int) -> Value:
        """See `HeadSettings.value_of`; slots may have been changed without their share."""
        return round(self.num_slots / num_ids, 4) if knob == "dcc_share" else super().value_of(knob, num_ids)

    def turned(self, values: Mapping[str, Value], num_ids: int, steps: float) -> Self:
        """See `HeadSettings.turned`; slots follow their share, and the momentum's ramp ends by the last step."""
        ramps = {"encoder_momentum_ramp_steps": min(self.encoder_momentum_ramp_steps, int(steps))}
        slots = {"dcc_size": slots_for(float(values["dcc_share"]), num_ids)} if "dcc_share" in values else {}
        return super().turned({**values, **slots, **ramps}, num_ids, steps)

    def variations(self) -> Iterator[tuple[str, Self]]:
        """Yield half the slots, narrower storages and fewer references."""
        half = self.num_slots // 2
        if half:
            yield f"DCC size {self.num_slots:,} -> {half:,}", self.model_copy(update={"dcc_size": half})
        for storage in ("bf16", "int8"):
            if storage != self.storage:
                yield f"storage {self.storage} -> {storage}", self.model_copy(update={"storage": storage})
        now = self.num_references
        least = 1 if self.policy == "fifo" else 0
        for references in sorted({now - 1, least}, reverse=True):
            if least <= references < now:
                yield f"references {now} -> {references}", self.model_copy(update={"num_references": references})

    def shortened(self, num_ids: int, short_ids: int, time: float) -> Self:
        """See `HeadSettings.shortened`: slots shrink like the identities, and so does the class encoder's memory."""
        share = short_ids / num_ids
        slower = max(FASTEST_FORGETTING, 1 - self.encoder_momentum)  # a profile may forget faster than any short run would
        forgetting = min((1 - self.encoder_momentum) / share, slower)
        changes = {
            "dcc_size": max(1, min(short_ids, round(self.num_slots * share))),
            "encoder_momentum": 1 - forgetting,
            "encoder_momentum_ramp_steps": round(self.encoder_momentum_ramp_steps * time),
        }
        return super().shortened(num_ids, short_ids, time).model_copy(update=changes)

    def ratios(self, num_ids: int, batch_size: int, steps: int) -> dict[str, float]:
        """Return coverage, age and memory of centers, and what a sample's positive is made of."""
        forgetting = 1 - self.encoder_momentum
        return {
            "coverage C / N": self.num_slots / num_ids,
            "age of centers (C / B) x (1 - m)": self.num_slots / batch_size * forgetting,
            "run in time constants T x (1 - m)": steps * forgetting,
            "momentum ramp / run": self.encoder_momentum_ramp_steps / steps,
            "references R": float(self.num_references),
            "queue length L": self.queue_length,
        }


def slots_for(share: float, num_ids: int) -> int:
    """Return the number of slots that is a share of the identities, at least one."""
    return max(1, round(share * num_ids))


_KNOBS = (
    Knob(
        "dcc_share",
        (1.0, 0.5, 0.3, 0.2, 0.1, 0.05, 0.02, 0.01),
        "head",
        place=10,
        scales=True,
        size=float,
        slows=True,
        is_share=True,
        apart=1.0,  # a slot for everyone needs no map of identities
        column="DCC size",
        cell=lambda head: f"{head.num_slots:,}",
        phrase=lambda head: f"DCC size {head.num_slots:,}",
        row=lambda head: ("DCC size", f"{head.num_slots:,} slots ({head.dcc_share:.0%} of the identities), {head.storage}"),
    ),
    Knob(
        "queue_length",
        (1.0, 2.0, 3.3, 5.0, 8.0),
        "head",
        place=20,
        affects=frozenset({"accuracy"}),
        scales=True,
        stand_in=2.0,
        phrase=lambda head: f"queue length {head.queue_length:g}",
        row=lambda head: ("queue length", f"{head.queue_length:g} (averaged)"),
    ),
    Knob(
        "num_references",
        (0, 1, 2),
        "head",
        place=40,
        size=float,
        slows=True,
        column="R",
        cell=lambda head: str(head.num_references),
        phrase=lambda head: f"{head.num_references} references",
        row=lambda head: ("references", f"{head.num_references} per query"),
    ),
    Knob(
        "storage",
        tuple(STORAGES),
        "head",
        place=70,
        ordered=False,
        size=lambda name: STORAGES[name or "fp32"].component_bytes,
        column="stored",
        cell=lambda head: str(head.storage),
        phrase=lambda head: "" if head.storage == "fp32" else f"centers in {head.storage}",
    ),
)
