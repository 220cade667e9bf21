"""Cards side by side: what is chosen on each, its time and its cost; below, in a line each, those that will not do."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from attfc_planner.plan.cards import CardChoice, Order, in_order
from attfc_planner.plan.request import PlanRequest
from attfc_planner.screens.comparison import batch_words, head_words
from attfc_planner.search.candidates import Candidate
from attfc_planner.search.comparison import Compared
from attfc_planner.search.summary import figures
from attfc_planner.search.words import TimeUnit, about_hours, feeding_words, rate_words, time_words, unit_for
from attfc_train.profile.prediction import Interval
from attfc_train.units import GIB, format_bytes

_MOST_NAMED = 6
"""Cards that a line names."""
_WIDE = 100
"""Columns of a screen from which intervals stand behind their figures, not below."""


def show_cards(console: Console, choices: Sequence[CardChoice], request: PlanRequest, order: Order) -> None:
    """Print the table, the cards that will not do, and the answer, which stands last: a long table scrolls its top away.

    Args:
        choices: of all cards, at least one of them with a setting.
        order: what the table is sorted by.
    """
    fitting = [each for each in in_order(choices, order) if each.chosen is not None]
    others = sorted((each for each in choices if each.chosen is None), key=lambda each: each.gpu.capacity_bytes)
    console.print(Text(_question(request, len(choices)), style="bold"), soft_wrap=True)
    console.print(_table(fitting, wide=console.width >= _WIDE))
    for each in others:
        console.print(f"{each.gpu.slug} ({format_bytes(each.gpu.capacity_bytes)}): {each.short}", soft_wrap=True)
    for line in _loading_lines(fitting):
        console.print(line, highlight=False, soft_wrap=True)
    for line in _answers(fitting, request):
        console.print(Text(line, style="bold"), soft_wrap=True)


def _question(request: PlanRequest, num_cards: int) -> str:
    images = f", {request.num_images:,} images, {request.epochs:g} epochs" if request.num_images else ""
    backbone = ", ".join(request.compared) or request.backbone
    teacher = f" with teacher {request.teacher.describe()}" if request.teacher.is_on else ""
    return f"{request.num_ids:,} identities{images}, {backbone}{teacher}, on each of {num_cards} cards by itself"


def _table(fitting: Sequence[CardChoice], wide: bool) -> Table:
    chosen = [each.chosen for each in fitting if each.chosen is not None]
    hours = [each.hours_interval for each in chosen]
    unit = unit_for([each for each in hours if each is not None]) if all(hours) else None
    differing = [name for name in ("backbone", "precision") if len({_named(each, name) for each in chosen}) > 1]
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("card", overflow="fold")
    for name in (*differing, "head"):
        table.add_column(name, overflow="fold")
    priced = any(each.cost is not None for each in fitting)
    rate = "images/s" if unit is None else unit.name
    for title in ("DCC", "batch", "GiB", rate, *(["cost"] if priced else []), "points"):
        table.add_column(title, justify="right", overflow="fold")
    joint = " " if wide else "\n"
    for each, candidate in zip(fitting, chosen, strict=True):
        own = [_named(candidate, name) for name in differing]
        cost = [_with_ends(_money(each.cost), joint)] if priced else []
        speed = _speed(candidate, unit)
        cells = _cells(candidate, each.gpu.capacity_bytes, joint)
        table.add_row(each.gpu.slug, *own, *cells, _with_ends(speed, joint), *cost, f"{candidate.accuracy_points:+.2f}")
    return table


def _named(candidate: Candidate, name: str) -> str:
    profile = candidate.profile
    return profile.model.backbone if name == "backbone" else profile.run.precision


def _cells(candidate: Candidate, capacity_bytes: int, joint: str) -> list[str]:
    """Return head, slots, batch and memory."""
    profile = candidate.profile
    row = figures(Compared(candidate, "chosen", fits=True), {})
    storage = row.settings.get("storage", "fp32")
    kept = "" if storage == "fp32" else f"{joint}{storage}"
    share = f"{100 * profile.dcc_size / profile.num_ids:.3g}%" if profile.dcc_size else "-"
    of = f"{candidate.memory_bytes / GIB:.1f} of {capacity_bytes / GIB:.1f}"
    return [head_words(row), f"{share}{kept}", batch_words(row), of]


def _speed(candidate: Candidate, unit: TimeUnit | None) -> tuple[str, str]:
    hours = candidate.hours_interval
    if unit is not None and hours is not None:
        return unit.about_and_ends(hours)
    rate = candidate.speed.images_per_second
    digits = 1 if rate.high < 100 else 0
    return f"{candidate.images_per_second:,.{digits}f}", f"{rate.low:,.{digits}f} to {rate.high:,.{digits}f}"


def _money(cost: Interval | None) -> tuple[str, str]:
    if cost is None:
        return "-", ""
    digits = 2 if cost.high < 10 else 0
    return f"{about_hours(cost):,.{digits}f}", f"{cost.low:,.{digits}f} to {cost.high:,.{digits}f}"


def _with_ends(figure: tuple[str, str], joint: str) -> Text:
    about, ends = figure
    if not ends:
        return Text(about)
    return Text.assemble(about, joint, (f"({ends})" if joint == " " else ends, "dim"))


def _answers(fitting: Sequence[CardChoice], request: PlanRequest) -> list[str]:
    """Return the fastest and the cheapest card, and those whose interval the limit lies in."""
    fastest = in_order(fitting, "time")[0]
    lines = [f"Fastest: {fastest.gpu.slug}, {_about(fastest)}."]
    priced = [each for each in in_order(fitting, "cost") if each.cost is not None]
    if priced:
        lines.append(f"Cheapest of {len(priced)} with a price: {priced[0].gpu.slug}, {_about(priced[0])}.")
    limit = request.max_hours
    near = [] if limit is None else [each.gpu.slug for each in fitting if _may_miss(each, limit)]
    if near:
        lines.append(f"Your limit of {limit:g} h lies inside the interval of {', '.join(near)}: it may be missed there.")
    return lines


def _loading_lines(fitting: Sequence[CardChoice]) -> list[str]:
    """Return the cards that wait for images, and where no host is known the cores that each would take."""
    waiting: dict[str, list[str]] = {}
    taking: dict[int, list[str]] = {}
    for each in fitting:
        loading = None if each.chosen is None else each.chosen.speed.loading.to_save()
        if loading is None or loading.needed_cores is None:
            continue
        if loading.is_limit:
            waiting.setdefault(feeding_words(loading), []).append(each.gpu.slug)
        elif loading.host_cores is None:
            taking.setdefault(loading.needed_cores, []).append(each.gpu.slug)
    lines = [f"Data loading limits {_listed(slugs)}: {words}." for words, slugs in waiting.items()]
    if taking:
        cores = ", ".join(f"{cores} ({_listed(slugs)})" for cores, slugs in sorted(taking.items(), reverse=True))
        lines.append(f"Cores of the host that decoding takes, about: {cores}. --cores says how many there are.")
    return lines


def _listed(slugs: Sequence[str]) -> str:
    """Return names with commas; of many the first and how many more."""
    return (
        ", ".join(slugs)
        if len(slugs) <= _MOST_NAMED
        else f"{', '.join(slugs[:_MOST_NAMED])} and {len(slugs) - _MOST_NAMED} more"
    )


def _may_miss(each: CardChoice, limit: float) -> bool:
    hours = None if each.chosen is None else each.chosen.hours_interval
    return hours is not None and hours.high > limit


def _about(each: CardChoice) -> str:
    assert each.chosen is not None
    hours = each.chosen.hours_interval
    words = rate_words(each.chosen.speed.images_per_second) if hours is None else time_words(hours)
    if each.cost is None:
        return words
    about, ends = _money(each.cost)
    return f"{words}, which costs about {about} ({ends})"
