"""Looks up what a URL names, and lets files of the same sizes stand for it on the local disk, so that formats find their parts.

Listing is all that happens here: nothing of the content is read. A file keeps its place as long as the object is the same; what
formats write beside it, such as an index, stays with it.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from attfc_train.data.pool import DecodePool
from attfc_train.data.progress import tell
from attfc_train.data.remote.objects import store_of
from attfc_train.data.remote.places import NO_RIGHTS, clean_url, mark_of, place_of, remote_folder, stands_for_object, url_of
from attfc_train.data.remote.stores import Info, RefusedError, attempted
from attfc_train.data.unreadable import LostError
from attfc_train.errors import DataError
from attfc_train.units import Seconds

FRESH: Final[Seconds] = 20.0
"""One opening asks for the same place many times."""
_AT_ONCE: Final = 16
_TOLD_EVERY: Final = 1000
_BESIDE: Final = {".rec": (".idx", ".IDX", ".Idx"), ".lmdb": ("_kv.txt", ".txt"), ".mdb": ("_kv.txt", ".txt")}
"""Ending -> what belongs to it in the same folder, in the place of the ending."""
_LISTS: Final = (".txt", ".lst")
_INSIDE: Final = ("train.rec", "train.idx", "train.REC", "data.mdb")
"""Looked for in a folder that a server does not list."""

_mirrored: dict[str, tuple[Seconds, Path | None]] = {}
_lock = threading.RLock()


def mirrored(spec: str) -> Path | None:
    """Return the path that stands for what a URL names, with all that belongs to it; None where there is nothing.

    Raises:
        UsageError: a package is missing, or there is no such kind of URL.
        LostError: the server does not answer, or refuses.
        DataError: a file has no known size.
    """
    url = clean_url(spec)
    if url.lower().startswith("file://"):
        local = Path(unquote(urlsplit(url).path))
        return local if local.exists() else None
    with _lock:
        since, path = _mirrored.get(url, (-FRESH, None))
        # A path is believed for a while; that there is nothing, not at all.
        if path is None or time.monotonic() - since > FRESH or not path.exists():
            path = _looked_up(url)
            _mirrored[url] = (time.monotonic(), path)
        return path


def forget() -> None:
    """Look up again what has been looked up just now."""
    with _lock:
        _mirrored.clear()


def are_there(paths: Sequence[Path]) -> list[bool]:
    """Return which of the files that paths stand for are there, as far as that is not known yet."""
    unknown = [path for path in paths if not os.path.lexists(path)]
    with DecodePool(_AT_ONCE) as pool:
        pool.map(_place_file, unknown)
    return [path.is_file() for path in paths]


def _looked_up(url: str) -> Path | None:
    path = place_of(url)
    try:
        info = _info(url)
    except RefusedError:
        if _fill_known(url, path):
            return path
        raise
    if info is None:
        return path if _fill_known(url, path) else None
    if info.is_folder:
        _fill(url, path)
    else:
        _place(path, info)
    endings = _BESIDE.get(path.suffix.lower(), ())
    is_in_host = "/" in url.partition("://")[2]
    for ending in endings if is_in_host else ():
        _place_file(path.with_name(path.stem + ending))
    if path.suffix.lower() in _LISTS and not url.lower().startswith("http"):
        _fill(url.rpartition("/")[0], path.parent)  # one listing of the images, in the place of a question each
    return path


def _info(url: str) -> Info | None:
    """Return what a store says of a URL; None where there is nothing."""
    store = store_of(url)
    try:
        return attempted(url, lambda: store.info(url))
    except (FileNotFoundError, NotADirectoryError):
        return None


def _fill(url: str, folder: Path) -> None:
    """Let files stand for all that a store lists in a folder; what is not there any more goes.

    Raises:
        LostError: the server does not list it, nor has it one of the usual files.
    """
    store = store_of(url)
    try:
        listed = attempted(url, lambda: list(store.files(url)))
    except (FileNotFoundError, RefusedError) as error:
        if _fill_known(url, folder):
            return
        if isinstance(error, RefusedError):
            raise
        rule = f"the server must list what is in '{url}'"
        raise DataError(rule, "no list", "Give the URL of a file in it, or use a server that lists folders.") from None
    folder.mkdir(parents=True, exist_ok=True)
    places = {str(folder / name): info for name, info in listed if _is_plain(name)}
    for done, (place, info) in enumerate(places.items()):
        if info is not None:
            _place(Path(place), info)
        if done % _TOLD_EVERY == 0:
            tell("listing the objects", done, len(places))
    with DecodePool(_AT_ONCE) as pool:
        pool.map(_place_file, [Path(place) for place, info in places.items() if info is None])
    _remove_others(folder, set(places))


def _fill_known(url: str, folder: Path) -> bool:
    """Look for the usual files of a folder that is not listed; return whether there is one."""
    if folder.suffix.lower() not in ("", ".lmdb"):
        return False
    infos = {name: _info(f"{url}/{name}") for name in _INSIDE}
    for name, info in infos.items():
        if info is not None and not info.is_folder:
            _place(folder / name, info)
    return any(info is not None for info in infos.values())


def _is_plain(name: str) -> bool:
    """Return whether a name from a store leads to a place in its folder."""
    return bool(name) and "\0" not in name and not any(part in ("", ".", "..") for part in name.split("/"))


def _place_file(path: Path) -> None:
    """Let a file stand for the object of a path, if there is one that may be seen."""
    url = url_of(path)
    assert url is not None, "a path in the remote folder"
    try:
        info = _info(url)
    except RefusedError:
        info = None  # a store that does not let its folders be listed refuses what is not there
    if info is not None and not info.is_folder:
        _place(path, info)
    elif os.path.lexists(path) and stands_for_object(path):
        path.unlink(missing_ok=True)


def _place(path: Path, info: Info) -> None:
    """Let a file stand for an object; what was made of a former version goes.

    Raises:
        LostError: the cache folder cannot be written to.
    """
    mark = mark_of(info.version, info.size)
    try:
        if os.path.lexists(path):
            status = path.stat()
            if (status.st_size, status.st_mtime_ns) == (info.size, mark) and stands_for_object(path):
                return
            _remove_made_of(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name[:200]}.{os.getpid()}.{threading.get_ident()}.tmp")
        with open(temporary, "wb") as file:
            file.truncate(info.size)
            os.fchmod(file.fileno(), NO_RIGHTS)
        os.utime(temporary, ns=(mark, mark))
        os.replace(temporary, path)
    except OSError as error:
        rule = f"the cache folder '{remote_folder()}' must be writable"
        raise LostError(
            rule, error.strerror or "an error", "Free disk space, or set ATTFC_CACHE_DIR to another folder."
        ) from error


def _remove_made_of(path: Path) -> None:
    """Remove what formats wrote beside a file of a former version: an index of its name that is no object."""
    for other in (path.with_suffix(ending) for ending in _BESIDE[".rec"]):
        if path.suffix.lower() == ".rec" and other.exists() and not stands_for_object(other):
            other.unlink()


def _remove_others(folder: Path, kept: set[str]) -> None:
    """Remove the files that stand for objects which are not there any more, and empty folders."""
    for inner, _, names in os.walk(folder, topdown=False):
        for name in names:
            path = Path(inner, name)
            with suppress(OSError):
                if str(path) not in kept and stands_for_object(path):
                    path.unlink()
        with suppress(OSError):
            if inner != str(folder):
                os.rmdir(inner)
