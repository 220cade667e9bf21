"""The planner's memory prediction against what others measured on real cards: xMem's runs and SchedTune's table.

    python -m benchmarks.external_memory            # 4 minutes on one core, no GPU; needs torchvision

Networks and settings are theirs; trace, simulated allocator (native segments, as theirs) and terms are the planner's. xMem's
runs are judged as xMem judges: the error against the measured peak where the run lived, and whether it would have died with
the prediction as its limit. SchedTune says neither optimiser nor versions: the setting is the one whose unexplained rest is
most alike for all networks of a card, and that rest is the card's context. ``benchmarks/data/README.md`` has the sources.
"""

from __future__ import annotations

import csv
import json
import statistics
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any, TypeVar

from attfc_planner.gpu.catalog import get_card
from attfc_planner.gpu.profile import GpuProfile
from attfc_planner.memory.overheads import context, cublas_workspace
from attfc_planner.memory.run import CUBLAS_HANDLES
from attfc_train.units import MIB, Bytes
from benchmarks.external_networks import NetworkRun, Setting, record_network
from benchmarks.provenance import provenance, save

DATA = Path(__file__).parent / "data"
PUBLISHED = {"median_error": 0.0359, "failures": 0.0887}
"""xMem's own figures over all its 5,209 runs."""
ESTIMATORS = ("xmem", "dnnmem", "schedtune")
NETWORKS = {
    "MnasNet": ("mnasnet1_0", 10),
    "ConvNeXtTiny": ("convnext_tiny", 1000),
    "ConvNeXtBase": ("convnext_base", 1000),
    "ResNet101": ("resnet101", 1000),
    "ResNet152": ("resnet152", 1000),
    "VGG16": ("vgg16", 1000),
    "VGG19": ("vgg19", 1000),
    "MobileNetV2": ("mobilenet_v2", 1000),
}
"""xMem's name -> torchvision's, and its number of classes."""
CARDS = {"RTX 3060": "rtx-3060-12", "RTX 4060": "rtx-4060"}
SCHEDTUNE_CARDS: dict[int, tuple[str, Bytes]] = {
    13: ("Tesla K80", 11_441 * MIB),
    40: ("RTX 2070 Super", 8_192 * MIB),
    46: ("RTX 3070", 8_192 * MIB),
    80: ("Tesla V100", 16_160 * MIB),
    82: ("RTX 3090", 24_576 * MIB),
}
"""Multiprocessors -> card and nvidia-smi's total: no run can have used more."""
OPTIMIZERS = {"SGD": ("SGD", 0.0), "SGD with momentum": ("SGD", 0.9), "Adam": ("Adam", 0.0)}
WORKSPACES = {"none": None, "as much as a convolution's input and output": "rtx-3090"}

Key = TypeVar("Key")


@dataclass(frozen=True, slots=True)
class XmemRow:
    """One run of xMem's."""

    model: str
    optimizer: str
    batch_size: int
    gpu: str
    capacity: Bytes
    peak: Bytes
    died: bool
    estimates: dict[str, Bytes]
    died_at_estimate: dict[str, bool]
    """By estimator; without those whose estimate was not tried as a limit."""

    def setting(self) -> Setting:
        """Return the setting that xMem's code states: torch 2.6, CIFAR-10 enlarged to 86 pixels, four steps."""
        network, num_classes = NETWORKS[self.model]
        return Setting(network, num_classes, self.optimizer, 0.0, self.batch_size, 86, 4, modern=True)

    def lives_at(self, limit: Bytes) -> bool | None:
        """Return whether the run lives with this limit, as runs with larger and smaller ones did; None: none tells."""
        asked = self._share(limit)
        shares = {name: self._share(self.estimates[name]) for name in self.died_at_estimate}
        if any(asked >= shares[name] for name, died in self.died_at_estimate.items() if not died):
            return True
        return False if any(asked <= shares[name] for name, died in self.died_at_estimate.items() if died) else None

    def _share(self, limit: Bytes) -> float:
        """Return the limit as xMem sets it, a share of the card rounded to a hundredth."""
        return min(1.0, round(limit / self.capacity, 2))


@dataclass(frozen=True, slots=True)
class Judged:
    """A prediction for a run of xMem's; `predicted` is None where the card is predicted to be too small."""

    predicted: Bytes | None
    error: float | None
    """Signed, as a share of the peak; None where the run or the prediction says that the card is too small."""
    failed: bool
    told: bool
    """Whether xMem's own capped runs tell what happens at the prediction; if not, less than the peak counts as a failure."""


def judge(row: XmemRow, predicted: Bytes | None) -> Judged:
    """Judge a prediction as xMem does."""
    too_small = predicted is None or predicted > row.capacity
    if row.died or too_small:
        return Judged(predicted, None, failed=row.died != too_small, told=True)
    assert predicted is not None
    lives = row.lives_at(predicted)
    failed = predicted < row.peak if lives is None else not lives
    return Judged(predicted, predicted / row.peak - 1, failed, told=lives is not None)


def summary(judged: Sequence[Judged]) -> dict[str, float]:
    """Return the median and the largest error, and the share of failures, of several judgements."""
    errors = [abs(one.error) for one in judged if one.error is not None]
    return {
        "runs": len(judged),
        "runs_with_an_error": len(errors),
        "median_error": statistics.median(errors),
        "largest_error": max(errors),
        "failures": sum(one.failed for one in judged) / len(judged),
        "failures_that_no_run_tells": sum(one.failed and not one.told for one in judged),
    }


def read_xmem() -> list[XmemRow]:
    """Return xMem's runs."""
    rows = []
    for line in _lines("xmem_sample_19.csv"):
        verdicts = {name: line[f"{name}_cap_oom"] for name in ESTIMATORS}
        rows.append(
            XmemRow(
                line["model"],
                line["optimizer"],
                int(line["batch_size"]),
                line["gpu"],
                int(line["gpu_total_bytes"]),
                int(line["nvml_peak_bytes"]),
                line["real_oom"] == "1",
                {name: int(line[f"{name}_bytes"]) for name in ESTIMATORS},
                {name: verdict == "1" for name, verdict in verdicts.items() if verdict},
            )
        )
    return rows


def predict(row: XmemRow, run: NetworkRun) -> Bytes | None:
    """Return what NVML will have seen the run take, or None where the card is predicted to be too small.

    The context is not in it: xMem's recording begins once the context is there.
    """
    gpu = get_card(CARDS[row.gpu]).model_copy(update={"capacity_bytes": row.capacity})
    cublas = CUBLAS_HANDLES * cublas_workspace(gpu)
    reserved = run.reserved(run.workspaces(gpu), row.capacity - context(gpu).bytes - cublas)
    return None if reserved is None else reserved + cublas


def compare_xmem() -> dict[str, Any]:
    """Trace, predict and judge all of xMem's runs."""
    lines: list[dict[str, Any]] = []
    judged: dict[str, list[Judged]] = defaultdict(list)
    for row in read_xmem():
        predicted = predict(row, record_network(row.setting()))
        verdicts = {name: judge(row, estimate) for name, estimate in {"attfc": predicted, **row.estimates}.items()}
        for name, verdict in verdicts.items():
            judged[name].append(verdict)
        facts = {"model": row.model, "optimizer": row.optimizer, "batch_size": row.batch_size, "gpu": row.gpu}
        lines.append({**facts, "peak": row.peak, "died": row.died, **{name: asdict(one) for name, one in verdicts.items()}})
    return {"published": PUBLISHED, "summary": {name: summary(of) for name, of in judged.items()}, "runs": lines}


@dataclass(frozen=True, slots=True)
class SchedtuneRow:
    """One measured job of SchedTune's."""

    model: str
    batch_size: int
    card: str
    capacity: Bytes
    peak: Bytes

    def setting(self, optimizer: str) -> Setting:
        """Return the setting: 224 pixels, as the column of inputs tells; torch 1, as the year of the table tells."""
        kind, momentum = OPTIMIZERS[optimizer]
        return Setting(self.model, 1000, kind, momentum, self.batch_size, 224, 3, modern=False)


def read_schedtune() -> list[SchedtuneRow]:
    """Return SchedTune's jobs."""
    rows = []
    for line in _lines("schedtune_model_stats.csv"):
        card, capacity = SCHEDTUNE_CARDS[int(line["SM count"])]
        peak = round(float(line["peak mem usage"]) * MIB)
        rows.append(SchedtuneRow(line["model"], int(line["batchsize"]), card, capacity, peak))
    return rows


def possible_rows(rows: Sequence[SchedtuneRow]) -> list[SchedtuneRow]:
    """Return the jobs whose peak is not above their card's memory; the others were not measured there."""
    return [row for row in rows if row.peak <= row.capacity]


def rests(rows: Sequence[SchedtuneRow], reserved: Callable[[SchedtuneRow], Bytes]) -> dict[str, Bytes]:
    """Return each card's context: the median of what the tensors do not explain."""
    by_card = _grouped(rows, lambda row: row.card)
    return {card: round(statistics.median(row.peak - reserved(row) for row in of)) for card, of in by_card.items()}


def spread(rows: Sequence[SchedtuneRow], reserved: Callable[[SchedtuneRow], Bytes]) -> float:
    """Return how far, in median, a job lies from its card's rest: small where the setting is right."""
    rest = rests(rows, reserved)
    return statistics.median(abs(row.peak - reserved(row) - rest[row.card]) for row in rows)


def slopes(
    rows: Sequence[SchedtuneRow], reserved: Callable[[SchedtuneRow], Bytes]
) -> dict[str, dict[str, tuple[float, float]]]:
    """Return MiB per image, measured and predicted, by network and card, between the smallest and the largest batch."""
    found: dict[str, dict[str, tuple[float, float]]] = defaultdict(dict)
    for (model, card), of in _grouped(rows, lambda row: (row.model, row.card)).items():
        least = min(of, key=lambda row: row.batch_size)
        most = max(of, key=lambda row: row.batch_size)
        images = (most.batch_size - least.batch_size) * MIB
        if images:
            found[model][card] = (most.peak - least.peak) / images, (reserved(most) - reserved(least)) / images
    return dict(found)


def compare_schedtune() -> dict[str, Any]:
    """Find the setting by the smallest batch, predict all jobs that a card can have run, and compare the slopes."""
    rows = read_schedtune()
    possible = possible_rows(rows)
    smallest = [row for row in possible if row.batch_size == min(other.batch_size for other in rows)]
    runs: dict[Setting, NetworkRun] = {}
    spreads = {}
    for optimizer, workspace in product(OPTIMIZERS, WORKSPACES):
        spreads[optimizer, workspace] = spread(smallest, Jobs(optimizer, workspace, runs))
    chosen = min(spreads, key=lambda pair: spreads[pair])
    jobs = Jobs(*chosen, runs)
    context = rests(possible, jobs)
    errors = [abs((jobs(row) + context[row.card]) / row.peak - 1) for row in possible]
    return {
        "jobs": len(rows),
        "possible": len(possible),
        "setting": chosen,
        "spread_of_settings": [(*pair, value / MIB) for pair, value in spreads.items()],
        "context": context,
        "median_error": statistics.median(errors),
        "largest_error": max(errors),
        "slopes": slopes(possible, jobs),
    }


class Jobs:
    """What jobs of SchedTune's reserve, with one optimiser and one rule for workspaces.

    Args:
        runs: what was traced already, and will be: several rules for workspaces read the same traces.
    """

    def __init__(self, optimizer: str, workspace: str, runs: dict[Setting, NetworkRun]) -> None:
        card = WORKSPACES[workspace]
        self._runs = runs
        self._optimizer = optimizer
        self._gpu: GpuProfile | None = None if card is None else get_card(card)
        self._reserved: dict[Setting, Bytes] = {}

    def __call__(self, row: SchedtuneRow) -> Bytes:
        """Return the bytes that a job reserves."""
        setting = row.setting(self._optimizer)
        if setting not in self._reserved:
            if setting not in self._runs:
                self._runs[setting] = record_network(setting)
            run = self._runs[setting]
            reserved = run.reserved(run.workspaces(self._gpu))
            assert reserved is not None, "without a limit"
            self._reserved[setting] = reserved
        return self._reserved[setting]


def main() -> None:
    """Compare with both, and write ``external_memory.json``."""
    result = {"provenance": provenance(), "xmem": compare_xmem(), "schedtune": compare_schedtune()}
    save("external_memory.json", json.dumps(result, indent=1) + "\n")
    print(json.dumps({"xmem": result["xmem"]["summary"], "schedtune": result["schedtune"]}, indent=1))


def _lines(name: str) -> list[dict[str, str]]:
    with (DATA / name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _grouped(rows: Sequence[SchedtuneRow], key: Callable[[SchedtuneRow], Key]) -> dict[Key, list[SchedtuneRow]]:
    groups: dict[Key, list[SchedtuneRow]] = defaultdict(list)
    for row in rows:
        groups[key(row)].append(row)
    return groups


if __name__ == "__main__":
    main()
