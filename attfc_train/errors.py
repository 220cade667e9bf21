"""Errors that a user can act on: each states the rule, the value that broke it and the remedy, and has an exit code.

The command lines print ``str(error)`` on one line and exit with ``exit_code``; docs/errors.md has the table.
Programmer invariants are plain ``assert`` statements and do not belong here.
"""

from __future__ import annotations

from typing import ClassVar


class AttfcError(Exception):
    """The base of all errors that attfc reports to its user.

    Args:
        rule: what must hold, in the user's own option names.
        got: the value that broke it.
        remedy: what to do now.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, rule: str, got: str, remedy: str) -> None:
        self.rule = rule
        self.got = got
        self.remedy = remedy
        super().__init__(" ".join(f"{rule}, but got {got}. {remedy}".split()))


class UsageError(AttfcError):
    """An option or a combination of options makes no sense."""

    exit_code = 2


class ProfileError(AttfcError):
    """A training or GPU profile cannot be read, has another schema, or breaks a rule."""

    exit_code = 3


class DataError(AttfcError):
    """A training set is missing, damaged, or does not match the profile."""

    exit_code = 4


class CheckpointError(AttfcError):
    """A checkpoint is missing, damaged, or belongs to another run."""

    exit_code = 5


class InfeasiblePlanError(AttfcError):
    """No setting fits the memory budget and the constraints."""

    exit_code = 6


class VerificationSetError(AttfcError):
    """A file or spec given as ``--val`` is not a verification set."""

    exit_code = 7


class NonFiniteLossError(AttfcError):
    """The loss became NaN or infinite."""

    exit_code = 8


class StorageError(AttfcError):
    """A file could not be written (full disk, no permission); what was there before is intact."""

    exit_code = 9


class DeviceMemoryError(AttfcError):
    """The device ran out of memory during training."""

    exit_code = 10


class CollapseError(AttfcError):
    """The features of all images became alike, and ``--on-collapse fail`` was given; the state was saved."""

    exit_code = 11


class FolderInUseError(AttfcError):
    """Another process trains in the run folder."""

    exit_code = 12


class LostProcessError(AttfcError):
    """One of several processes that trained together is gone, or could not go on; the last checkpoint is intact."""

    exit_code = 13


class UnexpectedError(AttfcError):
    """An exception that nobody expected: a fault of attfc, whose details are in a log file."""

    exit_code = 70


class Interrupted(AttfcError):
    """SIGINT, SIGTERM or SIGHUP: the state was saved before leaving; ``exit_code`` is 128 + the signal's number.

    Args:
        stopped: where it stopped, and what is saved.
        remedy: how to go on.
    """

    def __init__(self, signal_number: int, stopped: str, remedy: str) -> None:
        super().__init__(stopped, f"signal {signal_number}", remedy)
        self.args = (f"{stopped}. {remedy}",)  # nothing went wrong, so no rule is named
        self.exit_code = 128 + signal_number  # type: ignore[misc]  # the one error whose code depends on its cause
