"""A run beside the prediction of its profile, and runs of which nothing was predicted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from attfc_planner.report.build import report_html
from attfc_train.errors import ProfileError
from attfc_train.profile.file import load_profile, save_profile, with_overrides
from attfc_train.profile.profile import TrainProfile
from tests.planner.report.conftest import planned_profile

IMAGES = 42_474_557


def run_with(profile: TrainProfile, folder: Path, device: str = "cuda:0") -> Path:
    """Write what a run leaves: the profile with the numbers of its data, and its record."""
    resolved = profile.resolve(profile.data.num_ids or 2_059_906, IMAGES)
    data = resolved.data.model_copy(update={"labels_digest": 32 * "a"})
    folder.mkdir()
    save_profile(resolved.model_copy(update={"data": data}), folder / "profile.json")
    end = {"event": "end", "step": 9, "images_per_second": 1234.5, "peak_memory_bytes": 10 * 2**30, "accuracy": 0.878}
    records = [{"event": "start", "step": 0, "device": device}, end]
    (folder / "log.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder


def test_a_run_is_set_beside_its_prediction(planned: Path) -> None:
    page = report_html(planned, None, run_with(planned_profile(), planned.parent / "run"))
    for piece in ("Predicted and measured", "1,234.5", "10.00 GiB", "87.8 %", '<line class="measured"'):
        assert piece in page, piece


def test_what_decides_nothing_may_differ(planned: Path) -> None:
    """Catches a comparison of files: the place of the data, the seed and what is logged are every run's own."""
    habits = ["data.path=faces", "data.num_workers=7", "run.val=[]", "run.seed=5", "run.log_every=3", "run.keep_checkpoints=9"]
    run = run_with(with_overrides(planned_profile(), habits), planned.parent / "run")
    assert "1,234.5" in report_html(planned, None, run)
    assert "1,234.5" in report_html(run / "profile.json", None, run)


@pytest.mark.parametrize(
    ("assignment", "got"),
    [
        ("head.dcc_share=0.2", r"head.dcc_size 411981 in the run and 617972 in '.*best.json'"),
        ("optim.batch_size=512", r"optim.batch_size 512 in the run and 256 in"),
        ("optim.learning_rate=0.3", r"optim.learning_rate 0.3 in the run and 0.1 in"),
        ("optim.accumulation=2", r"optim.accumulation 2 in the run and 1 in"),
        ("model.backbone=r18", r'model.backbone "r18" in the run and "r50" in'),
        ("model.gradient_checkpointing=true", r"model.gradient_checkpointing true in the run and false in"),
        ("run.epochs=7", r"run.steps 1161414 in the run and 829581 in"),
        ("head.kind=full_fc", r'head.kind "full_fc" in the run and "attfc" in'),
        ("data.num_ids=1000", r"data.num_ids 1000 in the run and 2059906 in"),
        ("data.flip_probability=0", r"data.flip_probability 0.0 in the run and 0.5 in"),
    ],
)
def test_a_run_of_another_profile_is_refused(assignment: str, got: str, planned: Path) -> None:
    run = run_with(with_overrides(planned_profile(), [assignment]), planned.parent / "run")
    with pytest.raises(ProfileError, match=got) as refused:
        report_html(planned, None, run)
    has_prediction = load_profile(run / "profile.json").prediction is not None
    assert ("attfc-plan report" in refused.value.remedy) == has_prediction, "a remedy that would be refused too"
    if has_prediction:
        assert "1,234.5" in report_html(run / "profile.json", None, run)


def test_the_numbers_of_the_data_set_are_the_runs(planned: Path) -> None:
    """A plan may be made before its data are there: other images make other steps, and are no other profile."""
    run = run_with(planned_profile(), planned.parent / "run")
    counted = planned_profile()
    data = counted.data.model_copy(update={"num_images": IMAGES + 12_345})
    save_profile(counted.model_copy(update={"data": data}), planned)
    assert "1,234.5" in report_html(planned, None, run)


def test_a_run_on_another_kind_of_device_is_refused(planned: Path) -> None:
    """Catches a CPU's resident memory beside what an allocator was predicted to reserve."""
    run = run_with(planned_profile(), planned.parent / "run", device="cpu")
    with pytest.raises(ProfileError, match="must have trained on 'cuda', which was planned for, but got 'cpu'"):
        report_html(planned, None, run)


def test_a_folder_that_cannot_tell_its_settings_is_refused(planned: Path) -> None:
    run = run_with(planned_profile(), planned.parent / "run")
    (run / "profile.json").unlink()
    with pytest.raises(ProfileError, match=r"profile\.json"):
        report_html(planned, None, run)
