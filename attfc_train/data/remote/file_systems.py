"""Opens the store behind a URL with fsspec, whose packages are loaded when a URL is first opened."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any, Final

from attfc_train.data.remote.stores import Info, Store, words_of
from attfc_train.data.remote.web import WebStore
from attfc_train.errors import DataError, UsageError
from attfc_train.units import Bytes, Seconds
from attfc_train.urls import hidden, with_secrets

_TIMEOUT: Final[Seconds] = 60.0
_MARKS: Final = ("ETag", "etag", "md5Hash", "content_md5", "generation", "VersionId")
"""What stores say of an object's content or version."""
_TIMES: Final = ("LastModified", "last_modified", "mtime", "updated", "created")
"""What they say of its time of writing, where they say nothing of its content."""


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
        raise _missing(scheme, words_of(error)) from None
    except Exception as error:  # what a file system's own libraries raise where they cannot be used
        rule = "a data set's URL must be one that fsspec can open here, such as s3://, gs://, https:// or file://"
        raise UsageError(rule, f"'{url}'", f"fsspec says {words_of(error)}.") from None
    if scheme in ("http", "https"):
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
        path: str = self._fs._strip_protocol(url)  # a user's name and password are in the file system, where it takes any
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
    # Only the first: a listing may say more of an object than a question for it, or less.
    marks = [details[name] for name in (*_MARKS, *_TIMES) if details.get(name)]
    return Info(is_folder=False, size=int(details["size"]), version=_text(marks[0]) if marks else "")


def _text(mark: Any) -> str:
    """Return a mark as text: a time, which one answer may have as a number and the other as an object, as milliseconds."""
    seconds = mark.timestamp() if hasattr(mark, "timestamp") else mark
    return f"{seconds:.3f}" if isinstance(seconds, float) else str(seconds)
