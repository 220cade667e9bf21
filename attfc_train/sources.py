"""How several data sets are named by one text, so that whatever takes a data set's spec takes several.

``["faces", "more/train.rec"]`` is JSON: a list of specs. Profiles hold it as a list, and one data set as plain text. A part of
the whole is written behind it: ``["faces", "more"]@0:9000``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

from attfc_train.errors import UsageError

MOST_SOURCES: Final = 64
"""Data sets that are named together."""
_MOST_TEXT: Final = 2**16
_FEWEST: Final = 2


def joined_spec(specs: Sequence[str]) -> str:
    """Return one spec for data sets: that of the only one, or a list as JSON.

    Raises:
        UsageError: there are more than `MOST_SOURCES`.
    """
    assert specs, "a data set is named"
    if len(specs) > MOST_SOURCES:
        rule = f"at most {MOST_SOURCES} data sets can be used together"
        raise UsageError(rule, f"{len(specs)}", "Write them into fewer before: attfc-train data convert.")
    return specs[0] if len(specs) == 1 else json.dumps(list(specs), ensure_ascii=False)


def named_by_options(values: Sequence[str] | None) -> str | None:
    """Return one spec for what a repeatable option named; None where it was not given.

    Raises:
        UsageError: it was given more than `MOST_SOURCES` times.
    """
    return joined_spec(values) if values else None


def joined_sources(spec: str) -> list[str] | None:
    """Return the data sets that a spec without its part lists; None where it is no list."""
    if not spec.startswith("[") or len(spec) > _MOST_TEXT:
        return None
    try:
        sources = json.loads(spec)
    except (ValueError, RecursionError):
        return None
    is_list = _FEWEST <= len(sources) <= MOST_SOURCES and all(isinstance(each, str) and each for each in sources)
    return sources if is_list else None


def read_sources(value: Any) -> Any:
    """Return what a document says of its data set as one spec; anything but a list of texts as it is."""
    if not isinstance(value, list | tuple) or not 1 <= len(value) <= MOST_SOURCES:
        return value
    return joined_spec(value) if all(isinstance(each, str) and each for each in value) else value


def written_sources(spec: str | None) -> str | list[str] | None:
    """Return what stands in a document for a spec: a list for several data sets, and the text for any other."""
    return (joined_sources(spec) if spec else None) or spec
