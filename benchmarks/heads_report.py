"""Tables (Markdown) and a plot (SVG) of what `benchmarks.heads` recorded."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any, Final

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from attfc_train.files import write_text_atomically
from attfc_train.step.build import build
from attfc_train.units import Bytes
from benchmarks.head_variants import STUDIES, Variant, profile_of

Line = dict[str, Any]

NUM_IDS = 2_059_906
DIM = 512
"""WebFace42M's identities, and the usual embedding."""


@cache
def _head_bytes(variant: str) -> Bytes:
    base = profile_of(json.loads(variant), 112, 1000, 0)
    model = base.model.model_copy(update={"backbone": "r50", "embedding_size": DIM})
    profile = base.model_copy(update={"model": model}).resolve(NUM_IDS)
    with FakeTensorMode():
        state = build(profile, torch.device("cpu"))
        state.head.begin_step(torch.zeros(profile.optim.batch_size, dtype=torch.int64), 0)
        learned = [each for each in state.head.parameters() if each.requires_grad]
        held = [*state.head.buffers(), *state.head.parameters(), *learned, *learned]
        for rows in state.optimizer.sparse:  # the sampled rows, their gradient and momentum; the momentum of all
            held += [rows.weight, rows.rows, rows.rows, rows.rows]
        if state.class_encoder:
            held += state.class_encoder.class_encoder.parameters()
        return sum(tensor.nbytes for tensor in held)


def head_bytes(variant: Variant) -> Bytes:
    """Return the bytes of a head in the update: centers or weights, gradient, momentum, maps, and the class encoder.

    Counted on the head that `attfc_train.step.build` makes for WebFace42M and an r50, on tensors without data.
    """
    return _head_bytes(json.dumps(variant, sort_keys=True))


T_95: Final = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78, 6: 2.57, 7: 2.45, 8: 2.36}
"""Student's t for a two-sided 95 % interval, by number of seeds."""


def interval(values: Iterable[float]) -> str:
    """Mean and half width of its 95 % confidence interval over seeds, in percent."""
    numbers = [100 * value for value in values]
    if len(numbers) < 2:
        return f"{numbers[0]:.1f}" if numbers else "-"
    half = T_95[min(len(numbers), max(T_95))] * statistics.stdev(numbers) / math.sqrt(len(numbers))
    return f"{statistics.mean(numbers):.1f} ± {half:.1f}"


def report(lines: list[Line], folder: Path | None) -> None:
    """Print all tables; with a folder also write them as ``heads.md`` and the plot as ``heads.svg``."""
    settings = sorted({_setting(line) for line in lines}, key=str)
    text = "\n".join(part for setting in settings for part in _section([x for x in lines if _setting(x) == setting], setting))
    print(text)
    if folder:
        write_text_atomically(folder / "heads.md", "# Heads compared\n\n" + _LEGEND + "\n\n" + text + "\n")
        plot(lines, settings, folder / "heads.svg")


_LEGEND = (
    "Written by `python -m benchmarks.heads --report` from `heads.jsonl`. Accuracy of ten-fold verification and area under the "
    "ROC curve (AUC) on identities that were not trained on, percent, mean over seeds ± half width of the 95 % confidence "
    "interval (Student's t; it covers the seeds, not the choice of the pairs). Head memory is what a "
    "head holds while weights are updated, counted on the head as it is built for 2,059,906 identities, 512 dimensions and "
    "an r50."
)


def _setting(line: Line) -> tuple[str, int, int]:
    return line["data"], line["image_size"], line["full_steps"]


def _section(lines: list[Line], setting: tuple[str, int, int]) -> list[str]:
    """Markdown of one data set's studies."""
    data, size, steps = setting
    parts = [f"## {data}, {size} pixels, {steps} steps of 128 images\n"]
    for study, variants in STUDIES.items():
        rows = [row for name in variants if (row := _row(lines, name, study == "heads"))]
        if rows:
            parts.append(f"### {study}\n\n{_header(study == 'heads')}\n" + "\n".join(rows) + "\n")
    return parts


def _header(both: bool) -> str:
    columns = ["head", "head memory", "accuracy, same images", "AUC, same images"]
    columns += ["steps in the same time", "accuracy, same time", "AUC, same time"] if both else []
    return "| " + " | ".join(columns) + " |\n" + "|---" * len(columns) + "|"


def _row(lines: list[Line], name: str, both: bool) -> str:
    """Return one variant's line of a table; empty where nothing was recorded."""
    images = [line for line in lines if line.get("name") == name and line["equal"] == "images"]
    times = [line for line in lines if line.get("name") == name and line["equal"] == "time"]
    if not images:
        return ""
    memory = f"{head_bytes(images[0]['variant']) / 1e9:.1f} GB"
    cells = [name, memory, interval(line["accuracy"] for line in images), _auc(images)]
    if both:
        cells += [str(times[0]["steps"]) if times else "-", interval(line["accuracy"] for line in times), _auc(times)]
    return "| " + " | ".join(cells) + " |"


def _auc(lines: list[Line]) -> str:
    return interval(line["auc"] for line in lines if line["auc"] is not None)


def plot(lines: list[Line], settings: list[tuple[str, int, int]], path: Path) -> None:
    """AUC of every head for the same images, one panel per data set; skipped without matplotlib (the ``[report]`` extra)."""
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError:
        print("no plot: matplotlib is not installed (pip install 'attfc[report]')")
        return
    figure = Figure(figsize=(5.2 * len(settings), 4.2), layout="constrained")
    for axes, setting in zip(figure.subplots(1, len(settings), squeeze=False)[0], settings, strict=True):
        _panel(axes, [line for line in lines if _setting(line) == setting], setting)
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "attfc"}):  # text as text, and the same file every time
        figure.savefig(path, metadata={"Date": None})


def _panel(axes: Any, lines: list[Line], setting: tuple[str, int, int]) -> None:
    names = [name for name in STUDIES["heads"] if any(line.get("name") == name for line in lines)]
    for row, name in enumerate(names):
        for equal, marker, offset in (("images", "o", -0.12), ("time", "s", 0.12)):
            values = [100 * x["auc"] for x in lines if x.get("name") == name and x["equal"] == equal and x["auc"] is not None]
            if values:
                color = "tab:blue" if equal == "images" else "tab:orange"
                axes.plot(values, [row + offset] * len(values), marker, color=color, alpha=0.35, markersize=4)
                axes.plot([statistics.mean(values)], [row + offset], marker, color=color, label=equal if row == 0 else None)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlabel("area under the ROC curve, %")
    axes.set_title(f"{setting[0]}, {setting[1]} px, {setting[2]} steps", fontsize=10)
    axes.grid(axis="x", alpha=0.3)
    axes.legend(title="same", fontsize=8)
