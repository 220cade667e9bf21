"""An explanation on the screen: terms, peak, timeline, knobs and the prior's parts, from 80 columns up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from attfc_planner.accuracy.prior import assumptions
from attfc_planner.explain.explain import Explanation, KnobChange, grouped_terms
from attfc_planner.knobs.space import CHECKPOINTING_PHRASES
from attfc_planner.screens.plan import interval
from attfc_planner.screens.timeline_chart import timeline_chart
from attfc_planner.search.words import loading_words
from attfc_train.units import GIB, MIB, Bytes, format_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable

    from attfc_planner.speed.model import SpeedPrediction
    from attfc_train.profile.prediction import MemoryTerm


def show_explanation(console: Console, explained: Explanation, differences: Iterable[str]) -> None:
    """Print everything.

    Args:
        differences: the lines of `attfc_planner.explain.explain.differences`.
    """
    console.print(_headline(explained), highlight=False)
    for line in differences:
        console.print(Text(line, style="yellow"))
    width = console.width - 4
    parts = (
        (_title(explained), Group(_terms(explained), Text(_head_keeps(explained)))),
        ("Peak", _peak(explained)),
        ("Memory over the step", timeline_chart(explained.timeline, explained.room_bytes, width)),
        ("One knob at a time", _knobs(explained)),
        *_accuracy(explained),
    )
    for title, body in parts:
        console.print(Panel(body, title=title, title_align="left"))


def _headline(explained: Explanation) -> Text:
    profile = explained.profile
    slots = f"{profile.dcc_size:,} slots, {profile.num_references} references, " if profile.dcc_size else ""
    way = ", ".join(filter(None, (profile.run.precision, CHECKPOINTING_PHRASES[profile.model.gradient_checkpointing])))
    return Text(
        f"{profile.name}: {profile.model.backbone}, {profile.head.kind}, {profile.num_ids:,} identities, {slots}"
        f"batch size {profile.optim.batch_size}, {way}, on {explained.gpu.name}",
        style="bold",
    )


def _head_keeps(explained: Explanation) -> str:
    per_identity = explained.head_bytes / explained.profile.num_ids
    total = format_bytes(explained.head_bytes)
    return f"Between steps the head keeps {per_identity:,.0f} bytes per identity ({total}): buffers, weights and momentum."


def _title(explained: Explanation) -> str:
    memory = explained.memory
    free = memory.budget_bytes - memory.total_bytes
    balance = f"{format_bytes(free)} left" if free >= 0 else f"{format_bytes(-free)} too much"
    return f"Memory: {format_bytes(memory.total_bytes)} of {format_bytes(memory.budget_bytes)}, {balance}"


def _terms(explained: Explanation) -> Table:
    """Return every term under its heading, with its share of the total and its source."""
    table = _table("term", ">MiB", ">share", "source")
    total = explained.memory.total_bytes
    for heading, terms in grouped_terms(explained.memory).items():
        num_bytes = sum(term.bytes for term in terms)
        table.add_row(Text(heading, style="bold"), *(Text(cell, style="bold") for cell in _amount(num_bytes, total)), "")
        for term in terms:
            table.add_row(*_term_row(term, total))
    return table


def _term_row(term: MemoryTerm, total: Bytes) -> tuple[RenderableType, ...]:
    return f"  {term.name}", *_amount(term.bytes, total), Text(term.source, style="dim")


def _amount(num_bytes: Bytes, total: Bytes) -> tuple[str, str]:
    return f"{num_bytes / MIB:,.1f}", f"{num_bytes / total:.1%}"


def _peak(explained: Explanation) -> RenderableType:
    memory = explained.memory
    where = f"Most tensors are alive in phase '{memory.peak_phase}', when operator '{memory.peak_operator}' makes its result."
    lines = [Text(where)]
    is_evaluation = memory.peak_phase == "evaluation"
    if is_evaluation or not explained.peak_in_step:
        when = "after" if is_evaluation else "before"
        note = f"That is {when} the step that is drawn below, whose own peak is {format_bytes(explained.timeline.peak_bytes)}."
        lines.append(Text(note, style="yellow"))
    table = _table(">largest at the peak", "made by", "in phase", "as")
    for storage in explained.storages:
        times = f"{storage.count} x " if storage.count > 1 else ""
        table.add_row(f"{times}{format_bytes(storage.num_bytes)}", storage.operator, storage.phase, storage.category)
    return Group(*lines, table)


def _knobs(explained: Explanation) -> RenderableType:
    table = _table("knob", ">memory", ">total", ">time/image", ">points")
    for knob in explained.knobs:
        table.add_row(*_knob_row(knob, explained))
    note = (
        "Each row is a trace of its own with everything else unchanged; 'over' exceeds the budget. Time: middle of the "
        "predicted interval. Points of accuracy; '?' where neither prior nor trainings know of the knob."
    )
    return Group(table, Text(_speed_line(explained.speed)), Text(_loading_line(explained)), Text(note, style="dim"))


def _speed_line(speed: SpeedPrediction) -> str:
    rate = speed.images_per_second
    digits = 1 if rate.high < 100 else 0
    calibration = rate.source.rpartition("calibrated by ")[2] if "calibrated by " in rate.source else ""
    how = f"calibrated by {calibration}" if calibration else "not calibrated"
    return f"Now: {interval(rate, digits)} images/s, limited by {speed.limited_by}; {how}."


def _loading_line(explained: Explanation) -> str:
    loading = explained.speed.loading.to_save()
    return f"Data loading: {loading_words(loading, explained.profile.num_references)}."


def _knob_row(knob: KnobChange, explained: Explanation) -> tuple[RenderableType, ...]:
    total = explained.memory.total_bytes + knob.bytes_changed
    is_over = total > explained.memory.budget_bytes
    points = "?" if knob.points_changed is None else _points(knob.points_changed)
    color = "green" if knob.bytes_changed < 0 else "red"
    return (
        knob.name,
        Text(_signed(knob.bytes_changed), style=color),
        f"{'over ' if is_over else ''}{format_bytes(total)}",
        f"{round(knob.time_changed, 2) + 0.0:+.0%}",  # + 0.0 makes 0.0 of -0.0
        points,
    )


def _points(points: float) -> str:
    """Return points with their sign: ``+0.00`` for what rounds to nothing, never ``-0.00``."""
    return f"{round(points, 2) + 0.0:+.2f}"


def _signed(num_bytes: Bytes) -> str:
    """Return ``-3.10 GiB``, ``+12 MiB``."""
    return f"{num_bytes / GIB:+,.2f} GiB" if abs(num_bytes) >= GIB else f"{num_bytes / MIB:+,.0f} MiB"


def _accuracy(explained: Explanation) -> tuple[tuple[str, RenderableType], ...]:
    if not explained.accuracy_source.startswith("prior"):
        return (("Accuracy, from your trainings", _parts(explained)),)
    return (("Accuracy prior", _parts(explained)), ("What the accuracy prior assumes", _assumptions()))


def _parts(explained: Explanation) -> RenderableType:
    if not explained.accuracy_parts:
        return Text("A full FC layer is what accuracy is measured against: nothing to add or subtract.")
    table = _table("part", ">points", ">band")
    for part in explained.accuracy_parts:
        table.add_row(part.name, _points(part.points), f"± {part.half_band:.2f}")
    return Group(table, Text(explained.accuracy_source, style="dim"))


def _assumptions() -> Table:
    table = Table.grid(padding=(0, 1))
    for line in assumptions():
        table.add_row("-", line)
    return table


def _table(*titles: str) -> Table:
    """Return an empty table; a column whose title starts with ``>`` is right-aligned and never wrapped."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for title in titles:
        is_number = title.startswith(">")
        table.add_column(title.removeprefix(">"), justify="right" if is_number else "left", no_wrap=is_number, overflow="fold")
    return table
