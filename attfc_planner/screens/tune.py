"""A tuning on the screen: one moving line while it runs, tables when it ends."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from rich.console import Console, RenderableType
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn
from rich.table import Table
from rich.text import Text

from attfc_planner.accuracy.prior import POINTS_PER_LOG_ODDS, Z
from attfc_planner.accuracy.regression import MeasuredAccuracy
from attfc_planner.knobs.space import Setting
from attfc_planner.screens.plan import head_keeps, interval
from attfc_planner.tune.question import Question, varied, words
from attfc_planner.tune.stages.budget import Scale
from attfc_planner.tune.stages.scaling import NUM_CHECKS, ratios
from attfc_planner.tune.stages.steps import neighbours
from attfc_planner.tune.stages.training_trial import short_profile
from attfc_planner.tune.studies.claim import Record
from attfc_planner.tune.verdict.result import Comparison, Verdict, against_full_fc, points
from attfc_planner.tune.verdict.ties import Accuracy
from attfc_planner.tune.verdict.trained import Trained
from attfc_train.profile.prediction import Interval
from attfc_train.profile.profile import TrainProfile
from attfc_train.units import format_bytes, format_seconds


@dataclass(frozen=True)
class Importances:
    """Shares of the knobs in speed, memory and accuracy, or why they are not known."""

    speed: dict[str, float] | str
    memory: dict[str, float] | str
    accuracy: dict[str, float] | str


class _TimeLeft(ProgressColumn):
    """The time until the deadline, whatever is done by then."""

    def __init__(self, deadline: float) -> None:
        super().__init__()
        self._deadline = deadline

    def render(self, task: Task) -> Text:
        """Return the column's text, the same for every task."""
        del task
        return Text(f"{format_seconds(max(0.0, self._deadline - time.monotonic()))} left")


class TuneScreen:
    """A `Watcher` on the console; off a terminal only the lines that stay are printed.

    Args:
        deadline: of `time.monotonic`.
    """

    def __init__(self, console: Console, deadline: float) -> None:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(20),
            MofNCompleteColumn(),
            TextColumn("best {task.fields[best]}"),
        )
        self._progress = Progress(*columns, _TimeLeft(deadline), console=console, disable=not console.is_terminal)
        self._task = self._progress.add_task("starting", total=None, best="none yet")
        self._console = console

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self._progress.stop()

    def say(self, text: str) -> None:
        """Print one line that stays: see `Watcher`."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def show(self, stage: str, done: int, total: int, best: str) -> None:
        """Update the line that moves: see `Watcher`."""
        self._progress.update(self._task, description=stage, completed=done, total=total, best=best)


def show_start(console: Console, question: Question, study: str, storage: str, num_trials: int) -> None:
    """Print what is tuned, where it is recorded, and on whom accuracy is measured."""
    split = question.split
    gpu = question.gpu
    so_far = f", {num_trials} trials so far" if num_trials else ""
    held_out = (
        f"accuracy on pairs of {split.num_held_out:,} held-out identities ({split.val[0]})"
        if split.num_held_out
        else f"accuracy on {', '.join(split.val)}"
    )
    console.print(Text(f"Tuning on {gpu.name}: {format_bytes(gpu.capacity_bytes)} ({gpu.source})", style="bold"))
    console.print(f"{question.request.num_ids:,} identities, {held_out}", highlight=False, soft_wrap=True)
    teacher = question.base.teacher
    if teacher.is_on:
        console.print(f"Teacher of every training: {teacher.describe()}, from {teacher.path}", highlight=False, soft_wrap=True)
    console.print(f"Study '{study}' in {storage}{so_far}; optuna-dashboard opens it.", highlight=False, soft_wrap=True)
    console.print(f"The plan's choice: {words(question.plan.chosen.setting)}", highlight=False, soft_wrap=True)
    for kind, missing in question.heads_not_tried.items():
        line = f"Not tried: head {kind}, of which no setting is predicted to be within the limits: {missing}"
        console.print(line, highlight=False, soft_wrap=True)


def show_verdict(
    console: Console,
    question: Question,
    result: Verdict,
    profile: TrainProfile,
    steps: Sequence[Record],
    scale: Scale | None,
    importances: Importances,
) -> None:
    """Print everything that a tuning ends with.

    Args:
        profile: that was made of `result`.
        steps: trials of real steps.
        scale: of the short trainings; None if there were none.
    """
    panels: list[tuple[str, RenderableType]] = [("Real steps", _steps_table(steps))]
    if scale is not None:
        panels.append(("Short trainings: what they keep", _scaling_table(question, result, scale)))
    if result.comparisons:
        panels.append(("Short trainings: accuracy", _trainings_table(question, result)))
    if result.model is not None:
        title = "One knob from the chosen setting, by regression over all trainings"
        panels.append((title, _knob_table(question, result, result.model)))
    panels.append(("Which knobs mattered (PED-ANOVA)", _importance_table(importances)))
    panels.append(("Chosen setting", _chosen_table(question, result, profile)))
    for title, body in panels:
        console.print(Panel(body, title=title, title_align="left"))


def _steps_table(steps: Sequence[Record]) -> Table:
    outcomes: dict[str, int] = {}
    for record in steps:
        if "dropped" not in record.notes:
            outcome = str(record.notes.get("outcome", record.state))
            outcomes[outcome] = outcomes.get(outcome, 0) + 1
    ran = [record.notes for record in steps if record.state == "complete"]
    misses = [notes["peak_bytes"] / notes["predicted_bytes"] - 1 for notes in ran]
    rows = [("trials", ", ".join(f"{count} {outcome}" for outcome, count in outcomes.items()))]
    if misses:
        spread = f"median {statistics.median(misses):+.1%}, from {min(misses):+.1%} to {max(misses):+.1%}"
        rows.append(("measured memory against predicted", spread))
    return _pairs(rows)


def _scaling_table(question: Question, result: Verdict, scale: Scale) -> RenderableType:
    short = short_profile(question, result.chosen.setting, scale)
    table = Table(box=None, pad_edge=False)
    table.add_column(f"{short.num_ids:,} of {question.request.num_ids:,} identities, {short.total_steps:,} steps")
    for title in ("full run", "short run", ""):
        table.add_column(title, justify="right", no_wrap=True)
    for ratio in ratios(result.chosen.profile, short):
        mark = Text("kept", style="dim") if ratio.is_kept else Text("not kept", style="yellow")
        table.add_row(ratio.name, f"{ratio.full:.4g}", f"{ratio.short:.4g}", mark)
    return table


def _trainings_table(question: Question, result: Verdict) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("setting", overflow="fold")
    for title in ("accuracy %", "at"):
        table.add_column(title, justify="right", no_wrap=True)
    # Wraps: with 'not tested: too few pairs' in one line, 80 columns leave none for the setting.
    table.add_column("against the best", justify="right", min_width=18)
    names = _told_apart_by(question, result)
    for comparison in result.comparisons:
        style = "bold" if comparison.trained.setting == result.chosen.setting else None
        table.add_row(*_cells(comparison, comparison is result.comparisons[0], names), style=style)
    full_fc = result.baseline
    if full_fc is not None and full_fc.accuracy is not None:
        table.add_row("full FC layer", _percent(full_fc.accuracy), _at(full_fc), "")
    table.caption = "± 95 %: pairs, in differences also seeds; what was stopped is compared where it stopped"
    table.caption_justify = "left"
    return table


def _cells(comparison: Comparison, is_best: bool, names: list[str]) -> tuple[str, str, str, str]:
    trained = comparison.trained
    assert trained.setting is not None, "a setting"
    assert trained.accuracy is not None, "only what reported is compared"
    behind = "best" if is_best else points(comparison.against_best)
    return words(trained.setting, names) or words(trained.setting), _percent(trained.accuracy), _at(trained), behind


def _told_apart_by(question: Question, result: Verdict) -> list[str]:
    """Return the knobs in which trained settings differ, but for those that only trade memory for time."""
    names = varied(each.trained.setting for each in result.comparisons if each.trained.setting is not None)
    learning = {knob.name for space in question.spaces for knob in space.knobs if "accuracy" in knob.affects}
    return [name for name in names if name in learning]


def _percent(accuracy: Accuracy) -> str:
    return f"{100 * accuracy.value:.2f} ± {100 * accuracy.half_width:.2f}"


def _at(trained: Trained) -> str:
    """Return how far the trainings of a setting got."""
    if not trained.finished:
        return f"{max(trained.checks)}/{NUM_CHECKS}"
    return "end" if trained.num_finished == 1 else f"end, {trained.num_finished} seeds"


def _knob_table(question: Question, result: Verdict, model: MeasuredAccuracy) -> Table:
    """Return what every neighbour of the chosen setting gains in accuracy, and how much of that is the prior's word."""
    table = Table(box=None, pad_edge=False)
    table.add_column("instead", overflow="fold")
    for title in ("points", "of the prior's variance left"):
        table.add_column(title, justify="right", no_wrap=True)
    chosen = result.chosen.setting
    others = [each for each in (question.plan.chosen.setting, *question.other_heads) if each.head != chosen.head]
    for other in (*others, *neighbours(question, chosen)):
        gap = model.difference(other.applied_to(question.base), result.chosen.profile)
        if gap.deviation:  # checkpointing and accumulation change no accuracy
            shown = f"{POINTS_PER_LOG_ODDS * gap.mean:+.2f} ± {POINTS_PER_LOG_ODDS * Z * gap.deviation:.2f}"
            table.add_row(words(other, _told(chosen, other)), shown, f"{gap.unknown:.0%}")
    return table


def _told(chosen: Setting, other: Setting) -> list[str]:
    """Return the knobs to name of another setting: where it differs, and of another kind of head all of the head's own."""
    return [name for name in varied((chosen, other)) if other.get(name) is not None]


def _importance_table(importances: Importances) -> Table:
    return _pairs(
        [
            ("images/s", _shares(importances.speed)),
            ("memory", _shares(importances.memory)),
            ("accuracy", _shares(importances.accuracy)),
        ]
    )


def _shares(shares: dict[str, float] | str) -> str:
    if isinstance(shares, str):
        return f"not known: {shares}"
    ordered = sorted(shares.items(), key=lambda item: -item[1])
    return ", ".join(f"{name} {share:.0%}" for name, share in ordered)


def _chosen_table(question: Question, result: Verdict, profile: TrainProfile) -> Table:
    max_accuracy_drop = question.limits.max_accuracy_drop
    prediction = profile.prediction
    assert prediction is not None, "a tuned profile has one"
    memory = prediction.memory
    changed = ", ".join(f"{name} {before} -> {after}" for name, (before, after) in result.changes.items())
    decimals = 1 if prediction.images_per_second.high < 100 else 0
    rows = [
        ("setting", words(result.chosen.setting)),
        *([("DCC size", f"{profile.dcc_size:,} slots")] if profile.dcc_size else []),
        *head_keeps(profile),
        ("rule", result.rule),
        ("against the plan", f"{changed or 'no change'}. {result.why}"),
        ("memory", f"{format_bytes(memory.total_bytes)} of {format_bytes(memory.budget_bytes)}"),
        ("images/s", f"{interval(prediction.images_per_second, decimals)}; {prediction.images_per_second.source}"),
        ("against full FC", _against_full_fc(result, prediction.accuracy)),
        ("tied with the best", _tied(question, result)),
    ]
    if prediction.accuracy.high < -max_accuracy_drop:
        rows.append(("accuracy floor", f"missed: all of the interval is below --max-accuracy-drop {max_accuracy_drop:g}"))
    return _pairs(rows)


def _against_full_fc(result: Verdict, accuracy: Interval) -> str:
    """Return the points against a full FC layer; a prior's as what they are, where nothing was tested."""
    points = f"{interval(accuracy, 2, sign=True)} points"
    if not accuracy.source.startswith("prior"):
        return f"{points}; {accuracy.source}{_own_difference(result, accuracy)}"
    reason = result.untested or "it and a full FC layer were not both trained"
    return f"not tested: {reason}. Expected: {points}; {accuracy.source}"


def _own_difference(result: Verdict, accuracy: Interval) -> str:
    """Return what the chosen setting's own trainings say, where the regression over all of them says something else."""
    own = against_full_fc(result)
    if own is None:
        return ""
    low, high = own.points
    if low <= accuracy.high and accuracy.low <= high:
        return ""
    place = "" if own.check == NUM_CHECKS else f" at check {own.check} of {NUM_CHECKS}"
    return f". Its own trainings alone say {low:+.2f} to {high:+.2f} points{place}; the regression leans on all others too"


def _tied(question: Question, result: Verdict) -> str:
    if result.untested:
        return f"not tested: {result.untested}"
    if len(result.comparisons) == 1:
        return "not tested: no other setting was trained"
    names = _told_apart_by(question, result)
    best = result.comparisons[0]
    tied = [(each.trained.setting, each.check) for each in result.tied if each is not best]
    texts = [(words(setting, names), check) for setting, check in tied if setting is not None]
    return "; ".join(text if check == NUM_CHECKS else f"{text} (when stopped)" for text, check in texts) or "none"


def _pairs(rows: Sequence[tuple[str, str]]) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, Text(value))
    return table
