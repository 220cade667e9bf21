"""Web servers: parts of files by Range requests, folders by the links of the page that lists them.

fsspec's own file system answers "no such file" to every failure, and gives all of a file where a server knows no parts; so its
session is used, with all that the user has set for it, and the answers are read here.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Final
from urllib.parse import quote, unquote, urljoin, urlsplit

from attfc_train.data.remote.stores import Answer, Info, WithoutPartsError
from attfc_train.errors import DataError
from attfc_train.units import Bytes, Seconds
from attfc_train.urls import shorn, with_secrets

_LINK: Final = re.compile(r"<a\s[^>]*?href\s*=\s*[\"']([^\"'#?]+)[\"']", re.IGNORECASE)
_CONNECT: Final[Seconds] = 20.0
_SILENCE: Final[Seconds] = 30.0
"""Without a byte, after which a request has failed."""
_MOST_PAGE: Final[Bytes] = 2**30
_PAGE: Final = "text/html"
_PARTIAL: Final = 206
_NO_HEAD: Final = (400, 403, 405, 501)
"""Answers of servers that know no HEAD, or of URLs that are signed for GET alone."""


class WebStore:
    """Files of web servers; see `attfc_train.data.remote.stores.Store`."""

    def __init__(self, fs: Any) -> None:
        """Use the session of fsspec's HTTP file system."""
        self._fs = fs

    def info(self, url: str) -> Info:
        """Return what the server says of a file; an address that it answers under another one with a slash is a folder."""

        async def look() -> Info:
            async with await self._request("head", url) as answer:
                if answer.status not in _NO_HEAD:
                    return _info(answer, url)
            async with await self._request("get", url, {"Range": "bytes=0-0"}) as answer:
                return _info(answer, url)

        return self._sync(look)

    def files(self, url: str) -> Iterator[tuple[str, Info | None]]:
        """Yield the files that a page links to, and those of the pages below it."""
        root = url.rstrip("/") + "/"
        waiting = [root]
        while waiting:
            page = waiting.pop()
            for link in sorted(self._links(page)):
                if link.endswith("/"):
                    waiting.append(link)
                else:
                    yield unquote(link[len(root) :]), None

    def read(self, url: str, begin: int, end: int) -> tuple[bytes, str]:
        """Return a part of a file, and the version that the same answer names."""

        async def get() -> tuple[bytes, str]:
            async with await self._request("get", url, {"Range": f"bytes={begin}-{end - 1}"}) as answer:
                _check(answer, url)
                if answer.status != _PARTIAL:
                    raise WithoutPartsError  # before anything of the content is read
                return await answer.read(), _version(answer.headers)

        return self._sync(get)

    def read_all(self, url: str, size: Bytes, take: Callable[[bytes], object]) -> str:
        """Give a file to `take` in pieces; see `Store`."""

        async def get() -> str:
            async with await self._request("get", url) as answer:
                _check(answer, url)
                rest = b""
                async for piece in answer.content.iter_chunked(2**18):
                    rest += piece
                    while len(rest) >= size:
                        take(rest[:size])
                        rest = rest[size:]
                if rest:
                    take(rest)
                return _version(answer.headers)

        return self._sync(get)

    def _links(self, page: str) -> set[str]:
        """Return the URLs below a page that it links to, those of folders with a slash at their end."""

        async def get() -> tuple[str, str]:
            async with await self._request("get", page) as answer:
                _check(answer, page)
                content = await answer.content.read(_MOST_PAGE) if _is_page(answer.headers) else b""
                while content and (more := await answer.content.read(_MOST_PAGE)):
                    content += more
                return shorn(str(answer.url)), content.decode(errors="replace")

        at, text = self._sync(get)
        base = _canonical(page)
        links = {_canonical(urljoin(at, link.strip())) for link in _LINK.findall(text.replace("&amp;", "&"))}
        return {page + link[len(base) :] for link in links if link.startswith(base) and link != base and ".." not in link}

    def _sync(self, function: Callable[[], Coroutine[Any, Any, Answer]]) -> Answer:
        """Return what a coroutine does on fsspec's own loop."""
        from fsspec.asyn import sync

        answer: Answer = sync(self._fs.loop, function)
        return answer

    async def _request(self, method: str, url: str, headers: dict[str, str] | None = None) -> Any:
        """Return the context of a request with what the user has set for fsspec."""
        from aiohttp import ClientTimeout

        session = await self._fs.set_session()
        options = {**self._fs.kwargs}
        options["headers"] = {**options.get("headers", {}), "Accept-Encoding": "identity", **(headers or {})}
        options.setdefault("timeout", ClientTimeout(total=None, sock_connect=_CONNECT, sock_read=_SILENCE))
        options.setdefault("allow_redirects", True)
        return getattr(session, method)(self._fs.encode_url(with_secrets(url)), **options)


def _check(answer: Any, url: str) -> None:
    """Raise what an answer's status says.

    Raises:
        FileNotFoundError, PermissionError, aiohttp.ClientResponseError.
    """
    if answer.status in (404, 410):
        raise FileNotFoundError(url)
    if answer.status in (401, 403):
        raise PermissionError(f"{answer.status} {answer.reason}")
    answer.raise_for_status()


def _info(answer: Any, url: str) -> Info:
    """Return what the head of an answer says.

    Raises:
        DataError: it does not say the size.
    """
    _check(answer, url)
    headers = answer.headers
    if str(answer.url.path).endswith("/"):
        return Info(is_folder=True)
    total = headers.get("Content-Range", "").rpartition("/")[2]
    size = total if total.isdigit() else headers.get("Content-Length", "")
    if not size.isdigit():
        raise DataError(f"the server must say the size of '{url}'", "none", "Get it from another server, or copy it here.")
    return Info(is_folder=False, size=int(size), version=_version(headers))


def _version(headers: Any) -> str:
    return str(headers.get("ETag") or headers.get("Last-Modified") or "")


def _is_page(headers: Any) -> bool:
    return str(headers.get("Content-Type", _PAGE)).startswith(_PAGE)


@functools.lru_cache(maxsize=4096)
def _canonical(url: str) -> str:
    """Return a URL with one way to write its path, to compare it with others."""
    pieces = urlsplit(url)
    return f"{pieces.scheme}://{pieces.netloc.rpartition('@')[2]}{quote(unquote(pieces.path))}"
