"""The undisturbed run that damaged files are made of, and that interrupted runs are compared with."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.attack.trainings import undisturbed


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return undisturbed(tmp_path_factory.mktemp("undisturbed"))
