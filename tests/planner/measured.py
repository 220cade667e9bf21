"""Trainings for tests of the regression: recorded ones, and such as somebody might have made."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path

from attfc_planner.accuracy.regression import MeasuredAccuracy, Training
from attfc_planner.knobs.space import Setting
from attfc_train.heads.full_fc.settings import FullFCSettings
from attfc_train.heads.kinds import BASELINE
from attfc_train.profile.profile import TrainProfile
from benchmarks.heads.variants import Variant, profile_of

RECORDED = Path(__file__).parents[2] / "benchmarks/results/heads-short.jsonl"
PAIRS = 600
"""Of LFW's eighth fold."""


def log_odds(accuracy: float) -> float:
    return math.log(accuracy / (1 - accuracy))


def training(profile: TrainProfile, accuracy: float, pairs: int = PAIRS) -> Training:
    is_full_fc = profile.head.kind == BASELINE
    return Training(profile, log_odds(accuracy), 1 / (pairs * accuracy * (1 - accuracy)), full_fc=is_full_fc)


def full_fc(base: TrainProfile) -> TrainProfile:
    return base.model_copy(update={"head": FullFCSettings(margin=base.head.margin)})


@cache
def recorded_trainings() -> list[tuple[str, Training]]:
    """Digest of the setting and training: full FC and AttFC with the recipe's order, on LFW, three seeds of 20 settings."""
    by_run: dict[tuple[str, int], tuple[str, Training]] = {}
    for line in RECORDED.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        if (
            record["kind"] == "run"
            and record["data"] == "lfw"
            and record["equal"] == "images"
            and _is_recipe(record["variant"])
        ):
            profile = profile_of(Variant(record["name"], "", record["variant"]), 128, 300, 0).resolve(1156)
            by_run[record["settings"], record["seed"]] = (record["settings"], training(profile, record["accuracy"]))
    return list(by_run.values())


def _is_recipe(variant: dict[str, object]) -> bool:
    other = {"draw", "batch_negatives", "window_share", "sample_rate", "policy"} & variant.keys()
    return not other and variant.get("queue_mode", "averaged") == "averaged"


def imagined(
    base: TrainProfile, settings: Iterable[Setting], accuracy: Callable[[Setting], float], fc: float = 0.85, pairs: int = 6000
) -> MeasuredAccuracy:
    trainings = [training(setting.applied_to(base), accuracy(setting), pairs) for setting in settings]
    return MeasuredAccuracy([*trainings, training(full_fc(base), fc, pairs)], "a test")


def random_accuracy(base: TrainProfile, settings: Iterable[Setting], seed: int) -> MeasuredAccuracy:
    """Trainings of a few settings that went anyhow."""
    draw = random.Random(seed)
    chosen = draw.sample(list(settings), 7)
    return imagined(base, chosen, lambda _: draw.uniform(0.80, 0.88))
