"""Mutations of JSON documents: fields at their extremes, other shapes, other texts of the same document."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from random import Random
from typing import Any, Final

from benchmarks.attack.mutations import mutated

NUMBERS: Final = (0, 1, -1, 2, 0.5, -0.0, 1e308, 1e-308, 2**31, 2**53 + 1, 2**63, 2**64, -(2**63), 10**19, 10**400, 1e19, 3.0)
SPECIAL: Final = (float("nan"), float("inf"), float("-inf"))
TEXTS: Final = (
    "",
    " ",
    "a" * 100_000,
    "\x1b[2J\x1b[H\x07",
    "\u202egnp.exe",
    "\x00",
    "<script>alert(1)</script>",
    "'\"; DROP TABLE studies; --",
    "../../../../etc/passwd",
    "\ud800",
    "$(touch /tmp/attfc-attack)",
    "%s%n{0}{self}",
    "1e5",
    "nan",
    "true",
    "é" * 300,
    "[bold red]markup[/bold red][/]",
)
_HUGE: Final = "9" * 5000
"""Python refuses to read numbers of so many digits."""
_DEEPEST: Final = 20
Path = tuple[str | int, ...]


def places(node: Any, here: Path = ()) -> list[Path]:
    """Return the paths of all nodes of a document, its root left out."""
    children: list[tuple[str | int, Any]] = []
    if len(here) > _DEEPEST:
        return []
    if isinstance(node, dict):
        children = list(node.items())
    elif isinstance(node, list):
        children = list(enumerate(node))
    return [path for key, child in children for path in ((*here, key), *places(child, (*here, key)))]


def changed(random: Random, document: Any, texts: Sequence[str] = TEXTS) -> tuple[Any, str]:
    """Return a copy with one to three changed nodes, and what was done."""
    result = copy.deepcopy(document)
    names = []
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        path = random.choice(places(result) or [()])
        if not path:
            break
        parent = result
        for key in path[:-1]:
            parent = parent[key]
        names.append(_change(random, parent, path[-1], texts) + " " + ".".join(map(str, path))[:60])
    return result, ", ".join(names)


def _change(random: Random, parent: Any, key: str | int, texts: Sequence[str]) -> str:
    """Change a child of `parent` in place; return the name of what was done."""
    what = random.choice(("number", "number", "text", "other", "gone", "unknown", "nested", "special"))
    if what == "number":
        former = parent[key]
        near = (former + 1, former - 1, -former, former * 1000) if isinstance(former, int | float) else ()
        parent[key] = random.choice((*NUMBERS, *near))
    elif what == "text":
        parent[key] = random.choice(texts)
    elif what == "other":
        parent[key] = random.choice((None, True, False, [], {}, [1, 2, 3], {"a": 1}, str(parent[key])[:100], [parent[key]]))
    elif what == "gone":
        del parent[key]
    elif what == "unknown" and isinstance(parent, dict):
        parent[random.choice((f"{key}_", "__class__", "", "steps", "num_ids", "path"))] = random.choice((1, "x", None))
    elif what == "nested":
        parent[key] = nested(random.choice((5, 100, 900)))
    else:
        parent[key] = random.choice(SPECIAL)
    return what


def nested(depth: int) -> Any:
    """Return lists in lists."""
    node: Any = 1
    for _ in range(depth):
        node = [node]
    return node


def text_of(random: Random, document: Any) -> tuple[bytes, str]:
    """Return a file for a document: mostly its JSON, else one with a fault in the text itself."""
    text = json.dumps(document, indent=random.choice((None, 2)))
    content = text.encode()
    match random.randrange(16):
        case 0:
            return mutated(random, content)
        case 1:
            return text.encode(random.choice(("utf-16", "utf-32", "utf-8-sig"))), "encoding"
        case 2:
            return content + random.choice((b"\x00", b"{}", b"]", b"\n//", b" " * 1000)), "tail"
        case 3:
            depth = random.choice((1000, 100_000))
            return content.replace(b"1", b"[" * depth + b"]" * depth, 1), "deep"
        case 4:
            return content.replace(b"1", _HUGE.encode(), 1), "huge number"
        case 5:
            return _twice(random, content)
        case _:
            return content, "as JSON"


def _twice(random: Random, content: bytes) -> tuple[bytes, str]:
    """Give a key twice, of which a reader takes one without a word."""
    keys = [part for part in content.split(b'"')[1::2] if content.count(b'"' + part + b'":') == 1]
    if not keys:
        return content, "as JSON"
    key = b'"' + random.choice(keys) + b'"'
    return content.replace(
        key + b":", key + b": " + random.choice((b"7", b"null", b'"x"')) + b", " + key + b":", 1
    ), "key twice"


class Ambiguous(ValueError):
    """A document that gives a key twice, with two values."""


def parsed(content: bytes) -> Any:
    """Return a document as its text says it.

    Raises:
        Ambiguous: a key is there twice.
        ValueError: no JSON.
    """
    return json.loads(content.decode(), object_pairs_hook=_pairs)


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result and result[key] != value:
            raise Ambiguous(f"'{key}' is there twice: {result[key]!r:.30} and {value!r:.30}")
        result[key] = value
    return result


def difference(given: Any, taken: Any, here: str = "") -> str | None:
    """Return where `taken` is another value than what was given; None: all that was given is there."""
    if isinstance(given, dict) and isinstance(taken, dict):
        for key, value in given.items():
            if key not in taken:
                return f"{here}{key}: {value!r:.60} was dropped"
            found = difference(value, taken[key], f"{here}{key}.")
            if found:
                return found
        return None
    if isinstance(given, list) and isinstance(taken, list) and len(given) == len(taken):
        pairs = zip(given, taken, strict=True)
        return next((found for place, pair in enumerate(pairs) if (found := difference(*pair, f"{here}{place}."))), None)
    is_bool = isinstance(given, bool), isinstance(taken, bool)
    is_rounded = isinstance(given, int) and isinstance(taken, float) and float(given) == taken  # as JSON's numbers may be
    if given is None or ((given == taken or is_rounded) and is_bool[0] == is_bool[1]):
        return None
    return f"{here[:-1]}: {given!r:.60} was taken as {taken!r:.60}"
