"""The report from its files: the profile, the studies beside it, and a run's record."""

from __future__ import annotations

from pathlib import Path

from attfc_planner.report import sections
from attfc_planner.report.measured import measured
from attfc_planner.report.page import Section, page
from attfc_planner.report.study_history import Objective, read_objectives
from attfc_train.errors import ProfileError
from attfc_train.profile.file import load_profile
from attfc_train.profile.profile import TrainProfile
from attfc_train.streams import printable

STUDY_ENDINGS = (".study.jsonl", ".tune.jsonl")
"""Endings of the studies that ``attfc-plan`` and ``attfc-plan tune`` write beside a profile."""


def report_html(path: Path, study: Path | None, run: Path | None) -> str:
    """Return the page for the profile at `path`.

    Args:
        study: an Optuna journal; None: those that lie beside the profile, if any.
        run: folder of a run with this profile, whose measurements are set beside the prediction.

    Raises:
        ProfileError: no profile, one without a prediction, or a run that has not ended or is not of this profile.
        StorageError: `study` is no journal.
    """
    profile = load_profile(path)
    if profile.prediction is None:
        raise ProfileError(f"'{path}' must hold a prediction", "none", "Report what attfc-plan wrote, such as best.json.")
    objectives = [objective for journal in _studies(path, study) for objective in read_objectives(journal)]
    gpu = profile.provenance.gpu if profile.provenance else "an unknown device"
    title = f"{profile.name} on {gpu}"
    # Names may hold control characters, which a terminal would obey if the page were shown on one.
    return printable(page(title, profile.description or "A training profile.", _sections(profile, path, objectives, run)))


def _sections(profile: TrainProfile, path: Path, objectives: list[Objective], run: Path | None) -> list[Section]:
    assert profile.prediction is not None
    search = profile.search
    parts = [sections.comparison_section(search)] if search is not None and (search.comparison or search.notes) else []
    parts += [sections.plan_section(profile), sections.memory_section(profile.prediction.memory)]
    if search is not None:
        parts.append(sections.front_section(search, profile))
    if objectives:
        parts.append(sections.study_section(objectives))
    if run is not None:
        parts.append(sections.measured_section(measured(profile, path, run), profile.prediction))
    return [*parts, sections.commands_section(profile, str(path), None if run is None else str(run))]


def _studies(path: Path, study: Path | None) -> list[Path]:
    if study is not None:
        return [study]
    beside = (path.with_name(path.stem + ending) for ending in STUDY_ENDINGS)
    return [journal for journal in beside if journal.exists()]
