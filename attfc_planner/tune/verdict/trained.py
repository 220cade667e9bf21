"""What the short trainings showed: by setting and seed, and as records of ``best.json``, early ends carried on to the end."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

from attfc_planner.accuracy.bayes import accuracy_of
from attfc_planner.accuracy.regression import MeasuredAccuracy
from attfc_planner.knobs.space import BACKBONE, HEAD, Setting
from attfc_planner.search.tuned import measured_accuracy
from attfc_planner.tune.question import Question
from attfc_planner.tune.stages.scaling import NUM_CHECKS
from attfc_planner.tune.studies.claim import Indices, Record
from attfc_planner.tune.verdict.ties import Accuracy, mean_accuracy, over_seeds
from attfc_train.profile.search_summary import MOST_TRAININGS, TrainingRecord

SEED = "seed"
"""Knob of the studies whose trials have a seed; the others train with seed 0."""
BROKEN = ("failed", "out of memory")
"""Outcomes after which a setting is not tried again."""
PROGRESS_DEVIATION = 0.2
"""Standard deviation of what settings still gain in log odds after the first ninth, before any is known.

On real faces, with `tiny`, the gains were 0.61, 0.92 and 0.76.
"""
PROGRESS_WEIGHT = 2
"""Gains that this assumption counts as."""
MOST_LOG_ODDS = 13.0
"""An accuracy that is carried on stays within 1e-6 of 0 and 1."""


@dataclass(frozen=True)
class Run:
    """One training with one seed."""

    checks: dict[int, Accuracy]
    finished: bool

    @property
    def reach(self) -> tuple[bool, int]:
        """Return what is larger for a run that got further; one may be cut after its last check, before it ended."""
        return self.finished, len(self.checks)


@dataclass(frozen=True)
class Trained:
    """The short trainings of one setting, or of the full FC layer."""

    setting: Setting | None
    """None: the full FC layer."""
    runs: tuple[Run, ...]
    """One for every seed."""
    outcome: str
    """How the last trial ended, or any that crashed or ran out of memory."""
    images_per_second: float | None
    """Speed of the last training that ended by itself, data loading included."""

    @property
    def checks(self) -> dict[int, Accuracy]:
        """Return check -> the mean over the seeds that reached it."""
        reached = sorted({check for run in self.runs for check in run.checks})
        return {check: over_seeds([run.checks[check] for run in self.runs if check in run.checks]) for check in reached}

    @property
    def num_finished(self) -> int:
        """Return the number of seeds that ran to the end."""
        return sum(run.finished for run in self.runs)

    @property
    def finished(self) -> bool:
        """Return whether any seed ran to the end."""
        return self.num_finished > 0

    @property
    def accuracy(self) -> Accuracy | None:
        """Return the accuracy at the last check, None before there is one."""
        return self.checks[max(self.checks)] if self.checks else None


@dataclass(frozen=True)
class Standing:
    """What all trials say at one moment."""

    pool: Sequence[Setting]
    """Settings that may become finalists: they are known to run."""
    trained: Sequence[Trained]
    full_fc: Trained | None
    model: MeasuredAccuracy | None
    """The regression over the trainings; None while they are too few."""


def trained_settings(question: Question, records: Sequence[Record]) -> list[Trained]:
    """Return the trainings of every setting, in the order of the settings' first trials."""
    groups: dict[Setting, list[Record]] = {}
    for record in records:
        if "dropped" not in record.notes:
            groups.setdefault(setting_of(question, record.indices), []).append(record)
    return [_trained(setting, group) for setting, group in groups.items()]


def trained_full_fc(records: Sequence[Record]) -> Trained | None:
    """Return the trainings of the full FC layer, or None if none of them reached its end."""
    if not records:
        return None
    full_fc = _trained(None, [record for record in records if "dropped" not in record.notes])
    return full_fc if full_fc.finished else None


def without_seed(record: Record) -> Record:
    """Return a trial of the finals with the knobs of the other studies."""
    return replace(record, indices=_unseeded(record.indices))


def setting_of(question: Question, indices: Indices) -> Setting:
    """Return the setting of a trial, whatever its seed."""
    return question.spaces.at(_unseeded(indices))


def _unseeded(indices: Indices) -> Indices:
    return {name: index for name, index in indices.items() if name != SEED}


def checks_of(record: Record) -> dict[int, Accuracy]:
    """Return check -> accuracy, as a training's trial recorded them."""
    checks = record.notes.get("checks", {})
    return {int(check): mean_accuracy((accuracy, pairs) for accuracy, pairs in sets) for check, sets in checks.items()}


def _trained(setting: Setting | None, group: Sequence[Record]) -> Trained:
    """Return one setting's trials together; a seed that was cut and trained again counts once, as far as it got at best."""
    runs: dict[int, Run] = {}
    for record in group:
        seed = record.indices.get(SEED, 0)
        checks = checks_of(record)
        run = Run(checks, record.state == "complete" and NUM_CHECKS in checks)
        if checks and (seed not in runs or run.reach > runs[seed].reach):
            runs[seed] = run
    rates = [record.notes["images_per_second"] for record in group if "images_per_second" in record.notes]
    outcomes = [str(record.notes.get("outcome", record.state)) for record in group]
    outcome = next((each for each in outcomes if each in BROKEN), outcomes[-1])
    return Trained(setting, tuple(runs.values()), outcome, rates[-1] if rates else None)


def training_records(
    trained: Sequence[Trained], full_fc: Trained | None, beside: Setting | None, kind: str
) -> tuple[TrainingRecord, ...]:
    """Return what ``best.json`` keeps, one for every seed, the latest `MOST_TRAININGS`; the full FC layer's are the last.

    Args:
        kind: of the recipe's head, which settings that name none have.
        beside: the setting that the full FC layer was trained beside.
    """
    reporting = [each for each in trained if each.runs]
    if not reporting or full_fc is None or beside is None:
        return ()
    pairs = [(each, run) for each in (*reporting, full_fc) for run in each.runs]
    finished = [run for _, run in pairs if run.finished]
    return tuple(
        _record(each.setting or beside, kind, each.setting is None, run, finished) for each, run in pairs[-MOST_TRAININGS:]
    )


def _record(setting: Setting, kind: str, full_fc: bool, run: Run, finished: Sequence[Run]) -> TrainingRecord:
    """Return one run, carried on to the end by what finished runs gained from its last check."""
    # log odds at the end = log odds at the last check + gain. Two variances are kept apart: that of the pairs, which the
    # regression multiplies by its noise factor, and that of the gain, which it does not.
    check = max(run.checks)
    accuracy = run.checks[check]
    gain, gain_variance = _gain(check, finished)
    odds = min(max(accuracy.log_odds + gain, -MOST_LOG_ODDS), MOST_LOG_ODDS)
    return TrainingRecord(
        setting={name: value for name, value in setting.document().items() if name not in (HEAD.name, BACKBONE.name)},
        full_fc=full_fc,
        head=setting.head or kind,
        accuracy=accuracy_of(odds),
        pairs_variance=accuracy.log_odds_variance,
        projection_variance=gain_variance,
    )


def _gain(check: int, finished: Sequence[Run]) -> tuple[float, float]:
    """Return the log odds that another setting gains from a check to the end: mean and variance."""
    if check == NUM_CHECKS:
        return 0.0, 0.0
    gains = [run.checks[NUM_CHECKS].log_odds - run.checks[check].log_odds for run in finished if check in run.checks]
    if not gains:
        return 0.0, PROGRESS_DEVIATION**2
    # The gains g of n finished runs, of which one more is predicted. Few runs say little about their scatter, so it is
    # shrunk: w = PROGRESS_WEIGHT squares of the size v that is expected at this check are added to those observed,
    #     s^2 = (sum (g - mean)^2 + w v) / (n - 1 + w),
    # and the next gain differs from the mean of n by its own scatter and the mean's: variance = s^2 (1 + 1 / n).
    mean = statistics.fmean(gains)
    squares = sum((gain - mean) ** 2 for gain in gains) + PROGRESS_WEIGHT * _expected_variance(check)
    return mean, squares / (len(gains) - 1 + PROGRESS_WEIGHT) * (1 + 1 / len(gains))


def _expected_variance(check: int) -> float:
    """Return the variance of gains from a check on, before any is known; the later the check, the less is left to differ."""
    return PROGRESS_DEVIATION**2 * (1 - check / NUM_CHECKS)


def regression(
    question: Question, trained: Sequence[Trained], full_fc: Trained | None, beside: Setting | None, num_ids: int
) -> MeasuredAccuracy | None:
    """Return what the trainings say of every setting, in the prior's place; None if they are too few.

    Args:
        beside: see `training_records`.
        num_ids: identities of the short trainings.
    """
    records = training_records(trained, full_fc, beside, question.base.head.kind)
    return measured_accuracy(question.base, records, trained_on(question, num_ids))


def trained_on(question: Question, num_ids: int) -> str:
    """Return what was trained and verified, in a few words."""
    split = question.split
    verified = f"pairs of {split.num_held_out:,} held-out ones" if split.num_held_out else ", ".join(split.val)
    return f"short trainings on {num_ids:,} of {question.request.num_ids:,} identities, verified on {verified}"
