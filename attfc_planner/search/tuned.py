"""The accuracies that a tuning measured, as its profile keeps them, made a model again."""

from __future__ import annotations

from attfc_planner.accuracy.regression import FEWEST_SETTINGS, MeasuredAccuracy, Training, log_odds_of
from attfc_planner.knobs.space import Setting
from attfc_train.errors import ProfileError
from attfc_train.profile.profile import AttFCSettings, FullFCSettings, HeadSettings, TrainProfile
from attfc_train.profile.search_summary import TrainingRecord


def tuned_accuracy(profile: TrainProfile) -> MeasuredAccuracy | None:
    """The regression over the trainings of a profile that ``attfc-plan tune`` wrote; None where it holds too few.

    Args:
        profile: whose data.num_ids is known.

    Raises:
        ProfileError: a training is not of this tool's making.
    """
    search = profile.search
    if search is None:
        return None
    return measured_accuracy(profile, search.trainings, search.trained_on)


def measured_accuracy(base: TrainProfile, records: tuple[TrainingRecord, ...], trained_on: str) -> MeasuredAccuracy | None:
    """The regression; None without a full FC layer or with fewer than `FEWEST_SETTINGS` settings.

    Raises:
        ProfileError: as `tuned_accuracy`.

    Args:
        base: what the settings are applied to, with data.num_ids.
    """
    settings = {record.setting for record in records if not record.full_fc}
    if len(settings) < FEWEST_SETTINGS or not any(record.full_fc for record in records):
        return None
    recipe = base.model_copy(update={"head": _with_the_knobs(base.head)})
    try:
        return MeasuredAccuracy([_training(recipe, record) for record in records], trained_on)
    except (ArithmeticError, ValueError) as error:  # numpy's LinAlgError is one
        rule = "search.trainings must make a regression"
        raise ProfileError(rule, str(error).splitlines()[0], "Tune again, or remove them.") from error


def _with_the_knobs(head: HeadSettings) -> AttFCSettings:
    """The head that the knobs are about, whatever became of it since (`Setting.applied_to`)."""
    own = head if isinstance(head, AttFCSettings) else AttFCSettings(margin=head.margin)
    return own.model_copy(update={"policy": "identity", "queue_mode": "averaged"})


def _training(base: TrainProfile, record: TrainingRecord) -> Training:
    profile = Setting(**record.setting.model_dump()).applied_to(base)
    if record.full_fc:
        profile = profile.model_copy(update={"head": FullFCSettings(margin=profile.head.margin)})
    return Training(profile, log_odds_of(record.accuracy), record.pairs_variance, record.projection_variance)
