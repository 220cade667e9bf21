"""The settings of a profile by the names that ``--set`` takes, and in words what each can be."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from attfc_train.document import MOST, Frozen
from attfc_train.errors import UsageError
from attfc_train.heads.kinds import HEADS
from attfc_train.profile.profile import BACKBONE_NAMES, TrainProfile

SECTIONS = ("data", "model", "head", "optim", "run", "teacher")
_MOST_SHOWN = 4
_EXAMPLE = "optim.batch_size"


_IRESNET = re.compile(r"i?r(?:es(?:net)?)?[-_ ]?(\d+)")
"""IResNets as people type them: R50, ir_50, iresnet50."""


def backbone_name(text: str) -> str:
    """Return the backbone that somebody means, ``r50`` for ``R50`` and ``iresnet50``; the text itself where there is none."""
    name = text.strip().lower()
    found = _IRESNET.fullmatch(name)
    name = f"r{found[1]}" if found else {"mobilefacenet": "mbf"}.get(name, name)
    return name if name in BACKBONE_NAMES else text


class Values(NamedTuple):
    """What a setting can be."""

    rule: str
    """In words, such as ``a whole number from 2 to 65,536``."""
    is_count: bool
    """Whether it is a whole number."""


def known_keys(profile: TrainProfile, kind: str | None = None) -> dict[str, Values]:
    """Return every setting by its dotted name.

    Args:
        kind: of the head, where it is another one than the profile's.
    """
    keys: dict[str, Values] = {}
    for section in SECTIONS:
        settings: type[Frozen] = type(getattr(profile, section))
        if section == "head" and kind in HEADS:
            settings = HEADS[kind].settings
        keys |= dict(_keys_of(settings, section))
    backbones = Values(_listed(BACKBONE_NAMES), False)
    teachers = Values(f"{backbones.rule}, or null", False)
    return keys | {"model.backbone": backbones, "teacher.backbone": teachers, "head.kind": Values(_listed(HEADS), False)}


def unknown_key(key: str, assignment: str, keys: Mapping[str, Values]) -> UsageError:
    """Return the error that names the settings most like a name that is none."""
    if "=" not in assignment or not key:
        example = f"Example: --set {_EXAMPLE}=256."
        return UsageError("--set must look like section.key=value", f"'{assignment}'", example)
    section, _, leaf = key.rpartition(".")
    others = [kind for kind, head in HEADS.items() if key in dict(_keys_of(head.settings, "head"))]
    if others:
        remedy = f"It is one of --set head.kind={_listed(others)}."
        return UsageError("--set must name a setting of the profile's head", f"'{key}'", remedy)
    near = _nearest(key, leaf, keys)
    siblings = [name for name in keys if name.rpartition(".")[0] == section]
    listed = f"'{section}' has {', '.join(name.rpartition('.')[2] for name in siblings)}" if siblings else _sections()
    nearest = f"Nearest: {', '.join(near)}. " if near else ""
    return UsageError("--set must name a setting as section.key", f"'{key}'", f"{nearest}{listed}.")


def _sections() -> str:
    return f"The sections are {', '.join(SECTIONS)}; 'attfc-train presets show attfc' lists all settings"


def _nearest(key: str, leaf: str, keys: Mapping[str, Values]) -> list[str]:
    """Return the names most like `key`: a right word behind a wrong section first, then by spelling."""
    wanted = leaf.replace("_", "").lower()

    def likeness(name: str) -> float:
        other = name.rpartition(".")[2].replace("_", "").lower()
        words = difflib.SequenceMatcher(None, wanted, other).ratio()
        initials = "".join(word[0] for word in name.rpartition(".")[2].split("_"))
        return max(words, 0.9 * (initials == wanted)) + 0.2 * difflib.SequenceMatcher(None, key, name).ratio()

    found = sorted(keys, key=likeness, reverse=True)[:_MOST_SHOWN]
    return [name for name in found if likeness(name) > 0.7]


def _keys_of(settings: type[Frozen], prefix: str) -> Iterator[tuple[str, Values]]:
    """Yield the settings of a section, those of its parts included."""
    schema = settings.model_json_schema()
    for name, field in settings.model_fields.items():
        part = field.annotation
        if isinstance(part, type) and issubclass(part, Frozen):
            yield from _keys_of(part, f"{prefix}.{name}")
        else:
            yield f"{prefix}.{name}", _values(schema["properties"][name])


def _values(schema: Mapping[str, Any]) -> Values:
    """Return in words what a JSON schema allows."""
    if "anyOf" in schema:
        parts = [_values(each) for each in schema["anyOf"]]
        return Values(" or ".join(part.rule for part in parts), any(part.is_count for part in parts))
    if "enum" in schema:
        return Values(_listed(word if isinstance(word, str) else json.dumps(word) for word in schema["enum"]), False)
    if "const" in schema:
        return Values(str(schema["const"]), False)
    kind = schema.get("type")
    if kind in ("integer", "number"):
        words = "a whole number" if kind == "integer" else "a number"
        return Values(" ".join([words, *_bounds(schema)]), kind == "integer")
    of_numbers = schema.get("items", {}).get("type") == "number"
    listed = "a list of numbers such as [0.5, 0.75]" if of_numbers else 'a list such as ["lfw.bin"]'
    names = {"boolean": "true or false", "null": "null", "array": listed}
    return Values(names.get(str(kind), "text"), False)


def _bounds(schema: Mapping[str, Any]) -> Iterator[str]:
    """Yield the limits of a number in words; a count's largest is none that anybody comes near."""
    least, most = schema.get("minimum"), schema.get("maximum", MOST)
    above, below = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum", MOST)
    is_bounded = most < MOST
    if least is not None and is_bounded:
        yield f"from {least:,} to {most:,}"
    else:
        lower = [f"of at least {least:,}"] if least is not None else [f"above {above:,}"] if above is not None else []
        upper = [f"at most {most:,}"] if is_bounded else [f"below {below:,}"] if below < MOST else []
        yield " and ".join([*lower, *upper])
    if "multipleOf" in schema:
        yield f"in steps of {schema['multipleOf']:,}"


def _listed(words: Any) -> str:
    *first, last = map(str, words)
    return f"{', '.join(first)} or {last}" if first else last
