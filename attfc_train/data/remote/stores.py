"""What a place behind a URL has, asked through fsspec; the packages are loaded when a URL is first opened."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Final, Protocol, TypeVar

from attfc_train.errors import AttfcError, DataError, LostError, UsageError
from attfc_train.units import Bytes, Seconds
from attfc_train.urls import hidden, with_secrets

PAUSES: Final[tuple[Seconds, ...]] = (0.5, 1.0, 2.0, 4.0, 8.0, 8.0, 8.0)
"""Between the attempts at a request; together half a minute, and the time that the attempts themselves take."""
_TIMEOUT: Final[Seconds] = 60.0
_PATIENCE: Final[Seconds] = 200.0
"""After which no other attempt begins: less than what counts as a read that hangs (`attfc_train.data.pool`)."""
_MARKS: Final = ("ETag", "etag", "md5Hash", "content_md5", "generation", "VersionId")
"""What stores say of an object's content or version."""
_TIMES: Final = ("LastModified", "last_modified", "mtime", "updated", "created")
"""What they say of its time of writing, where they say nothing of its content."""
_MOST_CHARACTERS: Final = 160

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Info:
    """What a store says of an object."""

    is_folder: bool
    size: Bytes = 0
    version: str = ""
    """Anything that changes when the object does; empty where the store says nothing."""


class RefusedError(LostError):
    """A server does not let this user read an object."""


class WithoutPartsError(Exception):
    """A server has answered with all of an object where a part was asked for."""


class Store(Protocol):
    """Objects of one host or bucket, by URL; every call is one attempt, which raises whatever the packages raise.

    `FileNotFoundError` is that there is no such object, `PermissionError` that it may not be read.
    """

    def info(self, url: str) -> Info:
        """Return what is known of an object or a folder."""
        ...

    def files(self, url: str) -> Iterator[tuple[str, Info | None]]:
        """Yield the names of all files in a folder and in those in it, from the folder on; None: `info` has to be asked."""
        ...

    def read(self, url: str, begin: int, end: int) -> tuple[bytes, str]:
        """Return the bytes `begin` .. ``end - 1`` of an object, and the version that they are of.

        Raises:
            WithoutPartsError: the server has no parts of objects.
        """
        ...

    def read_all(self, url: str, size: Bytes, take: Callable[[bytes], object]) -> str:
        """Give an object to `take` in pieces of `size` bytes, the last one shorter; return its version."""
        ...


def attempted(url: str, call: Callable[[], Answer], wait: Callable[[Seconds], object] = time.sleep) -> Answer:
    """Return what `call` does, which is repeated after each of `PAUSES` while the connection or the server fails.

    Args:
        url: without secrets, for messages.

    Raises:
        FileNotFoundError: there is no such object.
        LostError: it may not be read, or not even the last attempt was answered.
    """
    until = time.monotonic() + _PATIENCE
    for attempt, pause in enumerate((*PAUSES, None), start=1):
        try:
            return call()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError, WithoutPartsError, AttfcError):
            raise
        except Exception as error:  # every package has exceptions of its own for a connection that is lost
            if not _may_pass(error):
                raise _refused(url, error) from None  # the cause may hold a password
            if pause is None or time.monotonic() > until:
                raise _lost(url, error, attempt) from None
            wait(pause)
    raise AssertionError("the last attempt answers or raises")


def _may_pass(error: Exception) -> bool:
    """Return whether the same request may be answered later."""
    status = _status(error)
    if status:
        return status >= 500 or status in (408, 425, 429)
    return not isinstance(error, PermissionError) and "Credentials" not in type(error).__name__


def _status(error: Exception) -> int:
    """Return the HTTP status that an exception has, if any."""
    status = getattr(error, "status", 0)
    return status if isinstance(status, int) else 0


def _refused(url: str, error: Exception) -> RefusedError:
    remedy = "Check the URL, and the credentials: see 'Beyond one machine's disk' in docs/data.md."
    return RefusedError(f"'{url}' must be readable", _words(error), remedy)


def _lost(url: str, error: Exception, attempts: int) -> LostError:
    remedy = "Check the network and the server; then give the same command again, or for a run --resume."
    return LostError(f"'{url}' must be readable", f"no answer in {attempts} attempts, last {_words(error)}", remedy)


def _words(error: Exception) -> str:
    """Return what an exception says, on one line and without secrets."""
    text = " ".join(hidden(str(error)).split())[:_MOST_CHARACTERS]
    return f"'{text}'" if text else type(error).__name__


def open_store(url: str) -> Store:
    """Return the store of a URL without secrets.

    Raises:
        UsageError: fsspec, or what it needs for this kind of URL, is not installed, or there is no such kind.
    """
    scheme = url.partition("://")[0].lower()
    fsspec = _package("fsspec", scheme)
    try:
        fs, _ = fsspec.core.url_to_fs(with_secrets(url), skip_instance_cache=True, use_listings_cache=False)
    except ImportError as error:
        raise _missing(scheme, _words(error)) from None
    except Exception as error:  # what a file system's own libraries raise where they cannot be used
        rule = "a data set's URL must be one that fsspec can open here, such as s3://, gs://, https:// or file://"
        raise UsageError(rule, f"'{url}'", f"fsspec says {_words(error)}.") from None
    if scheme in ("http", "https"):
        from attfc_train.data.remote.web import WebStore

        return WebStore(fs)
    return ObjectStore(fs)


def _package(name: str, scheme: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise _missing(scheme, f"no package {name} that is installed") from None


def _missing(scheme: str, got: str) -> UsageError:
    return UsageError(f"data behind {scheme}:// needs the packages of attfc[remote]", got, "pip install 'attfc[remote]'")


class ObjectStore:
    """Any file system of fsspec but HTTP."""

    def __init__(self, fs: Any) -> None:
        self._fs = fs
        self._limits = {"timeout": _TIMEOUT} if fs.async_impl else {}

    def info(self, url: str) -> Info:
        """Return what is known of an object or a folder; see `Store`."""
        self._fs.invalidate_cache()
        return _info(self._fs.info(self._path(url), **self._limits))

    def files(self, url: str) -> Iterator[tuple[str, Info | None]]:
        """Yield the files of a folder; see `Store`."""
        root = self._path(url).rstrip("/") + "/"
        self._fs.invalidate_cache()
        for path, details in self._fs.find(root, detail=True).items():
            yield path[len(root) :], _info(details)

    def read(self, url: str, begin: int, end: int) -> tuple[bytes, str]:
        """Return a part of an object; its version is asked for afterwards, so that it is not of an older one."""
        path = self._path(url)
        content = bytes(self._fs.cat_file(path, start=begin, end=end, **self._limits))
        return content, self.info(url).version

    def read_all(self, url: str, size: Bytes, take: Callable[[bytes], object]) -> str:
        """Give an object to `take`; see `Store`."""
        begin = 0
        info = self.info(url)
        while begin < info.size:
            take(self.read(url, begin, min(begin + size, info.size))[0])
            begin += size
        return self.info(url).version

    def _path(self, url: str) -> str:
        path: str = self._fs._strip_protocol(with_secrets(url))
        return path


def _info(details: dict[str, Any]) -> Info:
    """Return what fsspec's description of an object says.

    Raises:
        DataError: it has no size.
    """
    if details["type"] == "directory":
        return Info(is_folder=True)
    if details.get("size") is None:
        raise DataError(f"'{hidden(str(details['name']))}' must have a known size", "none", "Ask for it at another place.")
    marks = [str(details[name]) for name in _MARKS if details.get(name)]
    marks = marks or [str(details[name]) for name in _TIMES if details.get(name)]
    return Info(is_folder=False, size=int(details["size"]), version=" ".join(marks))
