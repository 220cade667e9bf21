"""What a finished run leaves to read: its last words, ``run.json``, the model card and the curves."""

from __future__ import annotations

import io
import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from attfc_train.profile.file import load_preset, save_profile
from attfc_train.profile.profile import TrainProfile
from attfc_train.run import run, summary
from attfc_train.run.curves import curves
from attfc_train.run.facts import Facts
from attfc_train.run.summary import FILES, is_summarised, last_words, write_summary
from tests.train.run.test_resume import profile_of

MODELS = ("best.pt", "model.pt")
HOSTILE = "a|b`c\n<script>&*_[x](y)\x1b[31m"


def records(name: str = "lfw", accuracies: tuple[float, ...] = (0.8, 0.9, 0.85)) -> list[dict[str, Any]]:
    """The record of a run of 60 steps that was looked at as often as there are accuracies."""
    found: list[dict[str, Any]] = [{"event": "start", "step": 0, "time": 1e9, "device": "cpu", "torch": "2.13"}]
    found += [{"event": "step", "step": step, "time": 1e9, "loss": 10 - step / 10} for step in range(10, 70, 10)]
    found += [
        {"event": "evaluate", "step": step, "time": 1e9, "set": name, "accuracy": value, "num_pairs": 600}
        for step, value in zip(range(60 - 20 * (len(accuracies) - 1), 61, 20), accuracies, strict=True)
    ]
    return [*found, {"event": "end", "step": 60, "time": 1e9 + 90, "images_per_second": 331.0, "peak_memory_bytes": 2**30}]


def profile(name: str = "mine", path: str = "faces") -> TrainProfile:
    preset = load_preset("tiny")
    data = preset.data.model_copy(update={"path": path, "num_ids": 1156, "num_images": 6206})
    return preset.model_copy(
        update={"name": name, "data": data, "run": preset.run.model_copy(update={"steps": 60, "val": ("lfw.bin",)})}
    )


def folder_of(folder: Path, content: list[dict[str, Any]], of: TrainProfile) -> Path:
    (folder / "log.jsonl").write_text("".join(json.dumps(record) + "\n" for record in content))
    save_profile(of, folder / "profile.json")
    return folder


def test_the_last_words_say_what_was_reached_where_it_is_and_what_comes_next() -> None:
    words = last_words(Facts(profile(), records()), Path("runs/my run"), MODELS)
    # sqrt(0.9 x 0.1 / 600) = 1.22 %
    best = "90.00% on lfw (standard error 1.22%, 600 pairs)"
    assert words == [
        f"Done: 60 steps; {best}",
        "Best model: runs/my run/best.pt (step 40; of 3 looks at the same pairs, so a little flattered)",
        "Last model: runs/my run/model.pt; about the run: runs/my run/README.md",
        "Next:",
        "  attfc-train evaluate 'runs/my run'",
        "  attfc-train export 'runs/my run'",
        "  attfc-train --resume 'runs/my run' --extend 5",
    ]


def test_the_last_words_of_a_run_that_was_never_looked_at() -> None:
    words = last_words(Facts(profile(), records(accuracies=())), Path("runs/a"), MODELS)
    assert words[:2] == [
        "Done: 60 steps; no accuracy, because the run had no --val",
        "Last model: runs/a/model.pt; about the run: runs/a/README.md",
    ]
    assert "  attfc-train evaluate runs/a --val SET" in words


def test_the_first_of_two_equal_looks_is_the_best_as_for_the_loop() -> None:
    assert Facts(profile(), records(accuracies=(0.8, 0.9, 0.9))).best()[0].step == 40


def test_a_look_that_was_cut_short_is_none() -> None:
    """Catches a mean over one of two sets, which may be the easy one."""
    cut = [record for record in records("a") + records("b") if (record.get("set"), record["step"]) != ("b", 40)]
    assert [[each.set_name for each in look] for look in Facts(profile(), cut).looks()] == [["a", "b"], ["a", "b"]]


def test_run_json(tmp_path: Path) -> None:
    write_summary(folder_of(tmp_path, records(), profile()), "profile.json", MODELS)
    found = json.loads((tmp_path / "run.json").read_text())
    assert (found["format"], found["steps"], found["loss"], found["images_per_second"]) == (1, 60, 4.0, 331.0)
    assert found["data"] == {
        "path": "faces",
        "identities": 1156,
        "images": 6206,
        "labels_digest": None,
        "val": ["lfw.bin"],
    }
    assert found["best"]["file"] == "best.pt"
    (best,) = found["best"]["sets"]
    assert (best["set"], best["step"], best["accuracy"], best["num_pairs"]) == ("lfw", 40, 0.9, 600)
    assert best["standard_error"] == pytest.approx((0.9 * 0.1 / 600) ** 0.5)
    assert found["last"]["sets"][0]["accuracy"] == 0.85
    assert (found["started"], found["finished"]) == ("2001-09-09T01:46:40+00:00", "2001-09-09T01:48:10+00:00")
    assert found["versions"]["torch"] == "2.13"


def test_the_card_names_the_interval_and_escapes_names(tmp_path: Path) -> None:
    write_summary(folder_of(tmp_path, records(HOSTILE), profile(HOSTILE, HOSTILE)), "profile.json", MODELS)
    card = (tmp_path / "README.md").read_text()
    escaped = r"a\|b\`c \<script\>\&\*\_\[x\](y)\\x1b\[31m"
    assert f"| best.pt | {escaped} | 90.00% | 1.22% | 600 | 40 |" in card
    assert f"| model.pt | {escaped} | 85.00% | 1.46% | 600 | 60 |" in card
    assert f"# {escaped}\n" in card
    assert "± standard error" in card
    assert "It is no 95 %" in " ".join(card.split()).replace("it is no", "It is no")
    assert "\x1b" not in card
    assert "<script>" not in card


@pytest.mark.parametrize("name", ["lfw", HOSTILE])
def test_the_picture_is_one_whatever_the_names(name: str) -> None:
    picture = ElementTree.fromstring(curves(Facts(profile(name), records(name))))
    texts = "".join(picture.itertext())
    assert all(word in texts for word in ("loss", "accuracy, ± standard error", "step"))
    lines = [line.get("points", "").split() for line in picture.iter("{http://www.w3.org/2000/svg}polyline")]
    assert [len(line) for line in lines] == [6, 3]
    heights = [float(point.split(",")[1]) for point in lines[0]]
    assert heights == sorted(heights), "the loss falls, so its line goes down"


@pytest.mark.parametrize(
    "content",
    [
        [],
        [
            {"event": "data", "step": 0, "messages": 5},
            {"event": "step", "step": 1, "loss": "x"},
            {"event": "evaluate", "step": 1, "set": None, "accuracy": 7.0, "num_pairs": 0},
            {"event": "end", "step": 60, "time": "x", "images_per_second": 10**400},
        ],
    ],
)
def test_a_record_that_is_damaged_is_summarised_all_the_same(content: list[dict[str, Any]], tmp_path: Path) -> None:
    write_summary(folder_of(tmp_path, content, profile()), "profile.json", MODELS)
    ElementTree.fromstring((tmp_path / "curves.svg").read_text())
    assert json.loads((tmp_path / "run.json").read_text())["best"] is None
    assert "Not measured" in (tmp_path / "README.md").read_text()


def test_a_long_record_makes_a_small_picture() -> None:
    steps = [{"event": "step", "step": step, "loss": 1.0, "time": 0.0} for step in range(1, 20_001)]
    assert len(curves(Facts(profile(), steps))) < 20_000


def test_a_summary_of_an_earlier_end_is_none(tmp_path: Path) -> None:
    """Catches the summary of a run before ``--extend`` that is taken for that of the longer one."""
    write_summary(folder_of(tmp_path, records(), profile()), "profile.json", MODELS)
    assert is_summarised(tmp_path)
    later = [*records(), {"event": "end", "step": 60, "time": 2e9}]
    folder_of(tmp_path, later, profile())
    assert not is_summarised(tmp_path)
    write_summary(tmp_path, "profile.json", MODELS)
    assert is_summarised(tmp_path)
    (tmp_path / "README.md").unlink()
    assert not is_summarised(tmp_path)


def test_a_real_run_says_it_and_a_finished_one_gets_back_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = io.StringIO()
    folder = tmp_path / "run"
    options = run.RunOptions(folder, torch.device("cpu"), Console(file=screen, width=300))
    run.start(profile_of(steps=4, eval_every=2, save_every=4), options)
    said = screen.getvalue()
    assert "Done: 4 steps; " in said
    assert f"Best model: {folder}/best.pt (step " in said
    assert "(standard error " in said
    assert "±" not in said, "an interval has a name"
    before = {name: (folder / name).read_bytes() for name in FILES}
    for name in FILES:
        (folder / name).unlink()
        run.resume(options)
        assert {name: (folder / name).read_bytes() for name in FILES} == before
    monkeypatch.setattr(summary, "write_text_atomically", None)
    run.resume(options)  # nothing is missing: nothing is written
