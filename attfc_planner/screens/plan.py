"""A plan on the screen: rich tables, from 80 columns up."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from attfc_planner.gpu.profile import GpuProfile
from attfc_planner.knobs.space import knobs_of
from attfc_planner.screens.comparison import comparison_table, verdict_lines
from attfc_planner.screens.front_table import front_table, heads_table
from attfc_planner.search.words import core_rate_words, loading_words, points_words, time_words
from attfc_train.profile.prediction import Interval, Loading, MemoryPrediction, Prediction, SeveralGpus
from attfc_train.profile.profile import TrainProfile
from attfc_train.profile.search_summary import SearchSummary
from attfc_train.units import MIB, format_bytes

if TYPE_CHECKING:  # `attfc-plan gpus` draws without the search and its numpy and optuna
    from attfc_planner.plan.plan import Plan

_COLORS = (
    "cyan",
    "green",
    "yellow",
    "magenta",
    "blue",
    "red",
    "bright_cyan",
    "bright_green",
    "bright_yellow",
    "bright_magenta",
)


def show_plan(console: Console, plan: Plan, next_command: str, written: str) -> None:
    """Print the answer and what it is made of: the comparison, the setting, memory, speed, accuracy, the runners-up.

    The answer stands first and last: by the end of a plan its beginning has scrolled away.

    Args:
        next_command: what to type next. written: where the plan was written.
    """
    prediction = plan.profile.prediction
    search = plan.profile.search
    assert prediction is not None
    assert search is not None
    console.print(_device_line(plan.gpu))
    if search.comparison or search.notes:
        tables = [comparison_table(search.comparison)] if search.comparison else []
        title = "Is AttFC needed?" if tables else "Note"
        console.print(Panel(Group(*tables, *verdict_lines(search)), title=title, title_align="left"))
    console.print(Panel(_setting_table(plan), title="Chosen setting", title_align="left"))
    if {head.kind for head in plan.heads} - {row.head for row in search.comparison}:
        heads = Group(heads_table(plan.heads, plan.chosen, plan.bytes_per_identity), Text(search.why_head))
        console.print(Panel(heads, title="Kinds of heads, each by its best setting; bold: chosen", title_align="left"))
    console.print(Panel(memory_view(prediction.memory, console.width - 4), title=_memory_title(prediction), title_align="left"))
    console.print(Panel(_expectations(prediction, search, plan.profile.num_references), title="Expected", title_align="left"))
    if prediction.several is not None:
        console.print(Panel(several_table(plan.profile), title="Several GPUs", title_align="left"))
    table = front_table(plan.search.front, plan.chosen, plan.runners_up, plan.bytes_per_identity)
    console.print(Panel(table, title="Pareto front and runners-up", title_align="left"))
    console.print(_searched_line(plan), highlight=False)
    console.print(f"Written: {written}", highlight=False, soft_wrap=True)
    console.print(Text("Next: ") + Text(next_command, style="bold"), soft_wrap=True)
    for line in verdict_lines(search):
        console.print(line)


def show_catalog(console: Console, cards: Iterable[GpuProfile]) -> None:
    """Print one line a card."""
    table = Table(box=None, pad_edge=False)
    table.add_column("--gpu")
    for title in ("memory", "GB/s", "bf16", "fp16", "fp32"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("name", overflow="fold")
    for card in cards:
        rates = (card.bf16_flops, card.fp16_flops, card.fp32_flops)
        numbers = (format_bytes(card.capacity_bytes), f"{card.memory_bandwidth_bytes_per_second / 1e9:.0f}", *map(_tera, rates))
        table.add_row(card.slug, *numbers, card.name.removeprefix("NVIDIA "))
    console.print(table)
    console.print("bf16, fp16, fp32: dense TFLOP/s with fp32 accumulation. Sources: 'attfc-plan gpus NAME'.", highlight=False)


def show_card(console: Console, card: GpuProfile) -> None:
    """Print one card's figures, each with its source."""
    table = Table(box=None, pad_edge=False, title=card.name, title_justify="left")
    for title in ("figure", "value", "source"):
        table.add_column(title, overflow="fold")
    for field, source in card.sources.items():
        table.add_row(field, _figure(field, getattr(card, field)), source)
    console.print(table)


def show_comparison(console: Console, rows: list[tuple[str, str, str]]) -> None:
    """Print predicted beside measured."""
    table = Table(title="Predicted and measured", title_justify="left", box=None, pad_edge=False)
    for title in ("", "predicted", "measured"):
        table.add_column(title)
    for row in rows:
        table.add_row(*row)
    console.print(table)


def memory_view(memory: MemoryPrediction, width: int) -> RenderableType:
    """Return a bar over the whole budget, and the terms with their sources.

    Args:
        width: characters of the bar.
    """
    terms = sorted((term for term in memory.terms if term.bytes), key=lambda term: -term.bytes)
    bar = Text()
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(style="dim", overflow="fold")
    total = max(memory.budget_bytes, memory.total_bytes)
    drawn = 0
    passed = 0
    for index, term in enumerate(terms):
        color = _COLORS[index % len(_COLORS)]
        # The ends are rounded and not the lengths, whose errors would add up.
        passed += term.bytes
        end = round(width * passed / total)
        bar.append("█" * (end - drawn), style=color)
        drawn = end
        table.add_row(Text("■ ", style=color) + Text(term.name, style="default"), f"{term.bytes / MIB:,.0f} MiB", term.source)
    bar.append("░" * max(0, width - drawn), style="dim")
    return Group(bar, table, Text(f"peak in phase '{memory.peak_phase}' ({memory.peak_operator})", style="dim"))


def interval(band: Interval, digits: int = 0, sign: bool = False) -> str:
    """Return ``'1,200 to 1,850'``."""
    plus = "+" if sign else ""
    return f"{band.low:{plus},.{digits}f} to {band.high:{plus},.{digits}f}"


def head_keeps(profile: TrainProfile) -> tuple[tuple[str, str], ...]:
    """Return a row about what the head keeps on the device; none where a profile does not say it."""
    per_identity = None if profile.prediction is None else profile.prediction.bytes_per_identity
    if per_identity is None or profile.data.num_ids is None:
        return ()
    total = format_bytes(round(per_identity * profile.num_ids))
    where = "on each GPU" if profile.run.gpus > 1 else "in all"
    return (("head keeps", f"{per_identity:,.0f} bytes per identity, {total} {where}"),)


def teacher_row(profile: TrainProfile) -> tuple[tuple[str, str], ...]:
    """Return a row about the teacher, where there is one."""
    return (("teacher", profile.teacher.describe()),) if profile.teacher.is_on else ()


def _figure(field: str, value: float) -> str:
    """Return a figure as text: ``('fp32_flops', 8.1e12) -> '8,100 G'``."""
    if field == "capacity_bytes":
        return format_bytes(int(value))
    return f"{value / 1e9:,.6g} G" if value >= 1e9 else f"{value:g}"


def _digits(rate: float) -> int:
    """Return the decimals of images per second; a CPU's need one."""
    return 1 if rate < 100 else 0


def _device_line(gpu: GpuProfile) -> Text:
    used = f", {format_bytes(gpu.foreign_bytes)} of it in use by others" if gpu.foreign_bytes else ""
    native = f"\nMemory is predicted with native segments: {gpu.native_segments}." if gpu.native_segments else ""
    return Text(f"{gpu.name}: {format_bytes(gpu.capacity_bytes)}{used} ({gpu.source}){native}", style="bold")


def _setting_table(plan: Plan) -> Table:
    profile = plan.profile
    shown = [(knob.row, getattr(profile, knob.section)) for knob in knobs_of(type(profile.head)) if knob.row is not None]
    rows = [
        ("identities, backbone", f"{profile.num_ids:,}, {profile.model.backbone} at {profile.run.precision}"),
        *(row(section) for row, section in shown),
        *head_keeps(profile),
        *teacher_row(profile),
    ]
    table = Table(box=None, pad_edge=False, show_header=False)
    for name, value in rows:
        table.add_row(name, Text(value, style="bold"))
    return table


def several_rows(profile: TrainProfile) -> list[tuple[str, str, str]]:
    """Return name, figure and source of what a plan says of its GPUs; none where it is for one."""
    prediction = profile.prediction
    several = None if prediction is None else prediction.several
    if prediction is None or several is None:
        return []
    exchanged = several.communication_ms
    middle = (exchanged.low * exchanged.high) ** 0.5
    sends = f"{several.sent_bytes / MIB:,.1f} MiB sent by each in {several.exchanges} exchanges"
    alone = interval(several.one_gpu_images_per_second, _digits(several.one_gpu_images_per_second.high))
    return [
        ("GPUs", several.links, ""),
        ("each trains", f"{profile.gpu_batch_size:,} images of a batch of {profile.optim.batch_size:,}", ""),
        ("memory of each", format_bytes(prediction.memory.total_bytes), ""),
        (
            "communication",
            f"{middle:.3g} ms a step ({exchanged.low:.3g} to {exchanged.high:.3g}); {sends}",
            exchanged.source,
        ),
        *_hidden_row(several),
        (
            "efficiency",
            f"{several.efficiency:.0%} of {profile.run.gpus} times one GPU ({alone} images/s)",
            "one with as many images a step and the whole head, in memory or not",
        ),
        ("more GPUs", several.more_gpus, ""),
    ]


def _hidden_row(several: SeveralGpus) -> list[tuple[str, str, str]]:
    if several.hidden_ms is None:
        return []
    figure = f"{several.hidden_ms:.3g} ms; for the rest a step waits, {several.share_of_step:.1%} of it"
    source = "gradients are added up while the backward pass computes further ones; not those of compiled encoders"
    return [("hidden of it", figure, source)]


def several_table(profile: TrainProfile) -> Table:
    """Return a table of `several_rows`."""
    return _with_sources(several_rows(profile))


def _memory_title(prediction: Prediction) -> str:
    memory = prediction.memory
    free = memory.budget_bytes - memory.total_bytes
    where = " of each GPU" if prediction.several else ""
    return (
        f"Memory{where}: {format_bytes(memory.total_bytes)} of {format_bytes(memory.budget_bytes)}, {format_bytes(free)} left"
    )


def _expectations(prediction: Prediction, search: SearchSummary, num_references: int) -> Table:
    rate = prediction.images_per_second
    hours = prediction.hours_per_epoch
    whole = prediction.hours
    accuracy = f"{points_words(prediction.accuracy)} against full FC{limit_words(search, 'accuracy')}"
    rows = (
        ("images/s", interval(rate, _digits(rate.high)), rate.source),
        ("limited by", prediction.limited_by, ""),
        *loading_row(prediction.loading, num_references),
        ("time per epoch", time_words(hours) if hours else "unknown: give --images or --data", ""),
        ("time to train", time_words(whole) + limit_words(search, "hours") if whole else "unknown likewise", ""),
        (_accuracy_name(prediction), accuracy, prediction.accuracy.source),
    )
    return _with_sources(rows)


def _with_sources(rows: Iterable[tuple[str, str, str]]) -> Table:
    """Return a table of names and figures, each with its source below."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value, source in rows:
        table.add_row(name, Text(value, style="bold") + Text(f"\n{source}" if source else "", style="dim not bold"))
    return table


def loading_row(loading: Loading | None, num_references: int) -> tuple[tuple[str, str, str], ...]:
    """Return a row about decoding, with its source; none where a profile does not say it."""
    return () if loading is None else (("data loading", loading_words(loading, num_references), core_rate_words(loading)),)


def limit_words(search: SearchSummary, name: str) -> str:
    """Return how a limit lies to what is expected, to be put behind it; nothing where there is none, or nothing to fear."""
    limit = next((each for each in search.constraints if each.name == name), None)
    if limit is None:
        return ""
    words = f"{limit.limit:g} h" if name == "hours" else f"{limit.limit:+g} points"
    return f"; your limit of {words} may be missed" if limit.may_be_missed else ""


def _accuracy_name(prediction: Prediction) -> str:
    return "accuracy prior" if prediction.accuracy.source.startswith("prior") else "accuracy"


def _searched_line(plan: Plan) -> Text:
    search = plan.profile.search
    assert search is not None
    return Text(
        f"Searched {search.num_settings:,} settings, {len(search.front)} on the Pareto front, {plan.search.num_trials} Optuna "
        f"trials. Rule: {search.rule}",
        style="dim",
    )


def _tera(rate: float | None) -> str:
    return f"{rate / 1e12:.1f}" if rate else "-"
