"""``attfc-plan report``, once its options are checked."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from attfc_planner.report.build import report_html
from attfc_train.files import write_text_atomically


def report_file(console: Console, path: Path, output: Path, study: Path | None, run: Path | None) -> None:
    """Write the report on the profile at `path` to `output`."""
    write_text_atomically(output, report_html(path, study, run))
    console.print(f"Written: {output}", highlight=False, soft_wrap=True)
