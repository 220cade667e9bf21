"""The file that stood where a profile is written: kept where somebody would miss it.

What says the same but for its provenance is not missed, nor is a plan just as it was written that answers the same command. Of
plans as they were written that answer other commands the last is kept, as ``best.json.former``. All else, a file that somebody
has edited or a tuning of hours, is kept under a name that nothing takes from it.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from pathlib import Path
from typing import Any

from attfc_train.errors import ProfileError
from attfc_train.files import keep_under, write_text_atomically, written_file
from attfc_train.profile.file import read_json
from attfc_train.profile.profile import TrainProfile

_ORIGIN = "provenance"
_DIGEST = "digest"


def replace_profile(profile: TrainProfile, path: Path) -> Path | None:
    """Write `profile` as `save_profile` does, with the digest of its content, and keep another file that was there.

    Returns:
        Where the former file is, such as ``best.json.former``; None: there was none, or one that nobody misses.
    """
    target = written_file(path)
    text = signed(profile).model_dump_json(indent=2) + "\n"
    former = None
    if target.is_file() and not _answers_the_same(_document(target), json.loads(text)):
        former = _name_for(target)
        keep_under(target, former)
    write_text_atomically(target, text)
    return former


def signed(profile: TrainProfile) -> TrainProfile:
    """Return the profile with the digest of its content in its provenance; as it is without one."""
    if profile.provenance is None:
        return profile
    digest = _digest(profile.model_dump(mode="json"))
    return profile.model_copy(update={_ORIGIN: profile.provenance.model_copy(update={_DIGEST: digest})})


def former_words(former: Path | None) -> str:
    """Return what follows the name of a file that `replace_profile` has written."""
    return "" if former is None else f"; the former one is {former}"


def _name_for(target: Path) -> Path:
    """Return the name under which a file is kept: the first that is free, or holds what its command makes again."""
    names = (target.with_name(f"{target.name}.former{'' if number == 1 else number}") for number in itertools.count(1))
    same = target.read_bytes()
    return next(name for name in names if not name.exists() or name.read_bytes() == same or _can_be_made_again(_document(name)))


def _answers_the_same(former: Any, document: dict[str, Any]) -> bool:
    """Return whether nobody misses a former file: the new one has the same content, or is another answer to one command."""
    if _without_origin(former) == _without_origin(document):
        return True
    return _can_be_made_again(former) and former[_ORIGIN].get("command") == (document[_ORIGIN] or {}).get("command")


def _can_be_made_again(document: Any) -> bool:
    """Return whether a file is a plan as it was written; what a tuning has measured nobody makes again in seconds."""
    origin = document.get(_ORIGIN) if isinstance(document, dict) else None
    search = document.get("search") if isinstance(document, dict) else None
    trained = isinstance(search, dict) and bool(search.get("trainings"))
    return isinstance(origin, dict) and not trained and origin.get(_DIGEST) == _digest(document)


def _document(path: Path) -> Any:
    """Return what a file of JSON says; None where it is none."""
    try:
        return read_json(path)
    except ProfileError:
        return None


def _without_origin(document: Any) -> Any:
    return {key: value for key, value in document.items() if key != _ORIGIN} if isinstance(document, dict) else document


def _digest(document: Any) -> str:
    """Return a digest of a profile's content, its provenance left out; layout and order of keys do not matter."""
    content = json.dumps(_without_origin(document), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(content.encode()).hexdigest()[:32]
