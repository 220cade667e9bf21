"""``best.pt`` when a run goes back: a model of steps that are done again, perhaps otherwise, is not this run's.

The record tells: an evaluation after the checkpoint, and better than the best that the checkpoint knows, has replaced the file.
It must be asked before the record is cut (`attfc_train.run.log`), and the record is on the disk before ``best.pt`` is.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from attfc_train.profile.profile import TrainProfile
from attfc_train.run.checkpoint import Checkpoint
from attfc_train.run.log import read_log
from attfc_train.run.loop import BEST_FILE


def still_best(folder: Path, checkpoint: Checkpoint, profile: TrainProfile, say: Callable[[str], None]) -> float | None:
    """Remove a best model of later steps than the checkpoint's, and return the accuracy that the next one has to exceed.

    Steps that are done again with the same settings come to the same model, and to the same accuracy. With other settings they
    may not, and the best model before is lost: then the next one is the best.

    Args:
        profile: with which the run goes on.
    """
    path = folder / BEST_FILE
    is_changed = profile != checkpoint.profile
    undone = _undone(folder, checkpoint.step, checkpoint.best_accuracy, len(profile.run.val))
    if undone is not None and path.is_file():
        path.unlink()
        if is_changed:
            say(f"{path} was of step {undone:,}, which is done again: removed; the next evaluation makes another.")
    return checkpoint.best_accuracy if path.is_file() or not is_changed else None


def _undone(folder: Path, step: int, best_accuracy: float | None, num_sets: int) -> int | None:
    """Return the last step after `step` whose evaluation replaced the best model; None: none did.

    Args:
        num_sets: verification sets; fewer lines than that are of an evaluation that was cut short.
    """
    accuracies: dict[int, list[float]] = {}
    for record in read_log(folder):
        accuracy = record.get("accuracy")
        if record["event"] == "evaluate" and record["step"] > step and isinstance(accuracy, float):
            accuracies.setdefault(record["step"], []).append(accuracy)
    best = -1.0 if best_accuracy is None else best_accuracy
    better = [at for at, each in accuracies.items() if len(each) == num_sets and sum(each) / num_sets > best]
    return max(better, default=None)
