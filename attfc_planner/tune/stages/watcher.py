"""What the two stages of a tuning tell whoever watches them."""

from __future__ import annotations

from typing import Protocol


class Watcher(Protocol):
    """Draws the progress; the stages know nothing of the screen."""

    def say(self, text: str) -> None:
        """One line that stays."""

    def show(self, stage: str, done: int, total: int, best: str) -> None:
        """The line that moves.

        Args:
            stage: what is being done.
            done: trials that ended, of `total`.
            best: the best so far in a few words.
        """
