"""The base of every JSON document that attfc reads and writes, and the words that several documents share."""

from __future__ import annotations

from collections.abc import Hashable
from functools import cache
from types import UnionType
from typing import Annotated, Any, Literal, NamedTuple, TypeAlias, Union, cast, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, model_validator

from attfc_train.units import Bytes

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

    @model_validator(mode="before")
    @classmethod
    def _no_text_or_truth_for_a_number(cls, document: Any) -> Any:
        # Pydantic would take "128" for 128 and true for 1. Its strict mode refuses lists for tuples, and so every document.
        if not isinstance(document, dict):
            return document
        wrong = {name: _OfAnotherType(value) for name, value in document.items() if cls._is_of_another_type(name, value)}
        return {**document, **wrong} if wrong else document

    @classmethod
    def _is_of_another_type(cls, name: str, value: Any) -> bool:
        """Return whether a value is text or a truth value for a number, or a number for a truth value."""
        if not isinstance(value, str | bool | int | float) or name not in cls.model_fields:
            return False
        kinds = _plain_kinds(cast(Hashable, cls.model_fields[name].annotation))
        if isinstance(value, str | bool):
            return bool(kinds & {int, float}) and type(value) not in kinds
        return bool in kinds and not kinds & {int, float}


class _OfAnotherType:
    """What no field takes, so that the error names the field."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def __str__(self) -> str:
        return str(self._value)


@cache
def _plain_kinds(annotation: Hashable) -> frozenset[Any]:
    """Return the plain types and values that an annotation names, unions and ``Annotated`` looked through."""
    parts = get_args(annotation)
    if not parts or get_origin(annotation) is Literal:
        return frozenset({annotation, *map(type, parts)})
    is_annotated = get_origin(annotation) is Annotated
    if not is_annotated and get_origin(annotation) not in (Union, UnionType):
        return frozenset()
    return frozenset().union(*map(_plain_kinds, parts[:1] if is_annotated else parts))


class StorageKind(NamedTuple):
    """The memory that a type of stored centers takes."""

    component_bytes: int
    """Bytes of one dimension of one center."""
    scaled: bool
    """Whether every slot has an fp32 scale."""

    def row_bytes(self, dim: int) -> Bytes:
        """Return the bytes of one center of so many dimensions, its scale included."""
        return self.component_bytes * dim + (4 if self.scaled else 0)


STORAGES: dict[StorageName, StorageKind] = {
    "fp32": StorageKind(4, scaled=False),
    "bf16": StorageKind(2, scaled=False),
    "int8": StorageKind(1, scaled=True),
    "fp8": StorageKind(1, scaled=True),
}
"""The types of stored centers, plainest first."""
