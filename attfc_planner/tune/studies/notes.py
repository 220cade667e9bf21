"""What a trial of a study may hold: whoever can write to a shared storage can write anything there.

A trial is looked at before anything is made of it. What does not fit is refused, not passed over: a study whose trials another
program has changed would choose a setting by them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from attfc_train.units import Bytes

Outcome: TypeAlias = Literal[
    "ran", "not run", "finished", "stopped", "out of time", "out of memory", "failed", "interrupted", "its worker died"
]
Check: TypeAlias = Literal["1", "2", "3", "4", "5", "6", "7", "8", "9"]
_Words: TypeAlias = Annotated[str, Field(max_length=10_000)]
_Positive: TypeAlias = Annotated[float, Field(gt=0, le=1e15)]
_Size: TypeAlias = Annotated[Bytes, Field(gt=0, lt=2**60)]
_Index: TypeAlias = Annotated[int, Field(ge=0, lt=2**31)]
_Accuracy: TypeAlias = Annotated[float, Field(ge=0, le=1)]


OF_CODE = (TypeError, AttributeError, LookupError, AssertionError, RecursionError)
"""Python's errors that speak of code, such as "'float' object is not iterable", which no user has written."""


class Notes(BaseModel):
    """The facts that a trial may have, each of which may be missing; others are left out."""

    model_config = ConfigDict(extra="ignore", strict=True, allow_inf_nan=False)

    why: _Words = ""
    dropped: _Words = ""
    name: _Words = ""
    reason: _Words = ""
    kind: _Words = ""
    outcome: Outcome = "failed"
    worker: dict[str, Any] = {}
    beat: Annotated[float, Field(ge=0)] = 0.0
    predicted_bytes: _Size = 1
    peak_bytes: _Size = 1
    reserved_bytes: _Size = 1
    context_bytes: Annotated[Bytes, Field(ge=0, lt=2**60)] = 0
    images_per_second: _Positive = 1.0
    slowest: _Positive = 1.0
    fastest: _Positive = 1.0
    wall_seconds: Annotated[float, Field(ge=0, le=1e15)] = 0.0
    num_ids: _Index = 0
    steps: _Index = 0
    epochs: _Positive = 1.0
    beside: dict[str, _Index] = {}
    checks: dict[Check, Annotated[list[tuple[_Accuracy, Annotated[int, Field(gt=0)]]], Field(min_length=1)]] = {}


def checked_notes(notes: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of a trial's notes that attfc knows.

    Raises:
        ValueError: one has another type, or a value that it cannot have.
    """
    try:
        # As JSON, since lists are tuples then.
        return Notes.model_validate_json(json.dumps(dict(notes))).model_dump(exclude_unset=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise ValueError(f"{place} = {first['input']!r:.60}: {first['msg']}") from error
    except (TypeError, RecursionError) as error:
        raise ValueError(in_words(error, "notes that JSON cannot express")) from error


def in_words(error: BaseException, otherwise: str) -> str:
    """Return what an error says, unless it is one of `OF_CODE`.

    Args:
        otherwise: what is said in place of those, such as ``'float' object is not iterable``.
    """
    return otherwise if isinstance(error, OF_CODE) else f"{error}" or otherwise


def check_indices(indices: Mapping[str, Any], knobs: Mapping[str, int]) -> None:
    """Refuse a setting that no study with these knobs has.

    Args:
        knobs: name -> number of values.

    Raises:
        ValueError: it has a knob that there is not, or an index without a value.
    """
    for name, index in indices.items():
        if name not in knobs:
            raise ValueError(f"the knob {name!r:.60}")
        if type(index) is not int or not 0 <= index < knobs[name]:
            raise ValueError(f"{name} = {index!r:.60}, of 0 to {knobs[name] - 1}")


def check_values(values: tuple[Any, ...], number: int) -> None:
    """Refuse a trial's result that is not `number` finite numbers; one without a result is right.

    Raises:
        ValueError: it is something else.
    """
    if values and (len(values) != number or not all(map(is_number, values))):
        raise ValueError(f"the values {values!r:.60} in place of {number} numbers")


def is_number(value: object) -> bool:
    """Return whether a value is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
