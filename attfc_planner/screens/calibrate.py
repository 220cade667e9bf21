"""The tables of a calibration: every figure before and after, and every run predicted and measured."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from attfc_planner.calibrate.calibrate import Calibrated
from attfc_planner.gpu.calibration import CONTEXT, CONVOLUTION_FACTOR, CUBLAS, HEADROOM, HEADROOM_SHARE, WORKSPACE_SHARE
from attfc_planner.memory.overheads import (
    CPU_WORKSPACE_SHARE,
    HEADROOM_SHARE_UNCALIBRATED,
    LEAST_CPU_HEADROOM,
    LEAST_HEADROOM,
    cublas_workspace,
    unseen_terms,
)
from attfc_planner.memory.run import CUBLAS_HANDLES
from attfc_planner.speed.efficiency import Efficiencies, Range, efficiencies
from attfc_train.units import MIB, format_bytes


def show_calibration(console: Console, result: Calibrated) -> None:
    """Print the figures, the runs and what did not run."""
    console.print(_figures(result))
    console.print()
    console.print(_runs(result))
    for line in result.failed:
        console.print(f"Left out: {line}", highlight=False, soft_wrap=True)
    console.print(_note(result), style="dim", highlight=False)


def _figures(result: Calibrated) -> Table:
    calibration = result.calibration
    table = Table(
        box=None, pad_edge=False, title=f"{result.gpu.name}, calibrated in {calibration.precision}", title_justify="left"
    )
    table.add_column("term", no_wrap=True)
    for title in ("before", "measured", "residual"):
        table.add_column(title, justify="right", no_wrap=True)
    before = _memory_before(result)
    for name, value in calibration.memory.items():
        residual = "" if name in (HEADROOM, HEADROOM_SHARE) else f"{calibration.residual_share:.1%}"  # they are made of it
        table.add_row(_words(name), before.get(name, ""), _memory_figure(name, value), residual)
    for name, value in calibration.speed.items():
        stated = _stated(name, efficiencies(result.gpu, calibration.precision))
        table.add_row(_words(name), _speed_range(name, stated), _speed_figure(name, value), f"{calibration.speed_error:.0%}")
    return table


def _runs(result: Calibrated) -> Table:
    table = Table(box=None, pad_edge=False, title="Predicted with it and measured", title_justify="left")
    table.add_column("run", no_wrap=True)
    for title in ("peak MiB", "measured", "step s", "measured", "left out"):
        table.add_column(title, justify="right", no_wrap=True)
    for run, error in zip(result.runs, result.fit.errors, strict=True):
        table.add_row(
            run.case.label,
            f"{run.predicted_bytes / MIB:,.0f}",
            f"{run.measured_bytes / MIB:,.0f}",
            f"{run.predicted_seconds:.3f}",
            f"{run.measured_seconds:.3f}",
            f"{error:+.0%}",
        )
    return table


def _note(result: Calibrated) -> str:
    peak = "the process's peak" if result.gpu.kind == "cpu" else "the allocator's peak"
    return (
        f"peak: {peak}, without headroom; 'left out': error of the step time that all other runs predict. "
        f"Headroom: {result.calibration.headroom_source.removeprefix('measured: ')}."
    )


def _memory_before(result: Calibrated) -> dict[str, str]:
    """Return what a plan assumed until now, by figure."""
    unseen = {term.name: term.bytes for term in unseen_terms(result.runs[0].profile, result.before, 0)}
    least = LEAST_HEADROOM if result.gpu.kind == "cuda" else LEAST_CPU_HEADROOM
    return {
        CONTEXT: format_bytes(unseen["context"]),
        CUBLAS: format_bytes(CUBLAS_HANDLES * cublas_workspace(result.before)),
        CONVOLUTION_FACTOR: "1",
        WORKSPACE_SHARE: f"{CPU_WORKSPACE_SHARE:.0%}",
        HEADROOM: format_bytes(least),
        HEADROOM_SHARE: f"{HEADROOM_SHARE_UNCALIBRATED:.0%}",
    }


def _words(name: str) -> str:
    return name.removesuffix("_bytes").removesuffix("_seconds").replace("_", " ")


def _memory_figure(name: str, value: float) -> str:
    if name == CONVOLUTION_FACTOR:
        return f"{value:g}"
    return f"{value:.1%}" if name in (WORKSPACE_SHARE, HEADROOM_SHARE) else format_bytes(round(value))


def _stated(name: str, table: Efficiencies) -> Range:
    if name == "launch_seconds":
        return Range(table.launch_seconds.high, table.launch_seconds.low)  # low to high speed, as in the other rows
    kind = name.removesuffix("_efficiency").removesuffix("_bandwidth")
    if name == "bandwidth_efficiency":
        return table.bandwidth["default"]
    return table.bandwidth[kind] if "bandwidth" in name else table.arithmetic[kind]


def _speed_range(name: str, stated: Range) -> str:
    return f"{_speed_figure(name, stated.low)} to {_speed_figure(name, stated.high)}"


def _speed_figure(name: str, value: float) -> str:
    return f"{value * 1e6:.1f} us" if name == "launch_seconds" else f"{value:.0%}"
