"""The accuracies that a tuning measured, as its profile keeps them, made a model again."""

from __future__ import annotations

import math
from typing import Any

from attfc_planner.measured_accuracy import FEWEST_SETTINGS, MeasuredAccuracy, Training
from attfc_planner.search.space import Setting
from attfc_train.errors import ProfileError
from attfc_train.profile import FullFCSettings, TrainProfile
from attfc_train.search_summary import TrainingRecord


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

    Args:
        base: what the settings are applied to, with data.num_ids.
    """
    num_full_fc = sum(record.full_fc for record in records)
    if not num_full_fc or len(records) - num_full_fc < FEWEST_SETTINGS:
        return None
    return MeasuredAccuracy([_training(base, record) for record in records], trained_on)


def _training(base: TrainProfile, record: TrainingRecord) -> Training:
    settings: dict[str, Any] = dict(record.settings)
    try:
        profile = Setting(**settings).applied_to(base).resolve(base.num_ids)
    except (TypeError, ValueError) as error:
        rule = "search.trainings must hold the knobs of settings"
        raise ProfileError(rule, f"'{settings}'", "Tune again, or remove them.") from error
    if record.full_fc:
        profile = profile.model_copy(update={"head": FullFCSettings(margin=profile.head.margin)})
    log_odds = math.log(record.accuracy / (1 - record.accuracy))
    return Training(profile, log_odds, record.log_odds_variance)
