"""Checks of options that several commands have, made before any work; this file itself loads nothing heavy."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from attfc_train.data.report import DataReport

MAX_COUNT = 10**12
"""Of identities and images; that of profiles (`attfc_train.document.MOST`), which loads more than this file may."""
MAX_EPOCHS = 100_000
MAX_LIMIT = 1_000_000
MAX_TRIALS = 1_000_000
ANY_HEAD_WORDS = ("auto", "any")
"""Words of ``--head`` for all kinds; the first is that of `attfc_planner.plan.request.ANY_HEAD`."""


def size_of_data(data: str | None, ids: int | None, images: int | None) -> tuple[int, int | None]:
    """Return identities and images: from the data set if there is one, else from the options.

    Raises:
        UsageError: neither says them, or they disagree.
    """
    from attfc_train.errors import UsageError

    if data is None:
        if ids is None:
            raise UsageError("--ids or --data must be given", "neither", "Example: attfc-plan --gpu auto --ids 2059906.")
        _check_counts(ids, images)
        return ids, images
    from attfc_train.data.source import open_dataset

    index = open_dataset(data).index
    _say(index.report)
    for option, given, counted in (("--ids", ids, index.num_ids), ("--images", images, index.num_images)):
        if given not in (None, counted):
            raise UsageError(f"{option} must agree with --data ({counted:,})", f"{given:,}", f"Leave {option} out.")
    return index.num_ids, index.num_images


def _say(report: DataReport) -> None:
    """Say on stderr what of a data set was passed over: what is planned goes by what is left."""
    from attfc_train.data.report import messages_of
    from attfc_train.screen import Screen

    screen = Screen(stderr=True)
    for message in messages_of(report):
        screen.print(message, soft_wrap=True)


def _check_counts(ids: int, images: int | None) -> None:
    """Check that so many identities may have so many images; where those are not said, nothing is known of them."""
    from attfc_train.errors import UsageError

    for option, count in (("--ids", ids), ("--images", images or 0)):
        if count > MAX_COUNT:
            raise UsageError(f"{option} must be at most {MAX_COUNT:,}", shortened(count), "Check the number of digits.")
    if images is not None and images < ids:
        rule = f"--images must be at least --ids ({ids:,}), because every identity has an image"
        raise UsageError(rule, f"{images:,}", "Give the images of all identities together, or leave --images out.")


def shortened(number: int) -> str:
    """Return a number's digits, or how many there are."""
    return f"{number:,}" if abs(number) < 10**30 else f"a number of about {round(number.bit_length() * 0.30103):,} digits"


def check_values(backbone: str, image_size: int, epochs: float, precision: str | None) -> None:
    """Check that these values make sense on any device.

    Raises:
        UsageError: they do not.
    """
    from attfc_train.errors import UsageError
    from attfc_train.profile.profile import BACKBONE_NAMES

    if backbone not in BACKBONE_NAMES:
        raise UsageError("--backbone must be a known name", f"'{backbone}'", f"Choose one of: {', '.join(BACKBONE_NAMES)}.")
    if not epochs <= MAX_EPOCHS:  # nan as well
        raise UsageError(f"--epochs must be at most {MAX_EPOCHS:,}", f"{epochs:g}", "Face data sets take 5 to 40.")
    if image_size % 16:
        raise UsageError("--image-size must be a multiple of 16", str(image_size), "Faces are usually 112.")
    if precision not in (None, "bf16", "fp16", "fp32"):
        raise UsageError("--precision must be bf16, fp16 or fp32", f"'{precision}'", "Leave it out to choose the best.")


def checked_head(head: str) -> str:
    """Return a kind of head, or the word for all of them.

    Raises:
        UsageError: there is no such kind.
    """
    from attfc_train.errors import UsageError
    from attfc_train.heads.kinds import HEADS

    if head in ANY_HEAD_WORDS:
        return ANY_HEAD_WORDS[0]
    if head not in HEADS:
        raise UsageError("--head must be a known kind", f"'{head}'", f"Choose one of: auto, {', '.join(HEADS)}.")
    return head


def check_limits(prefer: str, max_hours: float | None, max_memory: float | None) -> None:
    """Check that preference and limits make sense.

    Raises:
        UsageError: they do not.
    """
    from attfc_train.errors import UsageError

    if prefer not in ("speed", "balanced", "accuracy"):
        raise UsageError("--prefer must be speed, balanced or accuracy", f"'{prefer}'", "Leave it out for balanced.")
    for option, value in (("--max-hours", max_hours), ("--max-memory", max_memory)):
        if value is not None and not value <= MAX_LIMIT:
            raise UsageError(f"{option} must be at most {MAX_LIMIT:,}", f"{value:g}", "Leave it out for no limit.")


def backbones(given: list[str] | None) -> list[str]:
    """Return the backbones to choose from; ``any`` stands for all that the accuracy prior can compare.

    Raises:
        UsageError: they cannot be compared.
    """
    from attfc_planner.accuracy.prior import BACKBONE
    from attfc_train.errors import UsageError

    names = list(dict.fromkeys(given or ["r50"]))
    if "any" in names and len(names) > 1:
        raise UsageError("--backbone any stands for all", f"'{', '.join(names)}'", "Give 'any' alone, or the names alone.")
    if names == ["any"]:
        return list(BACKBONE)
    unknown = [name for name in names if name not in BACKBONE]
    if len(names) > 1 and unknown:
        comparable = ", ".join(BACKBONE)
        raise UsageError(
            f"--backbone given more than once must have published figures to compare ({comparable})",
            f"'{unknown[0]}'",
            "Plan for it alone.",
        )
    return names


def check_output(output: Path, option: str = "--output") -> None:
    """Check that the plan can be written; what fails later all the same is reported then.

    Raises:
        StorageError: it cannot.
    """
    from attfc_train.errors import StorageError

    folder = next(folder for folder in output.absolute().parents if folder.exists())
    if output.exists() and not output.is_file():
        reason = "a folder, device or pipe"
    elif not folder.is_dir():
        reason = f"'{folder}', which is a file"
    elif not os.access(folder, os.W_OK):
        reason = f"no permission in '{folder}'"
    else:
        return
    raise StorageError(f"'{output}' must be writable", reason, f"Choose another {option}.")
