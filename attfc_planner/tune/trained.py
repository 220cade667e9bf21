"""What the short trainings showed, one line per setting: all seeds together, and the early ends carried on to the end."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from attfc_planner.measured_accuracy import MeasuredAccuracy
from attfc_planner.search.space import Setting
from attfc_planner.search.tuned import measured_accuracy
from attfc_planner.tune.claim import Record
from attfc_planner.tune.question import Question
from attfc_planner.tune.scaling import NUM_CHECKS
from attfc_planner.tune.ties import Accuracy, mean_accuracy, over_seeds
from attfc_train.search_summary import TrainingRecord

SEED = "seed"
"""Knob of the finals' study beside the setting's; what has none was trained with seed 0."""
PROGRESS_DEVIATION = 0.2
"""Standard deviation of what different settings still gain in log odds after the first ninth, before it is known better: real
faces, `tiny`: 0.61, 0.92 and 0.76."""
PROGRESS_WEIGHT = 2
"""How many gains that assumption counts as."""


@dataclass(frozen=True)
class Trained:
    """The short trainings of one setting, or of the full FC layer."""

    setting: Setting | None
    """None: the full FC layer."""
    checks: dict[int, Accuracy]
    """Check -> the mean over the seeds that reached it."""
    num_finished: int
    """Seeds that ran to the end."""
    outcome: str
    images_per_second: float | None
    """Of the last that ended by itself, data loading included."""

    @property
    def finished(self) -> bool:
        """Whether any seed ran to the end."""
        return self.num_finished > 0

    @property
    def accuracy(self) -> Accuracy | None:
        """At the last check."""
        return self.checks[max(self.checks)] if self.checks else None


def trained_settings(question: Question, records: Sequence[Record]) -> list[Trained]:
    """One for every setting of the trials, in the order of their first trials."""
    groups: dict[Setting, list[Record]] = {}
    for record in records:
        if "dropped" not in record.notes:
            groups.setdefault(setting_of(question, record), []).append(record)
    return [_trained(setting, group) for setting, group in groups.items()]


def trained_full_fc(records: Sequence[Record]) -> Trained | None:
    """The full FC layer, where a training of it ended."""
    complete = [record for record in records if record.state == "complete"]
    return _trained(None, complete) if complete else None


def without_seed(record: Record) -> Record:
    """A trial of the finals with the knobs of the other studies."""
    return replace(record, indices={name: index for name, index in record.indices.items() if name != SEED})


def setting_of(question: Question, record: Record) -> Setting:
    """Whatever its seed."""
    return question.space.at(without_seed(record).indices)


def checks_of(record: Record) -> dict[int, Accuracy]:
    """Check -> accuracy, as a training's trial recorded them."""
    noted = record.notes.get("checks", {})
    return {int(check): mean_accuracy((accuracy, pairs) for accuracy, pairs in sets) for check, sets in noted.items()}


def _trained(setting: Setting | None, group: Sequence[Record]) -> Trained:
    checks = [checks_of(record) for record in group]
    reached = sorted({check for one in checks for check in one})
    means = {check: over_seeds([one[check] for one in checks if check in one]) for check in reached}
    num_finished = sum(record.state == "complete" and NUM_CHECKS in own for record, own in zip(group, checks, strict=True))
    rates = [record.notes["images_per_second"] for record in group if "images_per_second" in record.notes]
    outcome = str(group[-1].notes.get("outcome", group[-1].state))
    return Trained(setting, means, num_finished, outcome, rates[-1] if rates else None)


def training_records(trained: Sequence[Trained], full_fc: Trained | None) -> tuple[TrainingRecord, ...]:
    """What ``best.json`` keeps; settings that reported nothing are left out, and the full FC layer is the last."""
    known = [one for one in trained if one.checks]
    if not known or full_fc is None or not full_fc.finished:
        return ()
    finished = [one for one in (*known, full_fc) if one.finished]
    beside = next(one.setting for one in known)
    return tuple(_record(one, one.setting or beside, finished) for one in (*known, full_fc))


def _record(one: Trained, setting: Setting | None, finished: Sequence[Trained]) -> TrainingRecord:
    assert setting is not None, "the full FC layer is trained beside a setting"
    check = max(one.checks)
    accuracy = one.checks[check]
    gain, gain_variance = _gain(check, finished)
    odds = accuracy.log_odds + gain
    return TrainingRecord(
        settings={name: value for name, value in asdict(setting).items() if value is not None},
        full_fc=one.setting is None,
        accuracy=1 / (1 + math.exp(-odds)),
        log_odds_variance=accuracy.log_odds_variance + gain_variance,
        reached=check / NUM_CHECKS,
        num_seeds=max(1, one.num_finished),
    )


def _gain(check: int, finished: Sequence[Trained]) -> tuple[float, float]:
    """Log odds that settings gain from a check to the end, the mean and the variance for another setting."""
    if check == NUM_CHECKS:
        return 0.0, 0.0
    gains = [one.checks[NUM_CHECKS].log_odds - one.checks[check].log_odds for one in finished if check in one.checks]
    if not gains:
        return 0.0, PROGRESS_DEVIATION**2
    mean = statistics.fmean(gains)
    squares = sum((gain - mean) ** 2 for gain in gains) + PROGRESS_WEIGHT * _expected_variance(check)
    return mean, squares / (len(gains) - 1 + PROGRESS_WEIGHT) * (1 + 1 / len(gains))


def _expected_variance(check: int) -> float:
    """Less is left to differ in, the later the check."""
    return PROGRESS_DEVIATION**2 * (1 - check / NUM_CHECKS)


def regression(
    question: Question, trained: Sequence[Trained], full_fc: Trained | None, num_ids: int
) -> MeasuredAccuracy | None:
    """What the trainings say of every setting, in the prior's place; None where they are too few.

    Args:
        num_ids: identities of the short trainings.
    """
    return measured_accuracy(question.base, training_records(trained, full_fc), trained_on(question, num_ids))


def trained_on(question: Question, num_ids: int) -> str:
    """In a few words."""
    return f"short trainings on {num_ids:,} of {question.request.num_ids:,} identities, held-out pairs"
