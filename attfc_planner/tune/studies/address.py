"""Addresses of storages as they may be seen: without passwords, whoever wrote them how.

What is not surely harmless is hidden: a password may hold any character, and a mistyped address is no address. No optuna here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from urllib.parse import unquote

JOURNAL = "journal:"
OPTION = "--storage"
_SQLITE = "sqlite:///"
_HIDDEN = "***"
_HARMLESS = frozenset({"host", "hostaddr", "port", "dbname", "user", "sslmode", "connect_timeout", "application_name"})
"""Parameters of libpq whose values may be seen; any other name may be a mistyped ``password``."""
_SHORTEST_PART = 3
"""Parts of a password that are as long are hidden too: a server names what it took for the host."""


def shown(url: str) -> str:
    """Return an address of ``--storage`` without its password, and without parameters that may hold one."""
    if url.startswith(JOURNAL):
        return url
    if url.startswith(_SQLITE):
        path, mark, query = url.partition("?")
        return path + mark + _shown_query(query)
    scheme, separator, rest = url.partition("://")
    if not separator or not re.fullmatch(r"[\w+.-]*", scheme):
        return "..." if set(url) & set("@=") else url
    head, mark, query = rest.partition("?")
    if "@" in query:  # the password of a parameter, or one with a question mark in it
        return f"{scheme}://..."
    credentials, at, host = head.rpartition("@")
    user, colon, _ = credentials.partition(":")
    return f"{scheme}://{user}{colon and f':{_HIDDEN}'}{at}{host}{mark}{_shown_query(query)}"


def without_secrets(text: str, url: str) -> str:
    """Return what was said about an address, without what `shown` hides of it."""
    for secret in sorted(set(_secrets(url)), key=len, reverse=True):
        text = text.replace(secret, _HIDDEN)
    return text


def shown_command(arguments: Sequence[str]) -> list[str]:
    """Return the words of a command line with its address as it may be seen: so it may stand in a file."""
    words = []
    for former, word in zip(["", *arguments], arguments, strict=False):
        option, equals, value = word.partition("=")
        if option == OPTION and equals:
            words.append(f"{OPTION}={shown(value)}")
        else:
            words.append(shown(word) if former == OPTION else word)
    return words


def _shown_query(query: str) -> str:
    return "&".join(f"{name}={value if name.lower() in _HARMLESS else _HIDDEN}" for name, value in _parameters(query))


def _parameters(query: str) -> Iterator[tuple[str, str]]:
    for item in filter(None, re.split("[&;]", query)):
        name, equals, value = item.partition("=")
        yield (name, value) if equals else ("", name)


def _secrets(url: str) -> Iterator[str]:
    if url.startswith((JOURNAL, _SQLITE)):
        return
    rest = url.partition("://")[2] or url
    passwords = [rest.rpartition("@")[0].partition(":")[2]]
    passwords += [value for name, value in _parameters(rest.partition("?")[2]) if name.lower() not in _HARMLESS]
    for password in filter(None, passwords):
        for form in (password, unquote(password)):
            yield form
            yield from (part for part in re.split(r"[@:/?#&=%\s]", form) if len(part) >= _SHORTEST_PART)
