"""The page around the report's sections: one file, no script, nothing from a network; light and dark, narrow and wide."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

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
.scroll { overflow-x: auto; margin: .4rem 0 } table { border-collapse: collapse } .bars, .pairs { width: 100% }
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
figure { margin: 0; max-width: 620px } svg { width: 100%; height: auto; display: block }
svg text { fill: var(--ink); font: 12px system-ui, sans-serif } .grid { stroke: var(--line) }
.point { fill: var(--accent) } .faint { fill: none; stroke: var(--faint) } .chosen { fill: var(--chosen) }
.best { fill: none; stroke: var(--accent); stroke-width: 1.5 }
pre { background: var(--paper); border: 1px solid var(--line); border-radius: 6px; padding: .6rem; overflow-x: auto;
  margin: .4rem 0; overflow-wrap: normal } code { font-size: .875rem }
"""


@dataclass(frozen=True, slots=True)
class Section:
    """A heading and HTML; `wide` ones take the whole width."""

    title: str
    body: str
    wide: bool = False


def page(title: str, subtitle: str, sections: Iterable[Section]) -> str:
    """Return the whole document."""
    body = "\n".join(_section(number, section) for number, section in enumerate(sections))
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<header>\n<h1>{escape(title)}</h1>\n"
        f'<p class="soft">{escape(subtitle)}</p>\n</header>\n<main>\n{body}\n</main>\n</body>\n</html>\n'
    )


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

    def cells(tag: str, texts: tuple[str, ...]) -> str:
        ends = (' class="num"' if number else "" for number in numeric)
        return "".join(f"<{tag}{end}>{escape(text)}</{tag}>" for end, text in zip(ends, texts, strict=True))

    lines = [f"<tr{' class=chosen' if number == chosen else ''}>{cells('td', row)}</tr>" for number, row in enumerate(rows)]
    above = f"<caption>{escape(caption)}</caption>" if caption else ""
    top = f"<thead><tr>{cells('th', head)}</tr></thead>"
    return f'<div class="scroll"><table>{above}{top}<tbody>{"".join(lines)}</tbody></table></div>'


def _section(number: int, section: Section) -> str:
    wide = ' class="wide"' if section.wide else ""
    heading = f'<h2 id="s{number}">{escape(section.title)}</h2>'
    return f'<section{wide} aria-labelledby="s{number}">\n{heading}\n{section.body}\n</section>'
