"""The base of every JSON document that attfc reads and writes, and the words that several documents share."""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

MOST = 10**12
"""Largest count in a document: no data set and no run reaches it, and 8 MiB for each are still a 64-bit number of bytes."""
MOST_BYTES = 2**60
MOST_SEED = 2**63 - 1
Value: TypeAlias = bool | Annotated[int, Field(ge=-MOST_BYTES, le=MOST_BYTES)] | float | str
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
