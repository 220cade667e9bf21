"""The page in a real browser: nothing is wider than the window, and dark mode is dark."""

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

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(BROWSER is None, reason="needs Chromium (the distribution's package)")

# The window is an iframe: headless Chromium makes none narrower than 500 pixels.
WINDOW = """<!DOCTYPE html><iframe id="page" src="report.html" style="border:0;width:{width}px;height:900px"></iframe><script>
document.getElementById("page").onload = event => {{
  const page = event.target.contentDocument, root = page.documentElement, seen = page.querySelectorAll("section, figure, svg")
  const size = element => element.getBoundingClientRect()
  document.body.dataset.found = JSON.stringify({{
    wider: root.scrollWidth - root.clientWidth, paper: getComputedStyle(page.body).backgroundColor,
    ink: getComputedStyle(page.body).color, empty: [...seen].filter(one => size(one).height < 20).length,
    outside: [...seen].filter(one => size(one).right > root.clientWidth + 1).length,
    sections: page.querySelectorAll("h2").length,
    letters: Math.min(...[...page.querySelectorAll("svg text")].map(one => size(one).height)) }})
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


@pytest.mark.parametrize(("width", "dark"), [(400, False), (400, True), (1400, False), (1400, True)])
def test_it_is_readable(planned: Path, width: int, dark: bool) -> None:
    report = planned.with_name("report.html")
    report.write_text(report_html(planned, None, None))
    found = looked_at(report, width, dark)
    assert found["sections"] == 5
    assert found["wider"] == found["outside"] == found["empty"] == 0
    assert found["letters"] >= 9, "pixels"
    paper, ink = (sum(map(int, re.findall(r"\d+", found[key])[:3])) for key in ("paper", "ink"))
    assert (paper < 150 < 600 < ink) if dark else (ink < 150 < 600 < paper)
