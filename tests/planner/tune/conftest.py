"""What the tests of tune share: a question by formula and studies in a journal of their own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from attfc_planner.plan import problem
from attfc_planner.tune.question import Question
from attfc_planner.tune.studies.storage import Store, open_storage
from tests.planner.tune.studies.fake_worker import fake_question
from tests.planner.tune.tuning import Tuning


@pytest.fixture(autouse=True)
def _put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """`fake_question` replaces these for good."""
    monkeypatch.setattr(problem, "traced_model", problem.traced_model)
    monkeypatch.setattr(problem, "space_for", problem.space_for)


@pytest.fixture
def asked() -> Question:
    return fake_question()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_storage(f"journal:{tmp_path}/tune.jsonl")


@pytest.fixture
def tuning(asked: Question, store: Store) -> Tuning:
    request = replace(asked.request, data_path="synthetic:60x5", num_ids=60)
    split = replace(asked.split, whole="synthetic:60x5", num_ids=60, num_held_out=15, val=("synthetic:60x5@45:60",))
    return Tuning(replace(asked, problem=replace(asked.problem, request=request), split=split), store)
