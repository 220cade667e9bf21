"""A picture of ROC curves, with matplotlib from the extra ``report``."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np

from attfc_train.errors import UsageError
from attfc_train.evaluate.pairs import Bools, Floats
from attfc_train.files import write_atomically

ENDINGS: Final = (".svg", ".png")
_MOST_POINTS: Final = 2000
"""Of a curve: more cannot be seen."""


def check_picture(path: Path) -> None:
    """Refuse a picture that cannot be drawn, before anything is computed for it.

    Raises:
        UsageError: another ending, or matplotlib is not installed.
    """
    if path.suffix.lower() not in ENDINGS:
        raise UsageError(f"--roc must end in {' or '.join(ENDINGS)}", f"'{path}'", "Example: --roc roc.svg.")
    if importlib.util.find_spec("matplotlib") is None:
        raise UsageError("--roc needs the extra 'report'", "no package 'matplotlib'", "pip install 'attfc[report]'.")


def roc_points(scores: Floats, same: Bools) -> tuple[Floats, Floats]:
    """Return false and true accept rates at every threshold, from none accepted to all: float64 [distinct scores + 1] each.

    Args:
        scores: float [P], higher means more alike.
        same: bool [P], with both kinds.
    """
    order = np.argsort(-scores, kind="stable")
    # Equal scores are accepted together: a point stands after the last of them.
    last = np.append(np.flatnonzero(np.diff(scores[order])), scores.size - 1)
    truly = same[order].cumsum()[last]
    falsely = (~same[order]).cumsum()[last]
    return tuple(np.concatenate([[0.0], counts / counts[-1]]) for counts in (falsely, truly))  # type: ignore[return-value]  # two, of two


def draw_roc(path: Path, curves: Mapping[str, tuple[Floats, Bools]]) -> None:
    """Write the curves of scores and kinds by their names; the false accept rate is logarithmic, down to one pair's share.

    Raises:
        StorageError: the file cannot be written.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context({"svg.hashsalt": "attfc", "svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=(6.4, 4.8), layout="constrained")
        axes = figure.add_subplot()
        for name, (scores, same) in curves.items():
            # Matplotlib would read what is between dollars as mathematics, and leave out a name that begins with "_".
            label = " " + name.replace("$", r"\$")
            axes.step(*_visible(*roc_points(scores, same)), where="post", label=label, linewidth=1.3)
        least = min(1 / max(int((~same).sum()), 1) for _, same in curves.values())
        axes.set(xscale="log", xlim=(least, 1), ylim=(0, 1.005))
        axes.set(xlabel="false accept rate", ylabel="true accept rate", title="ROC; the left end is one false accept")
        axes.grid(alpha=0.3)
        axes.legend(loc="lower right")
        kind = path.suffix.lower().removeprefix(".")
        metadata = {"Date": None} if kind == "svg" else None
        write_atomically(path, lambda file: figure.savefig(file, format=kind, dpi=150, metadata=metadata))


def _visible(falsely: Floats, truly: Floats) -> tuple[Floats, Floats]:
    """Return at most `_MOST_POINTS` points, evenly by the logarithm of the false accept rate, and both ends."""
    if falsely.size <= _MOST_POINTS:
        return falsely, truly
    targets = np.geomspace(falsely[falsely > 0][0], 1, _MOST_POINTS)
    chosen = np.unique(np.append(np.searchsorted(falsely, targets, side="right") - 1, [0, falsely.size - 1]))
    return falsely[chosen], truly[chosen]
