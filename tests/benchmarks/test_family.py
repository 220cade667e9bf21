"""The benchmark of the family's methods on a tiny set: runs are recorded once, shared between experiments and reported."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from benchmarks.family import __main__ as family
from benchmarks.family.experiments import EXPERIMENTS, Arm, Experiment
from benchmarks.family.report import PAGE, file_of, fill, table
from benchmarks.family.training import Run
from benchmarks.family.workshop import Workshop
from benchmarks.heads import data_sets
from benchmarks.heads.records import claimed, recorded
from benchmarks.provenance import RESULTS


@pytest.fixture
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    monkeypatch.setattr(data_sets, "CACHE", tmp_path / "cache")
    return Workshop(data_sets.computed(12, 4, 32, 10, 8, 8), tmp_path / "work")


def options_of(workshop: Workshop, seeds: list[int] | None = None) -> argparse.Namespace:
    output = file_of(workshop.data.name, workshop.folder)
    return argparse.Namespace(results=workshop.folder, output=output, work=workshop.folder, seeds=seeds)


def made(workshop: Workshop, seed: int) -> tuple[str, ...]:
    """Prepare a file that a run's rate is read from."""
    path = workshop.once(f"rate-{seed}", lambda path: (path.parent / path.name).write_text("0.125") and None)
    return (f"optim.learning_rate={path.read_text()}",)


def test_runs_are_recorded_once_and_shared(workshop: Workshop) -> None:
    """Catches an arm that is trained again for another experiment, and one that is taken for another."""
    half = Arm("half", ("optim.schedule=constant",), 0.5)
    first = Experiment("?", (Arm("plain"), half, Arm("prepared", prepare=made, prepared="a rate")), (0, 1))
    options = options_of(workshop)
    assert family.compare(first, workshop, options)
    lines = recorded(options.output)
    assert len(lines) == 6
    assert [(line["steps"], line["seed"]) for line in lines[:3]] == [(8, 0), (4, 0), (8, 0)]
    assert family.compare(Experiment("?", (Arm("as it is"),), (0, 1)), workshop, options)
    assert len(recorded(options.output)) == 6
    rows = table(first, lines).splitlines()
    assert [row.split(" | ")[0] for row in rows[2:]] == ["| plain", "| half", "| prepared"]
    assert all(row.count("±") == 2 and " | 2 | " in row for row in rows[2:])


def test_a_run_of_more_steps_than_a_full_one_hides_no_other() -> None:
    """Catches smaller batches, with more steps for as many images, that are taken for the length of a full run."""
    arms = (Arm("full"), Arm("small batch", share=4, prepared="a batch"))
    lines = [
        {"sets": [], "prepared": arm.prepared, "steps": steps, "seed": 0, "accuracy": 0.5, "auc": 0.5}
        for arm, steps in zip(arms, (8, 32), strict=True)
    ]
    assert table(Experiment("?", arms), lines).count("50.00 | 50.00 | 1") == 2


def test_what_another_process_makes_is_waited_for(workshop: Workshop) -> None:
    options = options_of(workshop, [0])
    experiment = Experiment("?", (Arm("prepared", prepare=made, prepared="a rate"),))
    with claimed(workshop.folder / "rate-0"):
        assert not family.compare(experiment, workshop, options)
    assert not options.output.exists()
    assert family.compare(experiment, workshop, options)


def test_every_arm_has_settings_that_exist(workshop: Workshop) -> None:
    """Catches a setting that was renamed."""
    for experiment in EXPERIMENTS.values():
        for arm in experiment.arms:
            # Its weight needs a teacher; none is trained here.
            teacher = ("teacher.backbone=tiny",) if arm.prepared.startswith("teacher") else ()
            assert Run(arm, 0)._profile(workshop, (*arm.sets, *teacher)).data.num_ids == 12


def test_the_page_holds_what_is_on_record() -> None:
    """Run ``python -m benchmarks.family --report`` when runs were added."""
    text = PAGE.read_text(encoding="utf-8")
    assert fill(text, RESULTS) == text
