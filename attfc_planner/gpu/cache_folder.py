"""The folder for what is slow to find out again, `$ATTFC_CACHE_DIR`, else `~/.cache/attfc`, and the form of what lies in it.

A file is JSON with a digest of itself, written in one step. Whatever else is found there counts as missing: nothing in it is
executed, and a flipped bit is not believed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from attfc_train.files import open_file, own_cache_folder, write_atomically

Kept = TypeVar("Kept")
_DIGEST = "sha256"
_VALUE = "value"


def make_private(folder: Path) -> None:
    """Make a folder that only its owner may look into, where there is none; one that the user made keeps its rights.

    Raises:
        OSError: it cannot be made.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder == own_cache_folder() and folder.stat().st_mode & 0o077:  # made by the first release, which anybody could read
        with suppress(OSError):
            folder.chmod(0o700)


def write_kept(path: Path, document: Any, pack: Callable[[bytes], bytes] = bytes) -> None:
    """Replace what `path` holds by a JSON document with its digest.

    Args:
        pack: makes the file's bytes of JSON text.

    Raises:
        StorageError: the folder cannot be written.
    """
    with suppress(OSError):  # the write reports it
        make_private(path.parent)
    content = pack(json.dumps({_DIGEST: _digest(document), _VALUE: document}).encode())
    write_atomically(path, lambda file: file.write(content))


def read_kept(path: Path, decode: Callable[[Any], Kept], unpack: Callable[[bytes], bytes] = bytes) -> Kept | None:
    """Return what `decode` makes of the document at `path`; None where that is missing or not what was written there.

    Args:
        decode: may raise anything: what cannot be decoded counts as missing.
        unpack: the inverse of the writer's `pack`.
    """
    try:
        with open_file(path) as file:
            document = json.loads(unpack(file.read()))
        value = document[_VALUE]
        return decode(value) if document[_DIGEST] == _digest(value) else None
    except Exception:  # there is hardly an exception that damaged bytes do not raise, and all of them mean the same
        return None


def _digest(document: Any) -> str:
    # Numbers and text are written as they were read, and keys stay in their order: equal documents have equal texts.
    return hashlib.sha256(json.dumps(document, separators=(",", ":")).encode()).hexdigest()
