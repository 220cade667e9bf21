"""What the stages of a tuning tell whoever watches them."""

from __future__ import annotations

from typing import Protocol


class Watcher(Protocol):
    """A display of the progress, of which the stages know nothing else."""

    def say(self, text: str) -> None:
        """Print one line that stays."""

    def show(self, stage: str, done: int, total: int, best: str) -> None:
        """Update the line that moves.

        Args:
            stage: what is being done.
            done: trials that ended, of `total`.
            best: the best so far in a few words.
        """
