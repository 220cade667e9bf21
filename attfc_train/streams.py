"""The standard streams, made so that nothing which happens to them can end a command; and text that is safe to show.

A closed pipe, a full disk and a terminal that is gone lose what was to be shown and nothing else. A stream whose encoding lacks
a character gets a plain one in its place (`plain`), and control characters of foreign names are shown, not sent (`printable`).
"""

from __future__ import annotations

import codecs
import contextlib
import errno
import io
import os
import re
import select
import shlex
import sys
from collections.abc import Iterable
from functools import partial
from typing import Any

HANDLER = "attfc-plain"
"""The name under which `plain` is registered as an error handler of encodings."""
_PLAIN = {
    **dict.fromkeys("─━╌╴╶╸╺═−–—", "-"),
    **dict.fromkeys("│┃║", "|"),
    **dict.fromkeys("╱", "/"),
    **dict.fromkeys("▁▂▃░", "."),
    **dict.fromkeys("▄▅▒", ":"),
    **dict.fromkeys("▆▇█▓", "#"),
    **dict.fromkeys("‘’", "'"),
    **dict.fromkeys("“”", '"'),
    "▲": "^",
    "•": "*",
    "·": ".",
    "×": "x",
    "…": "...",
    "→": "->",
    "±": "+-",
    "²": "2",
    "µ": "u",
    "\xa0": " ",
}
_DRAWN = {range(0x2500, 0x2580): "+", range(0x2580, 0x25A0): "#", range(0x25A0, 0x2600): "*", range(0x2800, 0x2900): "*"}
"""What is drawn in place of the other characters for boxes, blocks, figures and dots."""
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufffe\uffff]")
"""Everything that moves a terminal's cursor, changes its state or the direction of its text, but for tab and new line."""
_GONE = {errno.EPIPE, errno.EIO, errno.EBADF, errno.ENXIO}
"""The reader has left, or the terminal: nobody misses what is not shown."""


def printable(text: str) -> str:
    r"""Return `text` with its control characters as escapes such as ``\x1b``; tabs and new lines stay."""
    return _CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def plain(text: str) -> str:
    r"""Return `text` in ASCII: boxes and signs as plain characters, everything else as an escape such as ``\xe9``."""
    return "".join(map(_plain_character, text))


def _plain_character(character: str) -> str:
    if character.isascii():
        return character
    if character in _PLAIN:
        return _PLAIN[character]
    drawn = (plain for places, plain in _DRAWN.items() if ord(character) in places)
    return next(drawn, character.encode("ascii", "backslashreplace").decode("ascii"))


def _replace(error: UnicodeError) -> tuple[str, int]:
    """Replace what an encoding lacks; an error handler of `codecs`."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return plain(error.object[error.start : error.end]), error.end


codecs.register_error(HANDLER, _replace)


def typed(words: Iterable[str]) -> str:
    r"""Return a command to type in a shell; of a word that stdout cannot show the bytes are named: ``$'caf\xc3\xa9'``."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return " ".join(map(partial(_quoted, encoding=encoding), words))


def _quoted(word: str, encoding: str) -> str:
    try:
        word.encode(encoding)
        if printable(word) == word:
            return shlex.quote(word)
    except UnicodeEncodeError:
        pass
    # The shell's ANSI-C quotes; an escape ends after two digits, so that what follows is not taken for a part of it.
    named = (chr(byte) if 32 <= byte < 127 and byte not in b"'\\" else f"\\x{byte:02x}" for byte in os.fsencode(word))
    return f"$'{''.join(named)}'"


class LastingFile(io.RawIOBase):
    """A file descriptor to which every write succeeds; `lost` is the last error that kept one from being carried out."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self.lost: OSError | None = None
        self._descriptor = descriptor

    def writable(self) -> bool:
        """Override `io.RawIOBase`."""
        return True

    def fileno(self) -> int:
        """Override `io.RawIOBase`."""
        return self._descriptor

    def isatty(self) -> bool:
        """Override `io.RawIOBase`."""
        return os.isatty(self._descriptor)

    def write(self, data: Any, /) -> int:
        """Write some of `data`, and return how much of it is done with."""
        while True:
            try:
                return os.write(self._descriptor, data)
            except BlockingIOError:  # another program has made the terminal or pipe, which they share, non-blocking
                select.select([], [self._descriptor], [])
            except OSError as error:
                self.lost = error
                return memoryview(data).nbytes


def guard_streams() -> None:
    """Let stdout and stderr of this process be `LastingFile`s, and open those that are closed.

    A stream that somebody has put in the place of the system's, such as a test, only gets `HANDLER`.
    """
    _open_missing()
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if not isinstance(stream, io.TextIOWrapper):
            continue
        with contextlib.suppress(OSError, ValueError):  # the device is full, or the stream was closed
            stream.reconfigure(errors=HANDLER)
            if stream.fileno() == descriptor:
                setattr(sys, name, _lasting(stream, descriptor))


def _lasting(stream: io.TextIOWrapper, descriptor: int) -> io.TextIOWrapper:
    file = io.BufferedWriter(LastingFile(descriptor))
    return io.TextIOWrapper(file, stream.encoding, HANDLER, line_buffering=stream.line_buffering)


def _open_missing() -> None:
    """Open the null device where a standard stream is closed: else the next file, such as a checkpoint, would become it."""
    if None not in (sys.stdin, sys.stdout, sys.stderr):
        return
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, mode, encoding="utf-8", closefd=False))


def lost_output() -> str | None:
    """Return why some of stdout could not be written; None: it was, or nobody was there to read it."""
    buffer = getattr(sys.stdout, "buffer", None)
    file = getattr(buffer, "raw", None)
    if not isinstance(file, LastingFile):
        return None
    sys.stdout.flush()
    return None if file.lost is None or file.lost.errno in _GONE else file.lost.strerror
