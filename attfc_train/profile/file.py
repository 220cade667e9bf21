"""Training profiles as files: ``best.json``, the shipped presets, and ``--set`` overrides."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from attfc_train.document import MOST
from attfc_train.errors import ProfileError
from attfc_train.files import open_file, write_text_atomically
from attfc_train.heads.kinds import HEADS
from attfc_train.heads.pace import REPLACED
from attfc_train.profile.keys import Values, backbone_name, known_keys, unknown_key
from attfc_train.profile.profile import BACKBONE_NAMES, SCHEMA_VERSION, TrainProfile
from attfc_train.units import parse_count

MAX_PROFILE_BYTES = 4 * 1024**2
_OVERRIDES = "profile with --set"
_OPTIONS = ("data.path", "run.val", "teacher.path")
"""Settings that have options of their own, which become assignments too."""


def profiles_folder() -> Path:
    """Return the shipped ``profiles/``: inside the installed package, or at the repository's top."""
    packaged = Path(__file__).parents[1] / "_profiles"
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / "profiles"


def preset_names() -> list[str]:
    """Return the names that ``--preset`` takes, sorted."""
    return sorted(path.stem for path in (profiles_folder() / "presets").glob("*.json"))


def load_preset(name: str) -> TrainProfile:
    """Return the shipped preset `name`.

    Raises:
        ProfileError: there is none of that name.
    """
    if name not in preset_names():
        raise ProfileError("--preset must be a shipped preset", f"'{name}'", f"Choose from: {', '.join(preset_names())}.")
    return load_profile(profiles_folder() / "presets" / f"{name}.json")


def load_profile(path: Path) -> TrainProfile:
    """Read and check a training profile.

    Raises:
        ProfileError: no such file, not JSON, another schema version, an unknown key, or a value outside its range.
    """
    return parse_profile(read_json(path), str(path))


def read_json(path: Path) -> Any:
    """Return the content of a JSON file of at most `MAX_PROFILE_BYTES`.

    Raises:
        ProfileError: the file is missing, too large or not JSON.
    """
    try:
        with open_file(path) as file:
            content = file.read(MAX_PROFILE_BYTES + 1)
        if len(content) > MAX_PROFILE_BYTES:
            raise ProfileError(f"'{path}' must be a profile of at most 4 MiB", "a larger file", "Check the path.")
        return json.loads(content.decode(), object_pairs_hook=_each_key_once)
    except OSError as error:
        raise ProfileError(f"'{path}' must be a readable profile", str(error.strerror), "Check the path.") from error
    except (ValueError, RecursionError) as error:
        raise ProfileError(f"'{path}' must be JSON", str(error)[:120], "Write it again with attfc-plan.") from error


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object of a document; Python would take the last of two values for one key, without a word."""
    node = dict(pairs)
    if len(node) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)[:60]!a} twice")
    return node


def parse_profile(document: Any, where: str) -> TrainProfile:
    """Return a checked profile from parsed JSON.

    Args:
        where: name of the document in messages.

    Raises:
        ProfileError: another schema version, an unknown key, or a value outside its range.
    """
    try:
        return _validated(document, where)
    except ValidationError as error:
        raise ProfileError(f"'{where}' must be a valid profile", _first_problem(error), "Correct or re-create it.") from error


def _validated(document: Any, where: str) -> TrainProfile:
    """Return a checked profile as `parse_profile` does, but leave what the schema refuses to the caller."""
    version = document.get("schema_version") if isinstance(document, dict) else None
    if version != SCHEMA_VERSION:
        raise ProfileError(
            f"'{where}' must have schema_version {SCHEMA_VERSION}",
            repr(version)[:60],
            "Write it again with this version's attfc-plan.",
        )
    try:
        json.dumps(document, ensure_ascii=False).encode()  # JSON may escape half a surrogate pair, which no file can hold
        return TrainProfile.model_validate(document)
    except UnicodeEncodeError as error:
        got = ascii(error.object[error.start - 20 if error.start > 20 else 0 : error.end])
        raise ProfileError(f"'{where}' must hold text that UTF-8 can express", got, "Rename what it names.") from error


def resolve_profile(profile: TrainProfile, num_ids: int, num_images: int | None) -> TrainProfile:
    """Return `profile` with the numbers of the data set (see `TrainProfile.resolve`).

    Raises:
        ProfileError: the profile breaks a rule with these numbers.
    """
    try:
        return profile.resolve(num_ids, num_images)
    except (ValidationError, OverflowError) as error:
        images = "" if num_images is None else f" and {num_images} images"
        rule = f"the profile must fit the data set's {num_ids} identities{images}"
        problem = _first_problem(error) if isinstance(error, ValidationError) else f"{profile.run.epochs:g} epochs"
        broken, has_value, got = problem.rpartition(", but got ")
        raise ProfileError(f"{rule}: {broken}" if has_value else rule, got, "Correct it, or use --set.") from error


def save_profile(profile: TrainProfile, path: Path) -> None:
    """Write `profile` atomically as indented JSON."""
    write_text_atomically(path, profile.model_dump_json(indent=2) + "\n")


def with_overrides(profile: TrainProfile, assignments: Iterable[str]) -> TrainProfile:
    """Return `profile` with ``section.key=value`` assignments (the command line's ``--set``); values are JSON or plain text.

    A whole number may be written as people do (`attfc_train.units.parse_count`). Another ``head.kind`` keeps the margin and
    nothing else of the head; a count in images takes the place of the one in steps, and the reverse. A prediction made for
    other settings is dropped.

    Raises:
        UsageError: not an assignment, or no such setting.
        ProfileError: the result breaks a rule of the schema.
    """
    document = profile.model_dump(mode="json")
    assignments = list(assignments)
    if any(assignment.startswith("run.epochs=") for assignment in assignments):
        document["run"]["steps"] = None  # a number of steps would win over the epochs that were just asked for
    _change_head(document, assignments)
    keys = known_keys(profile, document["head"]["kind"])
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        is_part = "." in key and any(name.startswith(f"{key}.") for name in keys)
        if not equals or not (key in keys or is_part):
            raise unknown_key(key, assignment, keys)
        _assign(document, key, _value(key, text, keys))
    changed = _parsed_overrides(document, assignments, keys)
    same = _predicted_settings(changed) == _predicted_settings(profile)
    return changed if same else changed.model_copy(update={"prediction": None})


def _assign(document: dict[str, Any], key: str, value: Any) -> None:
    """Put a value in its place, and nothing into the place of the setting that says the same in another unit."""
    *sections, leaf = key.split(".")
    node: Any = document
    for section in sections:
        node = node.setdefault(section, {}) if isinstance(node, dict) else {}  # a section that is all default may be left out
    if not isinstance(node, dict):
        return  # an assignment before has put another value there, which is refused
    node[leaf] = value
    other, nothing = REPLACED.get(leaf, (leaf, None))
    if other != leaf and other in node:
        node[other] = nothing


def _value(key: str, text: str, keys: Mapping[str, Values]) -> Any:
    """Return what somebody means by `text`.

    Raises:
        ProfileError: no backbone is called so, or a group of settings is given one value.
    """
    value = _json_or_text(text)
    if key not in keys and not isinstance(value, dict):
        parts = ", ".join(name for name in keys if name.startswith(f"{key}."))
        raise ProfileError(f"--set {key} must name one of its parts", f"'{text[:60]}' for all", f"They are {parts}.")
    if key == "model.backbone" and backbone_name(text) not in BACKBONE_NAMES:
        raise ProfileError("--set model.backbone must be a known name", f"'{text[:60]}'", f"Choose {keys[key].rule}.")
    if key == "model.backbone":
        return backbone_name(text)
    if key not in keys or not keys[key].is_count or isinstance(value, int):
        return value
    try:
        return parse_count(text)
    except ValueError:
        return value


def _parsed_overrides(document: dict[str, Any], assignments: list[str], known: Mapping[str, Values]) -> TrainProfile:
    """Return the checked profile; a plan's warm-up and ramps follow another number of steps where they are not given too."""

    def parsed(changed: dict[str, Any]) -> TrainProfile:
        try:
            return _validated(changed, _OVERRIDES)
        except ValidationError as error:
            raise _refused_value(error, assignments, known, changed["head"]["kind"]) from error

    keys = [assignment.partition("=")[0] for assignment in assignments]
    steps = document["run"].get("steps")
    is_count = type(steps) is int and 1 <= steps <= MOST
    if "run.steps" not in keys or not is_count or any("ramp_" in key or "warmup_" in key for key in keys):
        return parsed(document)
    open_ended = parsed({**document, "run": {**document["run"], "steps": None}})
    return parsed(open_ended.lasting(steps).model_dump(mode="json") if open_ended.is_planned else document)


def _refused_value(error: ValidationError, assignments: list[str], known: Mapping[str, Values], kind: object) -> ProfileError:
    """Return what is wrong with the assignments, in the words of who made them.

    Args:
        kind: of the head that they ask for.
    """
    problem = error.errors(include_url=False)[0]
    place = ".".join(str(part) for part in problem["loc"] if part not in HEADS)
    given = {key: text for key, _, text in (assignment.partition("=") for assignment in assignments)}
    key = next((key for key in given if key in known and (place == key or place.startswith(f"{key}."))), None)
    if problem["type"] == "union_tag_invalid" and "head.kind" in given:
        key = "head.kind"
    if key is not None:
        rule = f"--set {key} must be {known[key].rule}"
        remedy = f"See 'attfc-train presets show {_preset_of(kind)}' for what every setting can be."
        return ProfileError(rule, f"'{given[key][:60]}'", remedy)
    rule, found, got = problem["msg"].removeprefix("Value error, ").partition(", but got ")
    where = f" in {place}" if place else ""
    # Those of the section that does not fit; data come from an option of their own, and are right.
    blamed = [name for name in given if place and name.startswith(f"{place}.")]
    blamed = blamed or [name for name in given if name not in _OPTIONS] or list(given)
    sets = ", ".join(f"--set {name}" for name in blamed)
    return ProfileError(f"settings must fit each other{where}: {rule}", got if found else "others", f"Correct {sets}.")


def _preset_of(kind: object) -> str:
    """Return the preset that shows the settings of a kind of head."""
    name = str(kind).replace("_", "-")
    return name if name in preset_names() else "attfc"


def _change_head(document: dict[str, Any], assignments: list[str]) -> None:
    """Drop the settings of the old kind of head, before any assignment, so that their order does not matter."""
    head = document["head"]
    prefix = "head.kind="
    kinds = [_json_or_text(each.removeprefix(prefix)) for each in assignments if each.startswith(prefix)]
    if kinds and kinds[-1] != head["kind"]:
        document["head"] = {"kind": kinds[-1], "margin": head["margin"]}


def _predicted_settings(profile: TrainProfile) -> tuple[object, ...]:
    """Return the settings that a prediction is about: with others it would be wrong."""
    optim = profile.optim
    augment = profile.data.augment.in_full()  # what is switched on runs for all images, however probable it is
    network = profile.model, _without_ramps(profile.head.model_dump()), profile.run.precision, profile.teacher.architecture
    return *network, optim.batch_size, optim.accumulation, augment, profile.run.gpus


def _without_ramps(head: dict[str, Any]) -> dict[str, Any]:
    """Return a head's settings but the ramps: they follow ``run.steps``, and what a step takes does not follow them."""
    kept = {key: value for key, value in head.items() if not key.endswith(("ramp_steps", "ramp_images"))}
    return {key: _without_ramps(value) if isinstance(value, dict) else value for key, value in kept.items()}


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _first_problem(error: ValidationError) -> str:
    problems = error.errors(include_url=False)
    first = problems[0]
    place = ".".join(str(part) for part in first["loc"] if part not in HEADS)
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    value = "" if isinstance(first["input"], dict) else f" with value {str(first['input'])[:60]!r}"
    where = f"{place}{value}: " if place or value else ""
    return f"{where}{first['msg'].removeprefix('Value error, ')}{more}"
