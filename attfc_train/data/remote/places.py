"""Where remote data stand on the local disk: every URL has one path in the cache folder, and the other way round.

``https://host:80/faces/train.rec`` is ``CACHE/remote/https/host:80/faces/train.rec``: a file as long as the object, whose bytes
are holes, and whose time of writing is a number made of the object's version. Nobody may read it by its rights, so what asks
for its bytes in another way than `attfc_train.data.reading` is an error and not zeros.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Final
from urllib.parse import quote, unquote

from attfc_train.cache_folder import cache_folder
from attfc_train.errors import UsageError
from attfc_train.units import Bytes
from attfc_train.urls import without_secrets

_FOLDER: Final = "remote"
_WEB: Final = ("http", "https")
_MARK_BITS: Final = 60
"""A time of writing is below 2**60 nanoseconds, in the year 2006: every file system holds it."""
NO_RIGHTS: Final = 0

_roots: set[str] = set()
"""Folders that places of this process lie in: while there is none, no path has to be looked at."""


def remote_folder() -> Path:
    """Return the folder with everything that is of remote data: places by their scheme, and blocks."""
    return Path(os.path.abspath(cache_folder())) / _FOLDER


def place_of(url: str) -> Path:
    """Return the path that stands for a URL without secrets.

    Raises:
        UsageError: it names no host or bucket, or leads out of it.
    """
    scheme, _, rest = url.partition("://")
    scheme = scheme.lower()
    names = [unquote(name) if scheme in _WEB else name for name in rest.split("/")]
    names = [name for place, name in enumerate(names) if name or place == 0]
    if (not names[0] and scheme in _WEB) or not any(names) or any(name in (".", "..") or "/" in name for name in names):
        raise UsageError(
            "a URL must name a host or bucket and a place in it", f"'{url}'", "Example: s3://bucket/faces/train.rec."
        )
    root = remote_folder()
    _roots.add(f"{root}{os.sep}")
    return root.joinpath(scheme, *(name for name in names if name))


def is_place(path: Path) -> bool:
    """Return whether a path is that of a URL which this process has asked for."""
    return bool(_roots) and str(path).startswith(tuple(_roots))


def stands_for_object(path: Path) -> bool:
    """Return whether a file has no bytes of its own, but stands for an object; False where there is no file."""
    if not is_place(path):
        return False
    try:
        return path.lstat().st_mode & 0o777 == NO_RIGHTS
    except OSError:
        return False


def url_of(path: Path) -> str | None:
    """Return the URL, without secrets, that a path stands for; None where it stands for none."""
    root = f"{remote_folder()}{os.sep}"
    absolute = os.path.abspath(path)
    if not absolute.startswith(root):
        return None
    scheme, _, rest = absolute[len(root) :].partition(os.sep)
    return f"{scheme}://{quote(rest, safe='/:[]@') if scheme in _WEB else rest}" if rest else None


def with_urls(text: str) -> str:
    """Return a text for people with URLs in the place of the paths that stand for them."""
    for root in _roots:
        first, *others = text.split(root)
        text = first + "".join(other.replace(os.sep, "://", 1) for other in others)
    return text


def mark_of(version: str, size: Bytes) -> int:
    """Return the time of writing, in nanoseconds, that stands for the version of an object."""
    digest = hashlib.blake2b(f"{size} {version}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") & ((1 << _MARK_BITS) - 1)


def clean_url(spec: str) -> str:
    """Return a URL without secrets and without a slash at its end."""
    return without_secrets(spec).rstrip("/")
