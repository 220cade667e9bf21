"""``attfc-plan explain``, once its options are checked."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from attfc_planner.commands.device import device_for, device_of_plan
from attfc_planner.explain.explain import differences, explain, explained_profile, hosted
from attfc_planner.gpu.versions import installed_versions
from attfc_planner.memory.model import MemoryModel
from attfc_planner.screens.explain import show_explanation
from attfc_planner.screens.timeline_svg import timeline_svg
from attfc_planner.screens.tracing import tracing
from attfc_planner.search.tuned import tuned_accuracy
from attfc_train.files import write_text_atomically
from attfc_train.profile.file import load_profile
from attfc_train.profile.profile import TrainProfile


def explain_file(console: Console, path: Path, gpu_word: str | None, plot: Path | None, cores: int | None = None) -> None:
    """Explain the profile at `path` for its own GPU or for another, and draw the step to `plot`.

    Args:
        cores: of the GPU's host; None: those that were planned for, or, on another GPU, those that are here or unknown.
    """
    document = _with_known_teacher(load_profile(path))
    gpu = device_of_plan(console, document.provenance) if gpu_word is None else device_for(console, gpu_word)
    gpu = hosted(gpu, document, cores) if gpu_word is None else gpu.in_host(cores)
    profile = explained_profile(document, gpu)
    measured = tuned_accuracy(profile)
    with tracing(console, "Explaining"):
        explained = explain(profile, gpu, MemoryModel(profile, gpu, gpu.capacity_bytes), measured)
    show_explanation(console, explained, differences(document, explained.memory, gpu, installed_versions()))
    if plot is not None:
        title = f"{document.name}: memory over one train step on {gpu.name}"
        write_text_atomically(plot, timeline_svg(explained.timeline, explained.room_bytes, title))
        console.print(f"Written: {plot}", highlight=False, soft_wrap=True)


def _with_known_teacher(profile: TrainProfile) -> TrainProfile:
    """Return a profile that names the file of a teacher with its architecture, as the trainer will find it.

    Raises:
        CheckpointError: the file is missing, damaged, or holds no encoder that fits.
    """
    if profile.teacher.path is None or profile.teacher.backbone is not None:
        return profile
    from attfc_train.export.teacher import open_teacher

    return profile.model_copy(update={"teacher": open_teacher(profile).settings})
