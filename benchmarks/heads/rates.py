"""The choice of learning rates: one rule for every family of heads.

A family's variant in `CANDIDATES` trains for some hundred steps at each of three rates. Taken is the largest rate whose
accuracy on the validation identities is within one standard error of the best: so short a run favours small rates, and
differences below that error are luck. The test identities are not looked at.
"""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path
from typing import Final

from attfc_train.data.source import open_dataset
from attfc_train.evaluate.load import load_verification
from benchmarks.heads.data_sets import DataSet
from benchmarks.heads.records import Line, file_of, line_of
from benchmarks.heads.training import digest_on, profile_on, run_once
from benchmarks.heads.variants import IMAGE_SIZE, VARIANTS

RATES: Final = (0.025, 0.05, 0.1)
CANDIDATES: Final = {
    "full_fc": "full FC",
    "partial_fc": "Partial FC 0.1",
    "attfc": "AttFC, C 100 %, R=1",
    "dcq": "DCQ, C 10 %",
    "f2c": "F2C, C 10 %",
    "small_fc": "full FC, int8, no momentum",
}
"""Family -> the variant that stands for it."""


def chosen_rate(family: str, data: DataSet, results_folder: Path, work: Path) -> float | None:
    """Return the family's rate; None while another process is measuring it."""
    data = data.rates_of or data
    num_ids = open_dataset(data.path).index.num_ids
    output = file_of(data.name, results_folder)
    results = {}
    for rate in RATES:
        key = _key(family, data, num_ids, rate)
        profile = profile_on(VARIANTS[CANDIDATES[family]], data, num_ids, data.rate_steps, 0, rate, (data.validation,))
        if not run_once(key, profile, data, output, work, judged=False):
            return None
        line = line_of(key, output)
        assert line is not None, "it was recorded"
        results[rate] = line["curve"][-1][1]
    return largest_good_rate(results, _num_pairs(data.validation))


@cache
def _num_pairs(spec: str) -> int:
    return load_verification(spec, IMAGE_SIZE).num_pairs


def largest_good_rate(accuracies: dict[float, float], num_pairs: int) -> float:
    """Return the largest rate whose accuracy is within one standard error of the best one's."""
    best = max(accuracies.values())
    error = math.sqrt(best * (1 - best) / num_pairs)
    return max(rate for rate, accuracy in accuracies.items() if accuracy >= best - error)


def _key(family: str, data: DataSet, num_ids: int, rate: float) -> Line:
    variant = VARIANTS[CANDIDATES[family]]
    digest = digest_on(variant, data, num_ids, data.rate_steps, rate)
    return {"kind": "rate", "data": data.name, "name": variant.name, "rate": rate, "steps": data.rate_steps, "settings": digest}
