"""The page in a real browser: nothing is wider than the window or cut off, dark mode is dark, and the buttons copy."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from attfc_planner.report.build import report_html
from tests.planner.report.conftest import planned_profile
from tests.planner.report.test_measured import run_with

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(BROWSER is None, reason="needs Chromium (the distribution's package)")

# The window is an iframe: headless Chromium makes none narrower than 500 pixels.
WINDOW = """<!DOCTYPE html><iframe id="page" src="report.html" style="border:0;width:{width}px;height:900px"></iframe><script>
const look = page => {{
  const root = page.documentElement, seen = page.querySelectorAll("section, figure, svg")
  const size = element => element.getBoundingClientRect()
  const clipped = [...page.querySelectorAll("section, .scroll, table, td, th, pre, p, svg text")].filter(one => {{
    const svg = one.closest("svg"), around = size(svg ?? one.parentElement)
    return !svg && one.clientWidth && one.scrollWidth > one.clientWidth + 1 || size(one).right > around.right + 1 ||
      size(one).left < around.left - 1 }})
  document.body.dataset.found = JSON.stringify({{
    clipped: clipped.map(one => one.textContent.slice(0, 40)),
    buttons: [...page.querySelectorAll("button.copy")].map(one => size(one).width > 20 ? one.textContent : "hidden"),
    chosen: page.defaultView.getSelection().toString(),
    wider: root.scrollWidth - root.clientWidth, paper: getComputedStyle(page.body).backgroundColor,
    ink: getComputedStyle(page.body).color, empty: [...seen].filter(one => size(one).height < 20).length,
    outside: [...seen].filter(one => size(one).right > root.clientWidth + 1).length,
    sections: page.querySelectorAll("h2").length,
    letters: Math.min(...[...page.querySelectorAll("svg text:not([transform])")].map(one => size(one).height)) }})
}}
document.getElementById("page").onload = event => {{
  const page = event.target.contentDocument
  page.querySelector("button.copy").click()
  setTimeout(() => look(page), 500)
}}</script>"""


def looked_at(report: Path, width: int, dark: bool) -> dict[str, Any]:
    window = report.with_name("window.html")
    window.write_text(WINDOW.format(width=width))
    mode = ["--blink-settings=preferredColorScheme=0"] if dark else []
    switches = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--allow-file-access-from-files",
        "--virtual-time-budget=4000",
        *mode,
    ]
    switches += ["--window-size=1600,1000", f"--user-data-dir={report.parent / 'browser'}", "--dump-dom", window.as_uri()]
    assert BROWSER is not None
    shown = subprocess.run([BROWSER, *switches], capture_output=True, text=True, timeout=120, check=True).stdout
    found = re.search(r'data-found="([^"]*)"', shown)
    assert found is not None, shown[:500]
    result: dict[str, Any] = json.loads(html.unescape(found[1]))
    return result


@pytest.mark.parametrize(("width", "dark"), [(400, False), (800, False), (1000, True), (1400, False)])
def test_it_is_readable(planned: Path, width: int, dark: bool) -> None:
    report = planned.with_name("report.html")
    report.write_text(report_html(planned, None, run_with(planned_profile(), planned.parent / "run")))
    found = looked_at(report, width, dark)
    assert found["sections"] == 7
    assert found["clipped"] == []
    assert found["wider"] == found["outside"] == found["empty"] == 0
    assert found["letters"] >= 9, "pixels"
    paper, ink = (sum(map(int, re.findall(r"\d+", found[key])[:3])) for key in ("paper", "ink"))
    assert (paper < 150 < 600 < ink) if dark else (ink < 150 < 600 < paper)
    command = "attfc-plan --gpu rtx-4090 --ids 2059906"
    assert (found["buttons"][0], found["chosen"]) in [("Copied", ""), ("Copied", command), ("Selected", command)]
    assert set(found["buttons"][1:]) == {"Copy"}
