"""The screen of ``attfc-plan import``: the layers side by side, the verdict, and what is not the same; from 80 columns up."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from attfc_planner.accuracy.prior import midpoint
from attfc_planner.explain.savings import Savings, Way
from attfc_train.streams import typed
from attfc_train.units import GIB, format_bytes


def show_savings(console: Console, found: Savings, commands: Sequence[Sequence[str]], notes: Sequence[str]) -> None:
    """Print the answer.

    Args:
        commands: what to type next, words of each.
        notes: what is different or not known, a line each.
    """
    run = found.run
    _wrapped(
        console,
        f"{run.path}: {run.network}, {run.num_ids:,} identities, {_layer(found.own)}, batch size {run.batch_size}, "
        f"on one {found.gpu.name} ({found.gpu.capacity_bytes / GIB:.1f} GiB)",
    )
    console.print(_table(found))
    for note in notes:
        _wrapped(console, f"note: {note}")
    console.print("Next:")
    for words in commands:
        console.print(f"  {typed(words)}", soft_wrap=True)
    console.print()
    for line in verdict(found):
        _wrapped(console, line)


def verdict(found: Savings) -> list[str]:
    """Return what AttFC saves, in words; the last lines of the screen."""
    own, attfc = found.own, found.attfc
    saved = own.memory.total_bytes - attfc.memory.total_bytes
    memory = f"{format_bytes(abs(saved))} {'less' if saved >= 0 else 'more'} memory"
    speed = f"trains {_rate(attfc) / _rate(own):.2g} times as many images a second"
    lines = [
        f"AttFC takes {memory} than {_layer(own)} as attfc trains it, and {speed}, on this card at this batch size. "
        f"{_fitting(found)}"
    ]
    released = found.released_bytes - own.head_bytes
    if released > 0:
        lines.append(
            f"arcface_torch keeps the layer's gradient and logits whole: {format_bytes(found.released_bytes)} for it on one "
            f"card (3 x weights + 2 x logits, insightface#1989), where attfc's layer keeps {format_bytes(own.head_bytes)} and "
            f"AttFC {format_bytes(attfc.head_bytes)}: about {format_bytes(found.released_bytes - attfc.head_bytes)} saved."
        )
    return lines


def _fitting(found: Savings) -> str:
    own, attfc = found.own, found.attfc
    full = next(way for way in found.ways if way.profile.head.kind == "full_fc")
    if full.fits and attfc.fits:
        return "A full FC layer fits, too, and approximates nothing: keep it where its speed is enough."
    if attfc.fits:
        return "Both fit." if own.fits else f"AttFC fits; {_layer(own)} does not."
    if own.fits:
        return f"AttFC does not fit at this batch size; {_layer(own)} does."
    return "Neither fits at this batch size: attfc-plan searches parts of a batch, checkpointing and narrower storage."


def _layer(way: Way) -> str:
    head = way.profile.head
    rate = getattr(head, "sample_rate", None)
    return {"full_fc": "a full FC layer", "partial_fc": f"Partial FC {rate:g}" if rate else ""}.get(head.kind, "AttFC")


def _table(found: Savings) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("layer", no_wrap=True)
    for name in ("memory", "fits", "bytes/id", "images/s", "h/epoch", "points"):
        table.add_column(name, justify="right", no_wrap=True)
    for way in found.ways:
        images = found.run.num_images
        hours = f"{images / _rate(way) / 3600:,.1f}" if images else "-"
        table.add_row(
            _layer(way).removeprefix("a "),
            format_bytes(way.memory.total_bytes),
            "yes" if way.fits else "no",
            f"{way.head_bytes / way.profile.num_ids:,.0f}",
            f"{way.speed.images_per_second.low:,.0f} to {way.speed.images_per_second.high:,.0f}",
            hours,
            f"{midpoint(way.accuracy):+.2f}",
        )
    return table


def _rate(way: Way) -> float:
    return midpoint(way.speed.images_per_second)


def _wrapped(console: Console, text: str) -> None:
    """Print a text broken at spaces alone, so that names of files stay whole."""
    for line in textwrap.wrap(text, max(40, console.width - 1), break_long_words=False, break_on_hyphens=False):
        console.print(line, soft_wrap=True)
