"""The base of every JSON document that attfc reads and writes, and the words that several documents share."""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

from pydantic import BaseModel, ConfigDict

Value: TypeAlias = bool | int | float | str
"""The value of a setting in a document."""
Precision = Literal["fp32", "bf16", "fp16"]
StorageName = Literal["fp32", "bf16", "fp8", "int8"]


class Frozen(BaseModel):
    """A document node: immutable, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class StorageKind(NamedTuple):
    """The memory that a type of stored centers takes."""

    component_bytes: int
    """Bytes of one dimension of one center."""
    scaled: bool
    """Whether every slot has an fp32 scale."""


STORAGES: dict[StorageName, StorageKind] = {
    "fp32": StorageKind(4, scaled=False),
    "bf16": StorageKind(2, scaled=False),
    "int8": StorageKind(1, scaled=True),
    "fp8": StorageKind(1, scaled=True),
}
"""The types of stored centers, plainest first."""
