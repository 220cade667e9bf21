"""A format under attack: clean inputs, one mutation per case, what the commands call, and the judge."""

from __future__ import annotations

import abc
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, ClassVar

from benchmarks.attack.oracle import ORACLES, Oracle
from benchmarks.attack.outcome import Kind, Outcome, observe, observe_command


class Format(abc.ABC):
    """A format under attack.

    Args:
        folder: of this format's own; the constructor writes the clean inputs there.
    """

    name: ClassVar[str]
    """As in `ORACLES`."""
    every: ClassVar[int] = 25
    """Every so many cases the input is given to the whole command too."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def oracle(self) -> Oracle:
        """The promise."""
        return ORACLES[self.name]

    @abc.abstractmethod
    def attack(self, random: Random) -> str:
        """Write one damaged input, and return what was done."""

    @abc.abstractmethod
    def use(self) -> Any:
        """Do what the commands do with the input."""

    @abc.abstractmethod
    def judge(self, taken: Any) -> Kind:
        """Judge what `use` returned; raise `Silent`."""

    def command(self) -> tuple[Callable[[], None], list[str]] | None:
        """Return the entry point and the command line that a user gives the input to; None: there is none that is cheap."""
        return None

    def after(self) -> Outcome | None:
        """Return a failure that shows beside the result, such as code that ran."""
        return None


def try_case(subject: Format, seed: int, number: int) -> tuple[str, Outcome]:
    """Attack once; everything follows from the seed and the number.

    Returns:
        What was done, and what came of it.
    """
    what = subject.attack(Random(f"{seed}/{subject.name}/{number}"))
    outcome = observe(subject.use, subject.judge, subject.oracle.refusals)
    outcome = subject.after() or outcome
    if outcome.is_right and number % subject.every == 0:
        call = subject.command()
        if call is not None:
            told = observe_command(*call, {0, *subject.oracle.codes})
            if not told.is_right:
                return what, Outcome(told.kind, f"{' '.join(call[1])}: {told.detail}")
    return what, outcome
