"""The page around the report's sections: one file, nothing from a network; light and dark, narrow and wide.

A table that is too narrow for its columns is set as one block a row, each cell behind its column's name. The only script copies
commands; without it everything else is there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

_NO_NETWORK = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
_NUMBER = re.compile(r"([+-]?[\d.,]+(e[+-]?\d+)?( ?[A-Za-z%/]{1,10}( a part)?)?|-?)")

STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1c1c1e; --soft: #5f5f66; --line: #d8d8dc; --panel: #f6f6f8;
  --accent: #1f6fb2; --chosen: #c2410c; --faint: #8e8e93 }
@media (prefers-color-scheme: dark) { :root { --paper: #16161a; --ink: #f2f2f7; --soft: #aeaeb6; --line: #3a3a40;
  --panel: #1f1f25; --accent: #6cb2f0; --chosen: #ff9a5c; --faint: #8e8e93 } }
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 1200px; padding: 1rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; overflow-wrap: anywhere }
h1 { font-size: 1.6rem; line-height: 1.2; margin: .5rem 0 } h2 { font-size: 1.15rem; margin: 0 0 .5rem }
p { margin: .4rem 0 } .soft, figcaption, caption, .remark { color: var(--soft); font-size: .875rem }
main { display: grid; gap: 1rem; grid-template-columns: minmax(0, 1fr) }
section { background: var(--panel); border: 1px solid var(--line); border-radius: 8px; padding: 1rem; min-width: 0 }
@media (min-width: 900px) { main { grid-template-columns: repeat(2, minmax(0, 1fr)) } section.wide { grid-column: 1 / -1 } }
.scroll { overflow-x: auto; margin: .4rem 0; container-type: inline-size }
table { border-collapse: collapse } .bars, .pairs { width: 100% }
.pairs th { color: var(--soft); width: 30% }
caption { text-align: left; padding-bottom: .4rem }
th, td { text-align: left; padding: .2rem 1rem .2rem 0; vertical-align: top; font-weight: normal; overflow-wrap: normal }
thead th { color: var(--soft); font-size: .875rem; border-bottom: 1px solid var(--line) }
.num { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
tr.chosen > * { font-weight: 600 }
.bar { width: 25%; min-width: 4rem } .remark { width: 40% }
.bar span { display: block; height: .8rem; margin-top: .35rem; border-radius: 2px;
  background: var(--accent); min-width: 1px }
.figures { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 320px), 1fr)) }
figure { margin: 0; max-width: 480px } svg { width: 100%; height: auto; display: block }
svg text { fill: var(--ink); font: 13px system-ui, sans-serif } svg .axis { fill: var(--soft) }
.grid { stroke: var(--line) }
.point { fill: var(--accent) } .faint { fill: none; stroke: var(--faint) } .chosen { fill: var(--chosen) }
.best { fill: none; stroke: var(--accent); stroke-width: 1.5 } .whisker { stroke: var(--accent); stroke-width: 2 }
svg .chosen-line { stroke: var(--chosen) } svg .chosen-name { font-weight: 600 }
.measured { stroke: var(--ink); stroke-width: 3 }
.command { display: flex; gap: .5rem; align-items: start; margin: .4rem 0 }
pre { background: var(--paper); border: 1px solid var(--line); border-radius: 6px; padding: .6rem; margin: 0; flex: 1;
  min-width: 0; white-space: pre-wrap; overflow-wrap: anywhere } code { font-size: .875rem }
button { font: inherit; font-size: .875rem; color: var(--ink); background: var(--paper); border: 1px solid var(--line);
  border-radius: 6px; padding: .55rem .7rem; cursor: pointer; min-width: 5rem }
.column { display: none }
@container (max-width: 32rem) { .bars, .bars tbody, .bars caption { display: block }
  .bars tr { display: grid; grid-template-columns: 1fr auto; padding: .25rem 0 } .bars th, .bars td { padding: 0 }
  .bars .bar, .bars .remark { grid-column: 1 / -1; width: auto } }
"""
_NARROW = """
@container (max-width: {rem}rem) {{ .{name}, .{name} tbody, .{name} caption {{ display: block }}
  .{name} thead {{ display: none }}
  .{name} tr {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 17rem), 1fr)); column-gap: 2rem;
    padding: .3rem 0; border-bottom: 1px solid var(--line) }}
  .{name} td {{ display: flex; justify-content: space-between; gap: 1rem; padding: .1rem 0; text-align: right;
    white-space: normal }}
  .{name} .column {{ display: inline; color: var(--soft); font-weight: normal; text-align: left }} }}
"""
"""Of a table whose rows are blocks, in a place narrower than `rem`."""
_SIZES = ((4, "few", 28), (6, "some", 42), (99, "many", 66))
"""Most columns, class of the table, and the width that it needs, about."""

SCRIPT = """
for (const button of document.querySelectorAll("button.copy")) {
  button.hidden = false
  button.addEventListener("click", async () => {
    const code = button.parentElement.querySelector("code")
    let copied = true
    try { await navigator.clipboard.writeText(code.textContent) } catch {
      const chosen = document.createRange()
      chosen.selectNodeContents(code)
      getSelection().removeAllRanges()
      getSelection().addRange(chosen)
      copied = document.execCommand("copy")
    }
    button.textContent = copied ? "Copied" : "Selected"
    setTimeout(() => { button.textContent = "Copy" }, 2000)
  })
}
"""
"""Copies the command beside a button; what may not use the clipboard selects it."""


@dataclass(frozen=True, slots=True)
class Section:
    """A heading and HTML; `wide` ones take the whole width."""

    title: str
    body: str
    wide: bool = False


def page(title: str, subtitle: str, sections: Iterable[Section]) -> str:
    """Return the whole document."""
    narrow = "".join(_NARROW.format(name=name, rem=rem) for _, name, rem in _SIZES)
    body = "\n".join(_section(number, section) for number, section in enumerate(sections))
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_NO_NETWORK}">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}{narrow}</style>\n</head>\n<body>\n<header>\n"
        f'<h1>{escape(title)}</h1>\n<p class="soft">{escape(subtitle)}</p>\n</header>\n<main>\n{body}\n</main>\n'
        f"<script>{SCRIPT}</script>\n</body>\n</html>\n"
    )


def command(text: str) -> str:
    """Return a command with a button that copies it."""
    button = '<button type="button" class="copy" hidden>Copy</button>'
    return f'<div class="command"><pre><code>{escape(text)}</code></pre>{button}</div>'


def pairs(rows: Iterable[tuple[str, str]]) -> str:
    """Return a table of names and texts."""
    lines = (f'<tr><th scope="row">{escape(name)}</th><td>{escape(value)}</td></tr>' for name, value in rows)
    return f'<table class="pairs"><tbody>{"".join(lines)}</tbody></table>'


def table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]], caption: str = "", chosen: int | None = None) -> str:
    """Return a table of text; a column whose cells are all numbers, with a unit or without, is set to the right.

    Args:
        chosen: the row to stress, if any.
    """
    numeric = [all(_NUMBER.fullmatch(row[column]) for row in rows) for column in range(len(head))]

    ends = [' class="num"' if number else "" for number in numeric]
    headings = "".join(f"<th{end}>{escape(name)}</th>" for end, name in zip(ends, head, strict=True))
    names = [f'<span class="column">{escape(name)}</span>' for name in head]  # seen where rows are blocks

    def cells(texts: tuple[str, ...]) -> str:
        return "".join(
            f"<td{end}>{name}<span>{escape(text)}</span></td>" for end, name, text in zip(ends, names, texts, strict=True)
        )

    lines = [f"<tr{' class=chosen' if number == chosen else ''}>{cells(row)}</tr>" for number, row in enumerate(rows)]
    above = f"<caption>{escape(caption)}</caption>" if caption else ""
    size = next(name for most, name, _ in _SIZES if len(head) <= most)
    top = f"<thead><tr>{headings}</tr></thead>"
    return f'<div class="scroll"><table class="{size}">{above}{top}<tbody>{"".join(lines)}</tbody></table></div>'


def _section(number: int, section: Section) -> str:
    wide = ' class="wide"' if section.wide else ""
    heading = f'<h2 id="s{number}">{escape(section.title)}</h2>'
    return f'<section{wide} aria-labelledby="s{number}">\n{heading}\n{section.body}\n</section>'
