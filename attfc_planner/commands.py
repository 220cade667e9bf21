"""What ``attfc-plan explain``, ``fit`` and ``report`` do once their options are checked."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from attfc_planner.explain import differences, explain, explained_profile
from attfc_planner.explain_screen import show_explanation
from attfc_planner.first_use import with_calibration
from attfc_planner.fit import BACKBONES, FitRequest, fits
from attfc_planner.fit_screen import show_fits
from attfc_planner.gpu.detect import find_gpu, find_planned_gpu
from attfc_planner.gpu.profile import GpuProfile
from attfc_planner.memory import MemoryModel
from attfc_planner.plan import PlanRequest, base_profile, choose_precision, installed_versions
from attfc_planner.search.tuned import tuned_accuracy
from attfc_planner.timeline_svg import timeline_svg
from attfc_train.files import write_text_atomically
from attfc_train.profile import AttFCSettings, Precision
from attfc_train.profile_file import load_profile


def explain_file(console: Console, path: Path, gpu_word: str | None, plot: Path | None) -> None:
    """Explains the profile at `path` for its own GPU or for another, and draws the step to `plot`."""
    document = load_profile(path)
    gpu = _told(console, find_planned_gpu(document.provenance) if gpu_word is None else find_gpu(gpu_word))
    profile = explained_profile(document, gpu)
    measured = tuned_accuracy(profile) if isinstance(profile.head, AttFCSettings) else None
    with console.status("Tracing the train step, and once more for every knob ..."):
        explained = explain(profile, gpu, MemoryModel(profile, gpu, gpu.capacity_bytes), measured)
    show_explanation(console, explained, differences(document, explained.memory, gpu, installed_versions()))
    if plot is not None:
        title = f"{document.name}: memory over one train step on {gpu.name}"
        write_text_atomically(plot, timeline_svg(explained.timeline, explained.room_bytes, title))
        console.print(f"Written: {plot}", highlight=False, soft_wrap=True)


def fit_gpu(
    console: Console, gpu_word: str, backbones: list[str] | None, share: float, storage: str, precision: Precision | None
) -> None:
    """Shows how many identities fit the GPU."""
    gpu = _told(console, find_gpu(gpu_word))
    chosen = choose_precision(precision, gpu)
    request = FitRequest(tuple(dict.fromkeys(backbones or BACKBONES)), share, storage, chosen)
    base = base_profile(PlanRequest(num_ids=2, precision=chosen), gpu)
    with console.status("Tracing the train step of every backbone where it was not traced before ..."):
        found = fits(request, gpu, MemoryModel(base, gpu, gpu.capacity_bytes))
    show_fits(console, found, request, gpu)


def report_file(console: Console, path: Path, output: Path, study: Path | None, run: Path | None) -> None:
    """Writes the report on the profile at `path` to `output`."""
    from attfc_planner.report.build import report_html

    write_text_atomically(output, report_html(path, study, run))
    console.print(f"Written: {output}", highlight=False, soft_wrap=True)


def _told(console: Console, found: tuple[GpuProfile, str | None]) -> GpuProfile:
    """The device, calibrated if it must be, after the user was told what he may not expect."""
    gpu, note = found
    if note:
        console.print(note, highlight=False, soft_wrap=True)
    return with_calibration(console, gpu)
