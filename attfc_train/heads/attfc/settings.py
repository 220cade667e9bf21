"""Settings of the AttFC head, and what they tell about themselves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Literal, Self

from pydantic import Field, model_validator

from attfc_train.document import Value
from attfc_train.heads.containers.settings import DCC_SHARE, STORAGE, ContainerSettings
from attfc_train.heads.knob import Knob
from attfc_train.heads.settings import MarginSettings, Refusal


class AttFCSettings(ContainerSettings):
    """The AttFC head (arXiv 2503.06839): a container of generated class centers instead of a weight matrix."""

    kind: Literal["attfc"] = "attfc"
    margin: MarginSettings = MarginSettings()
    policy: Literal["identity", "fifo"] = "identity"
    """``fifo``: the paper's ring; ``identity``: one slot per identity, least recently updated evicted."""
    queue_length: float = Field(3.3, ge=1, le=1000)
    """L of the averaged queue: center <- normalise((L-1)/L center + 1/L gcc). 1 = only the newest center, as published."""
    queue_mode: Literal["averaged", "stored"] = "averaged"
    """``averaged``: a running mean per slot; ``stored``: the last L centers themselves, which the positive attends over."""
    num_references: int = Field(1, ge=0, le=16)
    """R images per query for its class center; 0: no class encoder, the query's own detached feature refreshes its slot."""
    batch_negatives: bool = True
    """A micro-batch's new centers of identities without a slot (``fifo``: all) are its negatives too; false as published."""
    attention_temperature: float = Field(1.0, ge=1e-3)
    slot_rate: float = Field(0.0, ge=0, le=100)
    """Learning rate of the slots, as a multiple of the network's: between refreshes they move away from other identities'
    queries, in a second pass over the slots. 0: as published, slots are generated and never learned."""
    first_scored_share: float = Field(1.0, gt=0, le=1)
    """Share of the slots that the first step scores; it grows geometrically to all. All are kept in memory throughout."""
    growing_share: float = Field(0.5, gt=0, le=1)
    """Share of the run after which all slots are scored, where `first_scored_share` is below 1."""

    @model_validator(mode="after")
    def _policy_rules(self) -> Self:
        if self.policy == "fifo" and self.queue_length != 1:
            raise ValueError(f"policy 'fifo' needs queue_length 1, but got {self.queue_length:g}; use 1 or policy 'identity'")
        if self.policy == "fifo" and self.num_references == 0:
            raise ValueError("policy 'fifo' needs num_references >= 1, but got 0; use 1 or policy 'identity'")
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

    @model_validator(mode="after")
    def _there_is_a_class_encoder_to_export(self) -> Self:
        if self.exports_class_encoder and self.num_references == 0:
            raise ValueError("exported_encoder 'class' needs num_references >= 1, but got 0; use exported_encoder 'feature'")
        return self

    @property
    def is_shared(self) -> bool:
        """See `HeadSettings.is_shared`."""
        return True

    @property
    def references_per_query(self) -> int:
        """See `HeadSettings.references_per_query`."""
        return self.num_references

    @property
    def container_form(self) -> tuple[object, ...]:
        """See `HeadSettings.container_form`."""
        return (*super().container_form, self.queue_mode, self.queue_length if self.queue_mode == "stored" else None)

    @property
    def remembered_refreshes(self) -> float:
        """See `ContainerSettings.remembered_refreshes`: L - 1 of a running mean, 0 to L - 1 of a mean of L."""
        return (self.queue_length - 1) / (2 if self.queue_mode == "stored" else 1)

    @property
    def keeps_means(self) -> bool:
        """Whether a slot is a running mean of its identity's centers, which is what plans are about."""
        return self.policy == "identity" and self.queue_mode == "averaged"

    def problem_with(self, num_ids: int) -> str | None:
        """Return what is wrong where one slot per identity leaves slots over."""
        if self.policy == "identity" and self.dcc_size and self.dcc_size > num_ids:
            return f"head.dcc_size must be at most data.num_ids, but got {self.dcc_size} and {num_ids}"
        return None

    def rows(self) -> tuple[tuple[str, str], ...]:
        """See `HeadSettings.rows`."""
        (name, slots), references = super().rows()
        queue = ("queue", f"{self.queue_mode}, length {self.queue_length:g}")
        return (name, f"{slots}, policy {self.policy}"), queue, references

    @classmethod
    def recommended(cls, margin: MarginSettings) -> Self:
        """See `HeadSettings.recommended`: no references and slots that learn, as in the preset ``attfc``."""
        # docs/heads-compared.md. The defaults stay, so that profiles from before there were such slots mean what they meant.
        return cls(margin=margin, num_references=0, slot_rate=1.0)

    @classmethod
    def knobs(cls) -> tuple[Knob, ...]:
        """Return slots, queue length, references and storage."""
        return _KNOBS

    def fixed_knobs(self) -> dict[str, Value]:
        """See `HeadSettings.fixed_knobs`: nobody knows what references add to slots that learn, or take."""
        return {"num_references": self.num_references} if self.slot_rate else {}

    def search_refusal(self) -> Refusal | None:
        """Refuse what the knobs are not about: one slot per identity with an averaged queue, and R = 0 among others."""
        if not self.keeps_means:
            return Refusal(
                "must have head.policy 'identity' and head.queue_mode 'averaged'",
                f"'{self.policy}' and '{self.queue_mode}'",
                "Plan with averaged queues, then train with --set head.queue_mode=stored --set head.queue_length=3.",
            )
        if self.exports_class_encoder:
            return Refusal(
                "must have head.exported_encoder 'feature', because no references are searched too",
                f"'{self.exported_encoder}'",
                "Plan with it, then train with --set head.exported_encoder=class.",
            )
        return None

    def searchable(self) -> Self:
        """Return the settings with one slot per identity, an averaged queue and the feature encoder as the model."""
        return self.model_copy(update={"policy": "identity", "queue_mode": "averaged", "exported_encoder": "feature"})

    def variations(self) -> Iterator[tuple[str, Self]]:
        """Yield half the slots, narrower storages and fewer references."""
        yield from super().variations()
        now = self.num_references
        least = 1 if self.policy == "fifo" or self.exports_class_encoder else 0
        for references in sorted({now - 1, least}, reverse=True):
            if least <= references < now:
                yield f"references {now} -> {references}", self.model_copy(update={"num_references": references})

    def ratios(self, num_ids: int, batch_size: int, steps: int) -> dict[str, float]:
        """Return coverage, age and memory of centers, and what a sample's positive is made of."""
        return {**super().ratios(num_ids, batch_size, steps), "queue length L": self.queue_length}


_KNOBS = (
    replace(DCC_SHARE, apart=1.0),  # a slot for everyone needs no map of identities
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
    STORAGE,
)
