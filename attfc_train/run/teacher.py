"""The teacher of a run, which is in no checkpoint: opened when a run starts, and the same one whenever it is resumed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeAlias

from attfc_train.errors import CheckpointError, ProfileError, UsageError
from attfc_train.profile.profile import IMAGE_STEP, TrainProfile
from attfc_train.step.teacher import TrainedTeacher

OpenTeacher: TypeAlias = Callable[[TrainProfile], TrainedTeacher]
"""Opens the teacher of a profile that names one, and refuses one that does not fit (`attfc_train.export.teacher`)."""


def opened_teacher(profile: TrainProfile, open_teacher: OpenTeacher | None) -> TrainedTeacher | None:
    """Return the teacher of a profile; None: it has none.

    Raises:
        ProfileError: a plan counts on a teacher, and nobody said which.
        CheckpointError: it does not fit, or is not the one that the run was started with.
    """
    settings = profile.teacher
    if not settings.is_on:
        return None
    if settings.path is None:
        raise ProfileError(
            "--teacher must name the trained model that the profile counts on",
            f"none, for a teacher {settings.describe()}",
            "Add --teacher MODEL, or go without: --set teacher.backbone=null.",
        )
    assert open_teacher is not None, "a profile with a teacher needs what opens it"
    opened = open_teacher(profile)
    if settings.digest not in (None, opened.settings.digest):
        raise CheckpointError(
            f"the teacher '{settings.path}' must be the one that the run was started with",
            f"another one (digest {opened.settings.digest} in place of {settings.digest})",
            "Restore it, name where it is now with --teacher MODEL, or start a new run.",
        )
    return opened


def new_teacher(profile: TrainProfile, open_teacher: OpenTeacher | None) -> tuple[TrainProfile, TrainedTeacher | None]:
    """Return the profile of a new run with all that the file of its teacher says, and the teacher.

    A profile of another run knows that run's teacher, which counts for nothing here: neither does a prediction for one that is
    built otherwise.

    Raises:
        ProfileError, CheckpointError: as `opened_teacher`.
    """
    settings = profile.teacher
    if settings.digest is not None:
        forgotten = {"backbone": None, "image_size": None, "digest": None}
        profile = profile.model_copy(update={"teacher": settings.model_copy(update=forgotten)})
    teacher = opened_teacher(profile, open_teacher)
    if teacher is None:
        return profile, None
    is_as_planned = settings.architecture == teacher.settings.architecture
    prediction = profile.prediction if is_as_planned else None
    return profile.model_copy(update={"teacher": teacher.settings, "prediction": prediction}), teacher


def same_teacher(before: TrainProfile, resumed: TrainProfile) -> TrainProfile:
    """Return the profile of a run that is resumed, whose teacher may have moved.

    Raises:
        UsageError: it got a teacher on the way, or lost it.
    """
    if before.teacher.is_on == (resumed.teacher.path is not None):
        return resumed
    got = "a run without one" if not before.teacher.is_on else "none, for a run with one"
    remedy = "Resume without --teacher, or start a new run from its model: --init RUN --teacher MODEL."
    raise UsageError("--teacher of a resumed run must be the run's own", got, remedy)


def teacher_lines(profile: TrainProfile) -> Iterator[str]:
    """Yield what is said of a teacher when a run begins."""
    settings = profile.teacher
    if not settings.is_on:
        return
    yield f"teacher: {settings.describe()}, from {settings.path}"
    size = profile.model.image_size
    if settings.image_size not in (None, size):
        resized = f"It was trained with {settings.image_size} pixels: the student's images of {size} are resized for it."
        # A network that only its file knows may have another size than our backbones can.
        fits = settings.image_size % IMAGE_STEP == 0
        yield f"{resized} To give both the same: --set model.image_size={settings.image_size}" if fits else resized
