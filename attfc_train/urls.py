"""URLs of data, without their secrets: a user's name and password in front of the host, and everything behind a question mark.

What names data is kept, shown, logged and copied, so a secret is taken out where it enters: from the command line, and from
profiles. It stays in this process's environment, for it and for the processes that it starts, and nowhere else.
"""

from __future__ import annotations

import json
import os
import re
from typing import Any, Final, NamedTuple
from urllib.parse import quote, unquote, unquote_plus

SECRETS: Final = "ATTFC_URL_SECRETS"
"""Environment variable: JSON list of [URL without secrets, user's name and password, query]."""
_URL: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^\s\"'<>]+)")
_WHOLE: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.+)", re.DOTALL)
_ASSIGNED: Final = re.compile(r"--?[\w-]+=|[\w.]+=", re.ASCII)
"""Stands in front of a URL: ``--data=``, ``data.path=``."""
_PART: Final = re.compile(r"@\d{1,12}:\d{1,12}$", re.ASCII)
_HOST: Final = re.compile(
    r"(?:(?P<sure>\[[0-9A-Fa-f:.]+\]|localhost|(?:\d{1,3}\.){3}\d{1,3}|\w[\w-]*(?:\.[\w-]+)*\.[A-Za-z][\w-]*)|[A-Za-z][\w-]*)"
    r"(?::\d{1,5})?(?=[/?#]|$)",
    re.ASCII,
)
"""A host and its port; `sure`: an address, or a name with a point in it."""
_SURE: Final = 2
_FILE: Final = re.compile(
    r"\.(?:rec|tar|parquet|lmdb|mdb|subset|mapping|txt|lst|bin|jpe?g|png|webp|bmp|json|onnx)$", re.IGNORECASE
)
"""Ends what looks like a name with a point in it, and is a file: ``faces@v2.tar``."""
_TO_ENCODE: Final = re.compile(r"[/?#@\[\]\\\s]")
"""What a name or password holds in its encoded form only, so that every library reads the URL alike."""
_SHORTEST: Final = 6
"""Characters of a value in a query that is taken for a secret by itself: ``a=1`` says nothing of the ``1`` in other texts."""
_DATABASES: Final = re.compile(r"postgres|mysql|mariadb|sqlite|oracle|mssql|cockroach|redis|journal", re.IGNORECASE)
"""Schemes of ``--storage``, whose passwords `attfc_planner.tune.studies.address` hides."""


class _Url(NamedTuple):
    """A URL in pieces."""

    scheme: str
    user: str
    """``NAME:PASSWORD``."""
    place: str
    """``HOST:PORT/PATH``."""
    query: str
    part: str
    """``@FIRST:STOP`` of a data set."""

    @property
    def clean(self) -> str:
        """The URL without secrets."""
        return f"{self.scheme}://{self.place}{self.part}"


def shorn(url: str) -> str:
    """Return a URL, or a text with URLs in it, without secrets; these are an answer's, not the user's, and are not kept."""
    return _URL.sub(lambda found: _pieces(found[1], found[2]).clean, url)


def is_url(spec: str) -> bool:
    """Return whether a spec names data by a URL: ``s3://bucket/faces.rec``."""
    return _WHOLE.match(spec) is not None


def without_secrets(text: str) -> str:
    """Return a URL, or a text with URLs in it, without their secrets, which are kept for `with_secrets`."""
    whole = _WHOLE.fullmatch(text)
    if whole is not None:
        return _clean(whole)
    assigned = _ASSIGNED.match(text)
    if assigned is not None:
        return assigned[0] + without_secrets(text[assigned.end() :])
    try:  # a list of data sets, perhaps with a part behind it, or a quoted text
        value, end = json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        return _URL.sub(_clean, text)
    cleaned = _value_without_secrets(value)
    written = text[:end] if cleaned == value else json.dumps(cleaned, ensure_ascii=False)
    return written + _URL.sub(_clean, text[end:])


def _value_without_secrets(value: Any) -> Any:
    """Return a value of JSON, every text in it without secrets: there a URL ends where the text ends, whatever is in it."""
    if isinstance(value, list):
        return [_value_without_secrets(each) for each in value]
    if isinstance(value, dict):
        return {key: _value_without_secrets(each) for key, each in value.items()}
    return without_secrets(value) if isinstance(value, str) else value


def with_secrets(url: str) -> str:
    """Return a URL without secrets with those that were taken from it, or from the one that is likest of the same host."""
    wanted = _pieces(*url.split("://", 1))
    host = wanted.place.partition("/")[0]
    of_host = [
        (_common(clean, wanted.clean), user, query)
        for clean, user, query in _kept()
        if clean.startswith((f"{wanted.scheme}://{host}/", f"{wanted.scheme}://{host}?"))
        or clean == f"{wanted.scheme}://{host}"
    ]
    if not of_host:
        return url
    _, user, query = max(of_host)
    user = _encoded(user)
    return f"{wanted.scheme}://{f'{user}@' if user else ''}{wanted.place}{wanted.part}{f'?{query}' if query else ''}"


def _encoded(user: str) -> str:
    """Return a name and password as they may stand in a URL."""
    return _TO_ENCODE.sub(lambda found: quote(found[0], safe=""), user)


def _common(one: str, other: str) -> int:
    """Return how many characters two texts begin with alike."""
    return next((place for place, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]), len(one))


def hidden(text: str) -> str:
    """Return a foreign text without any secret of a URL, however it is quoted or decoded in it."""
    for _, user, query in _kept():
        for secret in _written_forms(user, query):
            text = text.replace(secret, "***")
    return shorn(text)


def _written_forms(user: str, query: str) -> list[str]:
    """Return all that may stand for a URL's secrets in a text, the longest first, so that no rest of one is left."""
    values = [value for word in query.split("&") if len(value := word.partition("=")[2]) >= _SHORTEST]
    words = [user, user.partition(":")[2], query, *values]
    forms = {form for word in words for form in (word, unquote(word), unquote_plus(word), _encoded(word)) if form}
    return sorted(forms, key=len, reverse=True)


def _clean(found: re.Match[str]) -> str:
    """Return a URL without its secrets, which are kept."""
    if _DATABASES.match(found[1]):
        return found[0]
    pieces = _pieces(found[1], found[2])
    if pieces.user or pieces.query:
        _keep([f"{pieces.scheme}://{pieces.place}", pieces.user, pieces.query])
    return pieces.clean


def _pieces(scheme: str, rest: str) -> _Url:
    """Return the pieces of a URL; what may be a password is taken for one, however it is written."""
    part = _PART.search(rest)
    # In ``https://name@10:80`` the end looks like a part, but a part stands behind a path.
    if part is not None and "/" not in rest[: part.start()]:
        part = None
    rest = rest if part is None else rest[: part.start()]
    end = _end_of_user(rest)
    user = rest[: max(end, 0)]
    place, mark, query = rest[end + 1 :].partition("?")
    place, hash_mark, fragment = place.partition("#") if scheme.startswith("http") else (place, "", "")
    return _Url(scheme, user, place, query if mark else fragment if hash_mark else "", "" if part is None else part[0])


def _end_of_user(rest: str) -> int:
    """Return where the ``@`` behind a user's name and password is; -1: there are none.

    By the standard it is the last one in front of the first slash. Where a password holds a slash or an ``@``, a later one is:
    of all that may be it, those count that are followed by what looks most like a host, and of these the last.
    """
    authority = rest.partition("/")[0]
    own = authority.rfind("@")
    likeness = _likeness(rest, own + 1)
    if ":" not in authority or (own >= 0 and likeness and ":" not in authority[:own]):
        return own  # no password
    if own < 0 and likeness == _SURE:  # HOST:PORT
        return own
    query = rest.find("?")
    places = [place for place in range(own + 1, len(rest)) if rest[place] == "@"]
    if likeness and query >= 0:  # what stands in NAME=VALUE of a query is none of them
        places = [place for place in places if "=" not in rest[query:place]]
    later = max(places, key=lambda place: (_likeness(rest, place + 1), place), default=own)
    return later if _likeness(rest, later + 1) >= likeness else own


def _likeness(rest: str, begin: int) -> int:
    """Return how much the text from a place on looks like a host, with a port or without, and a path behind it: 0, 1 or 2."""
    found = _HOST.match(rest, begin)
    if found is None or (found.end() == len(rest) and _FILE.search(found[0])):
        return 0
    return _SURE if found["sure"] else 1


def _kept() -> list[list[str]]:
    """Return the secrets that this process has been given."""
    try:
        kept = json.loads(os.environ.get(SECRETS, "[]"))
        return [[str(word) for word in entry] for entry in kept if len(entry) == 3]
    except (ValueError, TypeError):  # the user's own variable of that name
        return []


def _keep(entry: list[str]) -> None:
    others = [other for other in _kept() if other[0] != entry[0]]
    os.environ[SECRETS] = json.dumps([*others, entry])
