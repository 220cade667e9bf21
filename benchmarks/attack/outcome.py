"""What came of an input: refused as promised, taken as it should be, or a failure of a named kind."""

from __future__ import annotations

import contextlib
import io
import os
import re
import resource
import signal
import stat
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from types import FrameType
from typing import Any, Literal

from attfc_train.errors import AttfcError, UnexpectedError

Kind = Literal["refused", "same", "said", "other", "traceback", "hang", "silent", "memory", "noise", "words", "crash"]
RIGHT: tuple[Kind, ...] = ("refused", "same", "said", "other")
"""``same``: as without the damage; ``said``: something was passed over, and a line says so; ``other``: another input that is
valid by itself, which nothing in its format tells from damage."""
HANG_SECONDS = 10.0
MOST_GROWTH = 2**30
"""Bytes of memory that an input of a few kilobytes may take."""
_LINE = re.compile(r"error: .+, but got .+\. .+", re.DOTALL)
_MOST_CHARACTERS = 1200
HIDDEN = (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning)
"""Warnings that Python shows to developers only."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of one case."""

    kind: Kind
    detail: str = ""
    """Of a failure: the exception with its innermost places, or what is silent."""

    @property
    def is_right(self) -> bool:
        """Whether this is as it should be."""
        return self.kind in RIGHT

    def document(self) -> dict[str, str]:
        """Return the outcome as JSON."""
        return asdict(self)


class Silent(Exception):
    """A judge's verdict: damage was taken without a word."""


class Hang(BaseException):
    """The time for a case is over."""


@contextlib.contextmanager
def time_limit(seconds: float = HANG_SECONDS) -> Iterator[None]:
    """Raise `Hang` in the main thread where the block takes longer."""

    def end(_number: int, _frame: FrameType | None) -> None:
        raise Hang

    former = signal.signal(signal.SIGALRM, end)
    # Again and again: product code may take the first for an exception of the input's.
    signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)


def observe(use: Callable[[], Any], judge: Callable[[Any], Kind], refusals: tuple[type[AttfcError], ...]) -> Outcome:
    """Call `use` as the command line would, and judge what it returns.

    Args:
        judge: returns the kind of what was taken; raises `Silent`.
        refusals: the errors that this input may end in.
    """
    before = _peak()
    written = _written()
    try:
        with time_limit(), warnings.catch_warnings(record=True) as noise:
            warnings.simplefilter("always")
            outcome = _judged(use, judge, refusals)
    except Hang:
        return Outcome("hang", _places())
    shown = [str(warning.message) for warning in noise if not issubclass(warning.category, HIDDEN)]
    if outcome.is_right and shown:
        return Outcome("noise", shown[0][:_MOST_CHARACTERS])
    if outcome.is_right and _written() > written:
        return Outcome("noise", "lines on stderr that no command writes there")
    grown = _peak() - before
    if outcome.is_right and grown > MOST_GROWTH:
        return Outcome("memory", f"{grown >> 20} MiB")
    return outcome


def _judged(use: Callable[[], Any], judge: Callable[[Any], Kind], refusals: tuple[type[AttfcError], ...]) -> Outcome:
    try:
        result = use()
    except Hang:
        raise
    except AttfcError as error:
        return _refused(error, refusals)
    except MemoryError:
        return Outcome("memory", _places())
    except BaseException:  # what a command's last handler would meet
        return Outcome("traceback", _places())
    signal.setitimer(signal.ITIMER_REAL, 0)  # a judge may take its time
    try:
        return Outcome(judge(result))
    except Silent as error:
        return Outcome("silent", str(error)[:_MOST_CHARACTERS])


def _refused(error: AttfcError, refusals: tuple[type[AttfcError], ...]) -> Outcome:
    line = f"error: {error}"
    if isinstance(error, UnexpectedError):
        return Outcome("traceback", str(error))
    if not isinstance(error, refusals):
        return Outcome("words", f"{type(error).__name__}: {error}"[:_MOST_CHARACTERS])
    if not _LINE.fullmatch(line) or "\n" in line or "Traceback" in line:
        return Outcome("words", line[:_MOST_CHARACTERS])
    return Outcome("refused")


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended."""

    code: int
    output: str
    errors: str


def command(main: Callable[[], None], arguments: list[str]) -> Ended:
    """Run a command line in this process."""
    former = sys.argv
    output = io.StringIO()
    errors = io.StringIO()
    sys.argv = arguments
    code: Any = 0
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
            main()
    except SystemExit as left:
        code = left.code
    finally:
        sys.argv = former
    return Ended(code if isinstance(code, int) else int(code is not None), output.getvalue(), errors.getvalue())


def observe_command(main: Callable[[], None], arguments: list[str], codes: set[int], seconds: float = HANG_SECONDS) -> Outcome:
    """Run a command line in this process, and judge its exit code and its words.

    Args:
        codes: the exit codes that may come of it.
    """
    try:
        with time_limit(seconds):
            ended = command(main, arguments)
    except Hang:
        return Outcome("hang", _places())
    return judged_end(ended, codes)


def judged_end(ended: Ended, codes: set[int]) -> Outcome:
    """Return whether a command ended with one of `codes`, and one line where it is not 0."""
    said = ended.output + ended.errors
    if "Traceback" in said or ended.code == UnexpectedError.exit_code:
        return Outcome("traceback", ended.errors[-_MOST_CHARACTERS:])
    if ended.code not in codes:
        return Outcome("words", f"exit code {ended.code}: {said[-_MOST_CHARACTERS:]}")
    lines = ended.errors.splitlines()
    if ended.code and (len(lines) != 1 or not _LINE.fullmatch(lines[0])):
        return Outcome("words", ended.errors[-_MOST_CHARACTERS:])
    return Outcome("refused" if ended.code else "said")


def _places() -> str:
    """Return the exception at hand and the innermost places that it came through, on one line."""
    kind, error, trace = sys.exc_info()
    frames = traceback.extract_tb(trace)
    places = [f"{os.path.basename(frame.filename)}:{frame.lineno}" for frame in frames][-4:]
    name = kind.__name__ if kind else "?"
    return f"{name}: {' '.join(str(error).split())[:300]} ({' > '.join(places)})"


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _written() -> int:
    """Return the size of what libraries wrote to stderr, where that is a file."""
    status = os.fstat(2)
    return status.st_size if stat.S_ISREG(status.st_mode) else 0
