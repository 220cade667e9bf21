"""The regression over the trainings that a tuned profile keeps."""

from __future__ import annotations

from attfc_planner.accuracy.bayes import log_odds_of
from attfc_planner.accuracy.regression import FEWEST_SETTINGS, MeasuredAccuracy, Training
from attfc_planner.knobs.space import HEAD, Setting, knobs_of, with_default_head
from attfc_train.errors import ProfileError
from attfc_train.heads.kinds import BASELINE, HEADS
from attfc_train.profile.profile import TrainProfile, checked_setting
from attfc_train.profile.search_summary import TrainingRecord


def tuned_accuracy(profile: TrainProfile) -> MeasuredAccuracy | None:
    """Return the regression over the trainings of a profile that ``attfc-plan tune`` wrote; None where it holds too few.

    Args:
        profile: with data.num_ids.

    Raises:
        ProfileError: a training is not of this tool's making.
    """
    search = profile.search
    if search is None:
        return None
    return measured_accuracy(profile, search.trainings, search.trained_on)


def measured_accuracy(base: TrainProfile, records: tuple[TrainingRecord, ...], trained_on: str) -> MeasuredAccuracy | None:
    """Return the regression; None without a full FC layer, or with fewer than `FEWEST_SETTINGS` settings.

    Args:
        base: the profile that settings are applied to, with data.num_ids.

    Raises:
        ProfileError: a training is not of this tool's making.
    """
    recipe = base.model_copy(update={"head": base.head.searchable()})
    _check_knobs(records)
    own = {knob.name for knob in knobs_of(type(recipe.head))}
    if any(set(record.setting) - own for record in records if record.head is None):
        return None  # the head was another one when it was tuned, and the records do not say which
    settings = {(record.head, Setting.of(record.setting)) for record in records if not record.full_fc}
    if len(settings) < FEWEST_SETTINGS or not any(record.full_fc for record in records):
        return None
    try:
        return MeasuredAccuracy([_training(recipe, record) for record in records], trained_on)
    except (ArithmeticError, ValueError, TypeError) as error:  # numpy's LinAlgError and pydantic's ValidationError are some
        rule = "search.trainings must make a regression"
        raise ProfileError(rule, str(error).splitlines()[0], "Tune again, or remove them.") from error


def tried_kinds(profile: TrainProfile) -> tuple[str, ...]:
    """Return the kinds of heads that a tuned profile holds trainings of, in the order of these."""
    records = profile.search.trainings if profile.search else ()
    return tuple(dict.fromkeys(record.head or profile.head.kind for record in records if not record.full_fc))


def _check_knobs(records: tuple[TrainingRecord, ...]) -> None:
    """Check that the records are of knobs: a file may name any setting of a profile."""
    known = {knob.name for kind in HEADS.values() for knob in knobs_of(kind.settings)}
    strange = sorted({name for record in records for name in record.setting} - known)
    if strange:
        raise ProfileError("search.trainings must be of knobs", f"'{strange[0]}'", "Tune again, or remove them.")


def _training(recipe: TrainProfile, record: TrainingRecord) -> Training:
    kind = record.head or recipe.head.kind
    profile = Setting.of({HEAD.name: kind, **checked_setting(record.setting, kind, record.head)}).applied_to(recipe)
    if record.full_fc:
        profile = with_default_head(profile, BASELINE)
    odds = log_odds_of(record.accuracy)
    return Training(profile, odds, record.pairs_variance, record.projection_variance, full_fc=record.full_fc)
