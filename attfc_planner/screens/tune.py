"""What a tuning looks like on the screen: one moving line while it runs, tables when it ends."""

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

from attfc_planner.accuracy.features import POINTS_PER_LOG_ODDS
from attfc_planner.accuracy.regression import MeasuredAccuracy, Z
from attfc_planner.knobs.space import knobs_of
from attfc_planner.screens.plan import interval
from attfc_planner.tune.question import Question, varied, words
from attfc_planner.tune.stages.budget import Scale
from attfc_planner.tune.stages.scaling import NUM_CHECKS, ratios
from attfc_planner.tune.stages.steps import neighbours
from attfc_planner.tune.stages.training_trial import short_profile
from attfc_planner.tune.studies.claim import Record
from attfc_planner.tune.verdict.result import Comparison, Verdict, points
from attfc_planner.tune.verdict.ties import Accuracy
from attfc_planner.tune.verdict.trained import Trained
from attfc_train.profile.profile import TrainProfile
from attfc_train.units import format_bytes, format_seconds


@dataclass(frozen=True)
class Importances:
    """Share of every knob, or why it is not known."""

    speed: dict[str, float] | str
    memory: dict[str, float] | str
    accuracy: dict[str, float] | str


class _TimeLeft(ProgressColumn):
    """Until the deadline, whatever is done by then."""

    def __init__(self, deadline: float) -> None:
        super().__init__()
        self._deadline = deadline

    def render(self, task: Task) -> Text:  # noqa: ARG002  # rich's
        """See `ProgressColumn`."""
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
        """See `Watcher`."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def show(self, stage: str, done: int, total: int, best: str) -> None:
        """See `Watcher`."""
        self._progress.update(self._task, description=stage, completed=done, total=total, best=best)


def show_start(console: Console, question: Question, study: str, storage: str, num_trials: int) -> None:
    """What is tuned, where it is recorded, and on whom accuracy is measured."""
    split, gpu = question.split, question.gpu
    known = f", {num_trials} trials so far" if num_trials else ""
    held_out = (
        f"accuracy on pairs of {split.num_held_out:,} held-out identities ({split.val[0]})"
        if split.num_held_out
        else f"accuracy on {', '.join(split.val)}"
    )
    console.print(Text(f"Tuning on {gpu.name}: {format_bytes(gpu.capacity_bytes)} ({gpu.source})", style="bold"))
    console.print(f"{question.request.num_ids:,} identities, {held_out}", highlight=False, soft_wrap=True)
    console.print(f"Study '{study}' in {storage}{known}; optuna-dashboard opens it.", highlight=False, soft_wrap=True)
    console.print(f"The plan's choice: {words(question.plan.chosen.setting)}", highlight=False, soft_wrap=True)


def show_verdict(
    console: Console,
    question: Question,
    found: Verdict,
    profile: TrainProfile,
    steps: Sequence[Record],
    scale: Scale | None,
    importances: Importances,
) -> None:
    """Everything that a tuning ends with."""
    console.print(Panel(_steps_table(steps), title="Real steps", title_align="left"))
    if scale is not None:
        console.print(
            Panel(_scaling_table(question, found, scale), title="Short trainings: what they keep", title_align="left")
        )
    if found.comparisons:
        console.print(Panel(_trainings_table(found), title="Short trainings: accuracy", title_align="left"))
    if found.model is not None:
        title = "One knob from the chosen setting, by regression over all trainings"
        console.print(Panel(_knob_table(question, found, found.model), title=title, title_align="left"))
    console.print(Panel(_importance_table(importances), title="Which knobs mattered (PED-ANOVA)", title_align="left"))
    console.print(
        Panel(_chosen_table(found, profile, question.limits.max_accuracy_drop), title="Chosen setting", title_align="left")
    )


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
        rows.append(
            (
                "measured memory against predicted",
                f"median {statistics.median(misses):+.1%}, from {min(misses):+.1%} to {max(misses):+.1%}",
            )
        )
    return _pairs(rows)


def _scaling_table(question: Question, found: Verdict, scale: Scale) -> RenderableType:
    short = short_profile(question, found.chosen.setting, scale)
    table = Table(box=None, pad_edge=False)
    table.add_column(f"{short.num_ids:,} of {question.request.num_ids:,} identities, {short.total_steps:,} steps")
    for title in ("full run", "short run", ""):
        table.add_column(title, justify="right", no_wrap=True)
    for ratio in ratios(found.chosen.profile, short):
        mark = Text("kept", style="dim") if ratio.is_kept else Text("not kept", style="yellow")
        table.add_row(ratio.name, f"{ratio.full:.4g}", f"{ratio.short:.4g}", mark)
    return table


def _trainings_table(found: Verdict) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("setting", overflow="fold")
    for title in ("accuracy %", "at", "against the best"):
        table.add_column(title, justify="right", no_wrap=True)
    names = _told_apart_by(found)
    for one in found.comparisons:
        style = "bold" if one.trained.setting == found.chosen.setting else None
        table.add_row(*_cells(one, one is found.comparisons[0], names), style=style)
    if found.baseline is not None and found.baseline.accuracy is not None:
        accuracy = found.baseline.accuracy
        table.add_row("full FC layer", _percent(accuracy), _at(found.baseline), "")
    table.caption = "± 95 %: pairs, in differences also seeds; what was stopped is compared where it stopped"
    table.caption_justify = "left"
    return table


def _cells(one: Comparison, is_best: bool, names: list[str]) -> tuple[str, str, str, str]:
    accuracy = one.trained.accuracy
    assert one.trained.setting is not None, "a setting"
    assert accuracy is not None, "only what reported is compared"
    behind = "best" if is_best else points(one.against_best)
    return words(one.trained.setting, names) or words(one.trained.setting), _percent(accuracy), _at(one.trained), behind


def _told_apart_by(found: Verdict) -> list[str]:
    """Return the knobs in which trained settings differ, but for those that only trade memory for time."""
    names = varied(one.trained.setting for one in found.comparisons if one.trained.setting is not None)
    knobs = {knob.name: knob for knob in knobs_of(type(found.chosen.profile.head))}
    return [name for name in names if "accuracy" in knobs[name].affects]


def _percent(accuracy: Accuracy) -> str:
    return f"{100 * accuracy.value:.2f} ± {100 * accuracy.half_width:.2f}"


def _at(trained: Trained) -> str:
    if not trained.finished:
        return f"{max(trained.checks)}/{NUM_CHECKS}"
    return "end" if trained.num_finished == 1 else f"end, {trained.num_finished} seeds"


def _knob_table(question: Question, found: Verdict, model: MeasuredAccuracy) -> Table:
    """What every neighbour of the chosen setting gains or loses in accuracy, and how much of that is the prior's word."""
    table = Table(box=None, pad_edge=False)
    table.add_column("instead", overflow="fold")
    for title in ("points", "of the prior's variance left"):
        table.add_column(title, justify="right", no_wrap=True)
    chosen = found.chosen.setting
    for other in neighbours(question, chosen):
        gap = model.difference(other.applied_to(question.base), found.chosen.profile)
        if gap.deviation:  # checkpointing and accumulation change no accuracy
            shown = f"{POINTS_PER_LOG_ODDS * gap.mean:+.2f} ± {POINTS_PER_LOG_ODDS * Z * gap.deviation:.2f}"
            table.add_row(words(other, varied((chosen, other))), shown, f"{gap.unknown:.0%}")
    return table


def _importance_table(importances: Importances) -> Table:
    rows = []
    for name, shares in (
        ("images/s", importances.speed),
        ("memory", importances.memory),
        ("accuracy", importances.accuracy),
    ):
        ordered = shares if isinstance(shares, str) else ", ".join(_shares(shares))
        rows.append((name, f"not known: {shares}" if isinstance(shares, str) else ordered))
    return _pairs(rows)


def _shares(shares: dict[str, float]) -> list[str]:
    ordered = sorted(shares.items(), key=lambda item: -item[1])
    return [f"{name} {share:.0%}" for name, share in ordered]


def _chosen_table(found: Verdict, profile: TrainProfile, max_accuracy_drop: float) -> Table:
    prediction, setting = profile.prediction, found.chosen.setting
    assert prediction is not None, "a tuned profile has one"
    memory = prediction.memory
    changed = ", ".join(f"{name} {before} -> {after}" for name, (before, after) in found.changes.items())
    decimals = 1 if prediction.images_per_second.high < 100 else 0
    rows = [
        ("setting", words(setting)),
        ("DCC size", f"{profile.dcc_size:,} slots"),
        ("rule", found.rule),
        ("against the plan", f"{changed or 'no change'}. {found.why}"),
        ("memory", f"{format_bytes(memory.total_bytes)} of {format_bytes(memory.budget_bytes)}"),
        ("images/s", f"{interval(prediction.images_per_second, decimals)}; {prediction.images_per_second.source}"),
        ("against full FC", f"{interval(prediction.accuracy, 2, sign=True)} points; {prediction.accuracy.source}"),
        ("tied with the best", _tied(found)),
    ]
    if prediction.accuracy.high < -max_accuracy_drop:
        rows.append(("accuracy floor", f"missed: all of the interval is below --max-accuracy-drop {max_accuracy_drop:g}"))
    return _pairs(rows)


def _tied(found: Verdict) -> str:
    if not found.comparisons:
        return "unknown: no short training reported"
    names = _told_apart_by(found)
    others = [one for one in found.tied if one is not found.comparisons[0]]
    shown = [(words(one.trained.setting, names), one.check) for one in others if one.trained.setting is not None]
    return "; ".join(text if check == NUM_CHECKS else f"{text} (when stopped)" for text, check in shown) or "none"


def _pairs(rows: Sequence[tuple[str, str]]) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, Text(value))
    return table
