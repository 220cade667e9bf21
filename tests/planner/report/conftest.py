"""A plan with everything that a report can show."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from attfc_train.profile.file import save_profile
from attfc_train.profile.prediction import Interval, MemoryPrediction, MemoryTerm, Prediction, Provenance
from attfc_train.profile.profile import TrainProfile
from attfc_train.profile.search_summary import ConstraintSlack, FrontPoint, HeadFigures, SearchSummary
from attfc_train.units import GIB


def front_point(batch_size: int, hours: float, accuracy: float) -> FrontPoint:
    settings = {"dcc_share": 0.3, "batch_size": batch_size, "gradient_checkpointing": False}
    return FrontPoint(
        settings=settings, hours=hours, images_per_second=1e4 / hours, accuracy=accuracy, memory_bytes=batch_size * 10**7
    )


def compared() -> tuple[HeadFigures, ...]:
    """Return a choice, and the layers that it is compared with."""
    settings = {"batch_size": 256, "accumulation": 1, "dcc_share": 0.3}
    speed = Interval(low=900, high=2100, source="operators")
    ahead = Interval(low=-0.4, high=0.3, source="prior")
    zero = Interval(low=0, high=0, source="prior")
    chosen = HeadFigures(
        head="attfc",
        role="chosen",
        settings=settings,
        memory_bytes=11 * GIB,
        fits=True,
        images_per_second=speed,
        hours=None,
        accuracy=ahead,
        bytes_per_identity=620,
    )
    full_fc = chosen.model_copy(
        update={"head": "full_fc", "role": "as chosen", "memory_bytes": 30 * GIB, "fits": False, "accuracy": zero}
    )
    rate = Interval(low=300, high=800, source="operators")
    best = full_fc.model_copy(update={"role": "at its best", "memory_bytes": 20 * GIB, "fits": True, "images_per_second": rate})
    return chosen, full_fc, best


def planned_profile() -> TrainProfile:
    memory = MemoryPrediction(
        terms=(
            MemoryTerm(name="activations", bytes=9 * GIB, source="traced"),
            MemoryTerm(name="container", bytes=GIB, source="traced"),
            MemoryTerm(name="context", bytes=GIB // 2, source="table: CUDA context, <upper> default"),
        ),
        budget_bytes=24 * GIB,
        peak_phase="backward",
        peak_operator="convolution_backward",
        allocator="expandable_segments:True",
    )
    prediction = Prediction(
        memory=memory,
        images_per_second=Interval(low=900, high=2100, source="operators' FLOPs & bytes"),
        hours_per_epoch=Interval(low=5, high=11.5, source="images / images per second"),
        limited_by="feature encoder (arithmetic)",
        accuracy=Interval(low=-0.4, high=0.3, source="prior"),
    )
    provenance = Provenance(
        attfc_version="0.3.0",
        torch_version="2.13.0",
        created="2026-11-22T10:00:00+00:00",
        gpu="RTX 4090",
        gpu_source="catalogue entry rtx-4090, not measured",
        command="attfc-plan --gpu rtx-4090 --ids 2059906",
        seed=0,
        num_trials=12,
    )
    search = SearchSummary(
        rule="Of the settings within 0.25 points of the best, the fastest.",
        knobs={"batch_size": (128, 256, 512), "dcc_share": (0.3,)},
        left_out=("fp8: the device has no such type",),
        num_settings=6,
        comparison=compared(),
        verdict="AttFC is not needed here: a full FC layer fits in 8 parts of 256.",
        constraints=(ConstraintSlack(name="memory", value=10.5, limit=24, slack=13.5, unit="GiB"),),
        front=(front_point(512, 20.0, -0.6), front_point(256, 24.0, -0.1), front_point(128, 41.0, 0.1)),
    )
    document = {
        "name": "r50 <2 million>",
        "data": {"num_ids": 2_059_906},
        "head": {"kind": "attfc", "dcc_share": 0.3},
        "optim": {"batch_size": 256},
        "prediction": prediction,
        "provenance": provenance,
        "search": search,
    }
    return TrainProfile.model_validate(document)


def write_study(path: Path, num_trials: int = 12) -> None:
    storage = JournalStorage(JournalFileBackend(str(path)))
    study = optuna.create_study(storage=storage, directions=["minimize", "maximize"], study_name="attfc-plan")
    study.set_metric_names(["hours", "points"])
    for number in range(num_trials):
        trial = study.ask()
        batch = trial.suggest_int("batch_size", 0, 5)
        trial.suggest_categorical("storage", ["fp32", "int8"])
        trial.set_constraint("memory", -1.0 if number % 3 else 1.0)
        study.tell(trial, [10.0 - batch + 0.01 * number, 0.1 * batch])
    study.tell(study.ask(), state=optuna.trial.TrialState.FAIL)


@pytest.fixture
def planned(tmp_path: Path) -> Path:
    """best.json with its study beside it."""
    save_profile(planned_profile(), tmp_path / "best.json")
    with pytest.warns(optuna.exceptions.ExperimentalWarning):
        write_study(tmp_path / "best.study.jsonl")
    return tmp_path / "best.json"
