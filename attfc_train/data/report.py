"""What is in a data set and was passed over, or was read otherwise than one may think: counted by kind, said in one place.

Every format fills the report of its index (`IdentityIndex.report`); a command says its lines once, when it opens the data set.
"""

from __future__ import annotations

from dataclasses import dataclass

from attfc_train.data.remote.places import with_urls
from attfc_train.streams import printable


def shown(name: str) -> str:
    r"""Return a name of a file, folder or person on one line, a new line as ``\n``, remote data by their URL."""
    return printable(with_urls(name).replace("\n", "\\n").replace("\t", "\\t"))


@dataclass(frozen=True, slots=True)
class Remark:
    """A kind of things that were passed over."""

    kind: str
    """A noun phrase, with the remedy where there is one."""
    count: int
    example: str

    def __str__(self) -> str:
        """Return ``KIND: COUNT, e.g. EXAMPLE``."""
        return f"{self.kind}: {self.count:,}, e.g. {self.example}"


class DataReport:
    """Kinds in the order in which they were first met, each with its count and first example, and other lines."""

    def __init__(self, source: str = "") -> None:
        """Begin an empty report.

        Args:
            source: the data set, for messages.
        """
        self._source = source
        self._remarks: dict[str, Remark] = {}
        self._lines: list[str] = []
        self._others: list[DataReport] = []

    def count(self, kind: str, count: int, example: str) -> None:
        """Add `count` things of a kind; the first example stays, and 0 things are no remark."""
        if count:
            former = self._remarks.get(kind, Remark(kind, 0, example))
            self._remarks[kind] = Remark(kind, former.count + count, former.example)

    def say(self, line: str) -> None:
        """Add a line that counts nothing."""
        self._lines.append(line)

    def merge(self, other: DataReport) -> None:
        """Add what another report of the same data set has."""
        for remark in other.remarks:
            self.count(remark.kind, remark.count, remark.example)
        self._lines += other._lines

    def include(self, other: DataReport) -> None:
        """Let the messages of another data set's report come before this one's."""
        self._others.append(other)

    @property
    def remarks(self) -> tuple[Remark, ...]:
        """The kinds that were counted."""
        return tuple(self._remarks.values())

    @property
    def said(self) -> tuple[str, ...]:
        """The lines that count nothing."""
        return tuple(self._lines)

    def lines(self) -> list[str]:
        """Return the report as lines; none where nothing was passed over."""
        return [*map(shown, self._lines), *(shown(str(remark)) for remark in self.remarks)]

    def messages(self) -> list[str]:
        """Return the lines with the data set in front of each, for the screen."""
        others = [message for other in self._others for message in other.messages()]
        return [*others, *(f"{self._source}: {line}" for line in self.lines())]


def messages_of(*reports: DataReport) -> list[str]:
    """Return the messages of several reports, each once: parts of a data set have the same."""
    return list(dict.fromkeys(message for report in reports for message in report.messages()))
