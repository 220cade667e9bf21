"""Figures, table and picture of `benchmarks.real_allocator`'s lines."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attfc_train.cuda_environment import PLANNED_ALLOCATOR
from attfc_train.files import write_text_atomically
from attfc_train.units import GIB, MIB
from benchmarks.standin import CONTEXT

Line = dict[str, Any]
NAME = "real_allocator"
FAR = 0.03
"""Of the card: what a false alarm may cost."""
_RUNS = ("with headroom", "need", "need - 64 MiB")


def write_report(lines: Sequence[Line], folder: Path) -> None:
    """Print the figures; write ``real_allocator.json``, ``.md`` and, where matplotlib is installed, ``.svg``."""
    figures = summary(lines)
    write_text_atomically(folder / f"{NAME}.json", json.dumps(figures, indent=1) + "\n")
    text = markdown(figures)
    print(text)
    write_text_atomically(folder / f"{NAME}.md", text + "\n" + _every_case(lines))
    plot(lines, folder / f"{NAME}.svg")


def summary(lines: Sequence[Line]) -> dict[str, Any]:
    """Return errors of the free runs by allocator, and the fate of the capped ones."""
    free = [line for line in lines if line["kind"] == "free"]
    capped = [line for line in lines if line["kind"] == "capped"]
    settings = dict.fromkeys(line["allocator"] for line in free)
    return {
        "free": {setting: _errors([line for line in free if line["allocator"] == setting]) for setting in settings},
        "capped": {what: _fates([line for line in capped if line["what"] == what]) for what in _RUNS if capped},
        "edges": _edges(capped),
        "torch": sorted({line["provenance"]["torch"] for line in lines}),
        "commits": sorted({line["provenance"]["commit"] for line in lines}),
        "dates": sorted({line["provenance"]["date"][:10] for line in lines}),
    }


def _errors(lines: Sequence[Line]) -> dict[str, Any]:
    """Return the relative errors, predicted / measured - 1, of what ran to its end."""
    ran = [line for line in lines if line["outcome"] == "ran"]
    result: dict[str, Any] = {"cases": len(lines), "ran": len(ran), "not": [line["name"] for line in lines if line not in ran]}
    for field in ("allocated", "reserved"):
        errors = [(line["predicted"][field] / line["measured"][field] - 1, line["name"]) for line in ran]
        if errors:
            worst = max(errors, key=lambda error: abs(error[0]))
            result[field] = {
                "median": statistics.median(abs(error) for error, _ in errors),
                "largest": worst[0],
                "of": worst[1],
                "exact": sum(error == 0 for error, _ in errors),
                "under": sum(error < 0 for error, _ in errors),
            }
    return result


def _fates(lines: Sequence[Line]) -> dict[str, Any]:
    outcomes = [line["outcome"] for line in lines]
    return {outcome: outcomes.count(outcome) for outcome in ("ran", "out of memory", "failed", "out of time")} | {
        "died": [line["name"] for line in lines if line["outcome"] == "out of memory"]
    }


def _edges(lines: Sequence[Line]) -> dict[str, Any]:
    """Return how far the edge that was found lies below the prediction, and above the least that the replay survives.

    Between edge and prediction a run lives by giving its cache back again and again; how many edges lie there by more than
    `FAR` of the card is told, too.
    """
    found = [line for line in lines if line["what"] == "edge" and line["outcome"] == "ran"]
    below = [1 - line["measured"]["reserved"] / line["predicted"]["reserved"] for line in found]
    above = [line["measured"]["reserved"] / line["predicted"]["floor"] - 1 for line in found]
    far = [1 - (line["measured"]["reserved"] + CONTEXT) / (line["predicted"]["reserved"] + CONTEXT) for line in found]
    counts = {"settings": len(far), "far": sum(share > FAR for share in far), "farthest": max(far, default=0.0)}
    return counts | {
        name: {"median": statistics.median(shares), "least": min(shares), "largest": max(shares)}
        for name, shares in (("below the prediction", below), ("above the floor", above))
        if shares
    }


def markdown(figures: dict[str, Any]) -> str:
    """Return the figures as text."""
    parts = [
        "# Predictions on torch's real allocator\n",
        f"Stand-in device, torch {', '.join(figures['torch'])}, commit {', '.join(figures['commits'])}, "
        f"{', '.join(figures['dates'])}. Errors are predicted / measured - 1.\n",
        "| allocator | what | cases | exact | under | median | largest |\n|---|---|---|---|---|---|---|",
    ]
    for setting, errors in figures["free"].items():
        kind = "expandable segments" if setting == PLANNED_ALLOCATOR else "native segments"
        for field in ("allocated", "reserved"):
            row = errors.get(field)
            if row:
                parts.append(
                    f"| {kind} | {field} | {errors['ran']} | {row['exact']} | {row['under']} | {row['median']:.2%} "
                    f"| {row['largest']:+.2%} ({row['of']}) |"
                )
    parts.append("\n| card cut to | runs | lived | died | other |\n|---|---|---|---|---|")
    for what, fates in figures["capped"].items():
        runs = fates["ran"] + fates["out of memory"] + fates["failed"] + fates["out of time"]
        parts.append(
            f"| {what} | {runs} | {fates['ran']} | {fates['out of memory']} | {fates['failed'] + fates['out of time']} |"
        )
    edges = figures["edges"]
    parts.append(f"\n{edges['far']} of {edges['settings']} edges lie more than {FAR:.0%} of the card below the prediction.")
    for what in (name for name, shares in edges.items() if isinstance(shares, dict)):
        shares = edges[what]
        parts.append(f"\nEdge {what}: median {shares['median']:.1%}, {shares['least']:.1%} to {shares['largest']:.1%}.")
    return "\n".join(parts) + "\n"


def _every_case(lines: Sequence[Line]) -> str:
    rows = ["| case | run | predicted, MiB: allocated, reserved | measured | outcome |", "|---|---|---|---|---|"]
    for line in sorted(lines, key=lambda each: (each["kind"], each["name"])):
        predicted, measured = line["predicted"], line["measured"]
        figures = [f"{predicted[name] / MIB:.1f}" for name in ("allocated", "reserved")]
        real = [f"{(measured[name] or 0) / MIB:.1f}" for name in ("allocated", "reserved")]
        what = line.get("what") or ("expandable" if line["allocator"] == PLANNED_ALLOCATOR else "native")
        rows.append(f"| {line['name']} | {what} | {', '.join(figures)} | {', '.join(real)} | {line['outcome']} |")
    return "## Run by run\n\n" + "\n".join(rows) + "\n"


def plot(lines: Sequence[Line], path: Path) -> None:
    """Plot predicted against measured reserved bytes; skipped without matplotlib (the ``[report]`` extra)."""
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError:
        print("no plot: matplotlib is not installed (pip install 'attfc[report]')")
        return
    figure = Figure(figsize=(9.6, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    free = [line for line in lines if line["kind"] == "free" and line["outcome"] == "ran"]
    for setting in dict.fromkeys(line["allocator"] for line in free):
        rows = [line for line in free if line["allocator"] == setting]
        measured = [line["measured"]["reserved"] / GIB for line in rows]
        predicted = [line["predicted"]["reserved"] / GIB for line in rows]
        errors = [100 * (guess / truth - 1) for guess, truth in zip(predicted, measured, strict=True)]
        label = "expandable segments" if setting == PLANNED_ALLOCATOR else "native segments"
        left.loglog(measured, predicted, "o", alpha=0.5, markersize=4, label=label)
        right.semilogx(measured, errors, "o", alpha=0.5, markersize=4, label=label)
    ends = [end(line["measured"]["reserved"] / GIB for line in free) for end in (min, max)] if free else []
    left.plot(ends, ends, color="black", linewidth=0.8)
    left.set(xlabel="measured, GiB", ylabel="predicted, GiB", title="reserved by the allocator")
    right.set(xlabel="measured, GiB", ylabel="error, %", title="error of the prediction")
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "attfc"}):  # text as text, and the same file every time
        figure.savefig(path, metadata={"Date": None})
