"""The screen of ``attfc-train profile-step``: a row a phase, and what limits the step."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.table import Table

from attfc_train.export.teacher import open_teacher
from attfc_train.files import written_file
from attfc_train.profile.prediction import PhaseSeconds
from attfc_train.profile.profile import TrainProfile
from attfc_train.run.live_line import busy
from attfc_train.screen import Screen
from attfc_train.timing.limits import LABELS
from attfc_train.timing.marks import WAITING
from attfc_train.timing.profiled import StepOptions, profile_step
from attfc_train.timing.report import PhaseTimes, StepReport
from attfc_train.timing.steps import for_trace
from attfc_train.units import GIB, KIB, MIB, Bytes, Seconds

_BINARY = ((GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB"))
_LEAST_SHARE = 0.0005
"""Below it a share is shown as 0.0 %."""
_ROUND_SHARE = 0.0995
"""From here on a share has no decimals."""
_UNITS = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def show_profiled_step(profile: TrainProfile, options: StepOptions, as_json: bool) -> None:
    """Profile the step, and print its report.

    Raises:
        AttfcError: as `attfc_train.timing.profiled.profile_step`.
    """
    if options.trace is not None:
        with for_trace():
            written_file(options.trace)  # refuses what is no file before the work
    beside = Screen(stderr=True)  # stdout is the report's
    with busy(beside, "Profiling the step"):
        report = profile_step(profile, options, lambda text: beside.print(text, soft_wrap=True), open_teacher)
    if as_json:
        sys.stdout.write(report.model_dump_json(indent=2) + "\n")
        return
    screen = Screen()
    show_report(report, screen)
    if options.trace is not None:
        screen.print(f"trace: {options.trace}, for chrome://tracing or ui.perfetto.dev", soft_wrap=True)


def show_report(report: StepReport, console: Console) -> None:
    """Print the table of a report, and the lines around it."""
    threads = "" if report.threads is None else f", {report.threads} thread{'' if report.threads == 1 else 's'}"
    parts = "" if report.accumulation == 1 else f" in {report.accumulation} parts"
    for line in (
        f"{report.profile}: {report.model} at {report.image_size} pixels, {report.head}, batch {report.batch_size}{parts}, "
        f"{report.precision} on {report.device} ({report.device_name}{threads})",
        f"data: {report.data or 'random images in memory'}; {report.images_per_second:,.1f} images/s",
        ceilings_line(report),
    ):
        console.print(line)
    console.print(phase_table(report))
    for line in (marks_line(report), prediction_line(report), f"limit: {report.limit}"):
        console.print(line)


def phase_table(report: StepReport) -> Table:
    """Return the table of phases; the plan's times have a column where there is a plan for these settings."""
    is_predicted = report.predicted_for is not None
    table = Table(box=None, padding=(0, 1, 0, 0) if is_predicted else (0, 1), pad_edge=False)  # either fits 80 columns
    table.add_column("phase", no_wrap=True)
    names = ["ms", "share", *(["plan ms"] if is_predicted else []), "least", "FLOP", "moved", "matrix", "memory"]
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    for row in filter(_is_shown, report.phases):
        table.add_row(*_cells(LABELS[row.phase], row, row.predicted, is_predicted))
    table.add_section()
    table.add_row(*_cells("all", _total(report), _planned(report), is_predicted))
    return table


def ceilings_line(report: StepReport) -> str:
    """Return the ceilings in words."""
    ceilings = report.ceilings
    copy = ceilings.copy_bytes_per_second
    copied = "" if copy is None else f", {_short(copy)}B/s from the host"
    others = (f"{_short(rate)}FLOP/s ({name}), " for name, rate in ceilings.by_arithmetic.items() if name != report.precision)
    return (
        f"ceilings: {_short(ceilings.flops_per_second)}FLOP/s ({report.precision} matrix product), {''.join(others)}"
        f"{_short(ceilings.bytes_per_second)}B/s of memory{copied}"
    )


def marks_line(report: StepReport) -> str:
    """Return what the marks cost, in words."""
    own = _digits(1e6 * report.marks * report.mark_seconds)
    with_marks = _milliseconds(report.step_seconds)
    without = _milliseconds(report.unmarked_step_seconds)
    return (
        f"marks: {report.marks} a step, {own} us in all; in turns {report.steps} steps with them took {with_marks} ms each, "
        f"{report.steps} without {without} ms ({report.marking_overhead:+.1%})"
    )


def prediction_line(report: StepReport) -> str:
    """Return where the predicted times are from, in words."""
    least = "least: counted FLOPs and bytes at the ceilings"
    if report.predicted_for is None:
        return f"{least}; a plan of attfc-plan for these settings adds its times"
    return f"{least}; plan: predicted for {report.predicted_for}"


def _cells(label: str, row: PhaseTimes, predicted: PhaseSeconds | None, is_predicted: bool) -> list[str]:
    worked = row.operators > 0
    planned = [_range(predicted)] if is_predicted else []
    return [
        label,
        _milliseconds(row.seconds),
        f"{row.share:.0%}" if row.share >= _ROUND_SHARE else f"{row.share:.1%}",
        *planned,
        _milliseconds(row.least_seconds) if worked else "",
        _short(row.flops) if row.flops else "",
        _moved(row.bytes + row.copied_bytes) if worked else "",
        f"{row.matrix_share:.0%}" if row.flops else "",
        f"{row.memory_share:.0%}" if worked else "",
    ]


def _is_shown(row: PhaseTimes) -> bool:
    """Return whether a phase did anything: a step without references has the phase, too."""
    return bool(row.flops or row.bytes) or row.share >= _LEAST_SHARE


def _total(report: StepReport) -> PhaseTimes:
    """Return the sum of all rows."""
    rows = report.phases
    seconds = sum(row.seconds for row in rows)
    moved = sum(row.bytes for row in rows)
    return PhaseTimes(
        phase="all",
        seconds=seconds,
        share=1.0,
        flops=sum(row.flops for row in rows),
        bytes=moved,
        operators=sum(row.operators for row in rows),
        copied_bytes=sum(row.copied_bytes for row in rows),
        matrix_share=sum(row.matrix_share * row.seconds for row in rows) / seconds,
        memory_share=moved / seconds / report.ceilings.bytes_per_second,
        least_seconds=sum(row.least_seconds for row in rows),
    )


def _planned(report: StepReport) -> PhaseSeconds | None:
    planned = [row.predicted for row in report.phases if row.predicted is not None and row.phase != WAITING]
    if not planned:
        return None
    return PhaseSeconds(phase="all", low=sum(each.low for each in planned), high=sum(each.high for each in planned))


def _range(predicted: PhaseSeconds | None) -> str:
    if predicted is None:
        return ""
    low, high = _milliseconds(predicted.low), _milliseconds(predicted.high)
    return low if low == high else f"{low}-{high}"


def _milliseconds(seconds: Seconds) -> str:
    return _digits(1000 * seconds)


def _moved(num_bytes: Bytes) -> str:
    unit, name = next(((unit, name) for unit, name in _BINARY if num_bytes >= unit), (1, "B"))
    return f"{_digits(num_bytes / unit) if unit > 1 else num_bytes} {name}"


def _digits(value: float) -> str:
    """Return three significant digits, but no decimals from 100 on: a column of a narrow table."""
    return f"{value:,.0f}" if value >= 99.95 else f"{value:.1f}" if value >= 9.995 else f"{value:.2f}"


def _short(value: float) -> str:
    """Return text such as ``1.23e12 -> '1.23 T'``, for a unit to follow."""
    unit, name = next(((unit, name) for unit, name in _UNITS if value >= unit), (1.0, ""))
    return f"{value / unit:.3g} {name}"
