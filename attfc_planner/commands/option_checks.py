"""Checks of options that several commands have, made before any work; this file itself loads nothing heavy."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from attfc_train.data.dataset import FaceDataset
    from attfc_train.data.report import DataReport
    from attfc_train.profile.teacher import TeacherSettings

MAX_COUNT = 10**12
"""Of identities and images; that of profiles (`attfc_train.document.MOST`), which loads more than this file may."""
MAX_EPOCHS = 100_000
MAX_LIMIT = 1_000_000
MAX_TRIALS = 1_000_000
HEAD_WORDS = ("auto", "any")
"""Words of ``--head`` that leave the kind to the plan: `attfc_planner.plan.request.AUTO_HEAD` and ``ANY_HEAD``."""


def whole(option: str, least: int, most: int = MAX_COUNT) -> Callable[[str], int]:
    """Return the parser of an option that is a whole number from `least` to `most`."""
    reaches = f"from {least:,} to {most:,}" if most < MAX_COUNT else f"of at least {least:,}"

    def parsed(text: str) -> int:
        from attfc_train.errors import UsageError
        from attfc_train.units import parse_count

        rule = f"{option} must be a whole number {reaches}"
        try:
            value = parse_count(str(text))
        except ValueError as error:
            raise UsageError(rule, f"'{text}'", f"Example: {option} {least}.") from error
        if value < least or (most < MAX_COUNT and value > most):
            raise UsageError(rule, f"'{text}'", f"Example: {option} {least}.")
        return value

    return parsed


def backbone_word(text: str) -> str:
    """Return the backbone that somebody means by ``R50`` or ``iresnet50``; other words stay as they are."""
    from attfc_train.profile.keys import backbone_name

    return backbone_name(text)


def real(option: str, least: float, example: float) -> Callable[[str], float]:
    """Return the parser of an option that is a number from `least` to `MAX_LIMIT`."""

    def parsed(text: str) -> float:
        from attfc_train.errors import UsageError

        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not value >= least:
            rule = f"{option} must be a number of at least {least:g}"
            raise UsageError(rule, f"'{text}'", f"Example: {option} {example:g}.")
        if value > MAX_LIMIT:
            raise UsageError(f"{option} must be at most {MAX_LIMIT:,}", f"'{text}'", f"Example: {option} {example:g}.")
        return value

    return parsed


def opened(data: str | None) -> FaceDataset | None:
    """Open a data set, as ``--data`` names it; None where none is named.

    Raises:
        UsageError, DataError: see `attfc_train.data.source.open_dataset`.
    """
    if data is None:
        return None
    from attfc_train.data.source import open_dataset
    from attfc_train.run.live_line import busy
    from attfc_train.screen import Screen

    with busy(Screen(stderr=True), "Opening the data set"):
        return open_dataset(data)


def size_of_data(dataset: FaceDataset | None, ids: int | None, images: int | None) -> tuple[int, int | None]:
    """Return identities and images: from the data set if there is one, else from the options.

    Raises:
        UsageError: neither says them, or they disagree.
    """
    from attfc_train.errors import UsageError

    if dataset is None:
        if ids is None:
            raise UsageError("--ids or --data must be given", "neither", "Example: attfc-plan --gpu auto --ids 2059906.")
        _check_counts(ids, images)
        return ids, images
    index = dataset.index
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
    from attfc_train.profile.profile import BACKBONE_NAMES, IMAGE_STEP

    checked_word("--backbone", "a known name", backbone, BACKBONE_NAMES)
    if not epochs <= MAX_EPOCHS:  # nan as well
        raise UsageError(f"--epochs must be at most {MAX_EPOCHS:,}", f"{epochs:g}", "Face data sets take 5 to 40.")
    if image_size % IMAGE_STEP:
        raise UsageError(f"--image-size must be a multiple of {IMAGE_STEP}", str(image_size), "Faces are usually 112.")
    if precision is not None:
        checked_word("--precision", "bf16, fp16 or fp32", precision, ("bf16", "fp16", "fp32"))


def checked_head(head: str) -> str:
    """Return a kind of head, or the word for several.

    Raises:
        UsageError: there is no such kind.
    """
    from attfc_train.heads.kinds import HEADS

    return checked_word("--head", "a known kind", head, (*HEAD_WORDS, *HEADS))


def checked_word(option: str, what: str, word: str, known: Iterable[str]) -> str:
    """Return a word that an option takes.

    Args:
        what: those words, as in ``must be a known kind``.

    Raises:
        UsageError: it is none of them; names the nearest and all.
    """
    from attfc_train.errors import UsageError

    words = list(known)
    if word in words:
        return word
    near = difflib.get_close_matches(word.lower(), words, n=1)
    first = f"Nearest: {near[0]}. " if near else ""
    raise UsageError(f"{option} must be {what}", f"'{word}'", f"{first}Choose one of: {', '.join(words)}.")


def checked_teacher(word: str | None, image_size: int, needed_by: str | None = None) -> tuple[TeacherSettings, int | None]:
    """Return the settings of a teacher, and the length of its embeddings where a file says it.

    Args:
        word: the name of a network, or a file or run that holds a trained one; None: there is no teacher.
        image_size: of the student, which a network by its name shares.
        needed_by: what trains at once, with which a network's name will not do.

    Raises:
        UsageError: there is no such network or file, or it must be a trained one and is not.
        CheckpointError: the file is damaged, or holds no encoder.
    """
    from attfc_train.errors import UsageError
    from attfc_train.profile.profile import BACKBONE_NAMES
    from attfc_train.profile.teacher import NO_TEACHER, TeacherSettings

    if word is None:
        return NO_TEACHER, None
    name = backbone_word(word)
    if name in BACKBONE_NAMES:
        if needed_by is not None:
            raise UsageError(f"{needed_by} needs a trained --teacher", f"the network '{word}'", "Give its file or run.")
        return TeacherSettings(backbone=name, image_size=image_size), None
    if not Path(word).exists():
        remedy = f"Give the file or run of a trained model, or one of: {', '.join(BACKBONE_NAMES)}."
        raise UsageError("--teacher must be a trained model or the name of a network", f"'{word}'", remedy)
    from attfc_train.export.teacher import described_teacher

    return described_teacher(Path(word))


def checked_link(link: str | None, gpus: int, nodes: int, train: bool) -> None:
    """Check what was said of several GPUs.

    Raises:
        UsageError: no such link, machines or a link without several GPUs, or machines that cannot be trained on from here.
    """
    from attfc_planner.gpu.links import LINKS
    from attfc_train.errors import UsageError

    if link is not None:
        checked_word("--link", ", ".join(LINKS), link, LINKS)
    if gpus == 1 and (nodes > 1 or link is not None):
        given = f"--nodes {nodes}" if nodes > 1 else f"--link {link}"
        raise UsageError("--nodes and --link need --gpus, those of all machines together", given, "Example: --gpus 8.")
    if train and nodes > 1:
        remedy = "Leave --train out, and start the command that the plan names on each of them."
        raise UsageError("--train starts on this machine alone", f"--nodes {nodes}", remedy)


def check_preference(prefer: str) -> None:
    """Check ``--prefer``.

    Raises:
        UsageError: no such preference.
    """
    checked_word("--prefer", "speed, balanced or accuracy", prefer, ("balanced", "speed", "accuracy"))


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
