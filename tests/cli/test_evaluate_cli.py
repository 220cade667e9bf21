"""``attfc-train evaluate`` as users call it: any model, any sets, thresholds, comparisons, pictures."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from attfc_train import cli
from attfc_train.errors import AttfcError, CheckpointError, DataError, UsageError, VerificationSetError
from attfc_train.evaluate.bins import write_bin
from attfc_train.evaluate.load import open_verification
from tests.cli.conftest import Refusal, face
from tests.train.evaluate.test_ijb_folder import write_ijb
from tests.train.export.networks import needs

Call = Callable[..., str]
VAL = "synthetic:6x3+500"


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """``call(run)``: runs ``attfc-train evaluate`` at 80 columns, which must succeed, and returns what it printed."""

    def run(*arguments: object, command: str = "evaluate") -> str:
        monkeypatch.setenv("COLUMNS", "80")
        monkeypatch.setattr(sys, "argv", ["attfc-train", command, *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            cli.main()
        output, errors = capsys.readouterr()
        assert left.value.code == 0, errors
        return output

    return run


@pytest.fixture
def bins(tmp_path: Path) -> Path:
    """A folder of two ``.bin`` files, beside which other things lie."""
    folder = tmp_path / "sets"
    folder.mkdir()
    for name, first in {"one": 700, "two": 900}.items():
        drawn = open_verification(f"synthetic:10x3+{first}")
        rows = [face(first + int(place) // 3, int(place) % 3) for place in drawn.pairs.reshape(-1)]
        write_bin(folder / f"{name}.bin", rows, drawn.same)
    (folder / "property").write_text("10,32,32")
    return folder


def figures(output: str) -> list[str]:
    """The lines of the summary: accuracy and intervals, without the speed."""
    return [line.rsplit(maxsplit=1)[0] for line in output.splitlines() if "±" in line and "%" in line and "folds" not in line]


def test_every_form_of_a_model_gives_the_same(trained_run: Path, tmp_path: Path, call: Call) -> None:
    needs("onnx", "onnxruntime", "safetensors")
    expected = figures(call(trained_run, "--device", "cpu"))
    assert len(expected) == 1
    assert expected[0].split()[:2] == ["synthetic:6x3", "20"], "a long name is folded"
    forms = [trained_run / "best.pt"]
    for ending in ("onnx", "safetensors", "pt"):
        call(trained_run, "-o", tmp_path / f"model.{ending}", command="export")
        forms.append(tmp_path / f"model.{ending}")
    torch.save({"state_dict": torch.load(forms[-1], weights_only=True)}, tmp_path / "wrapped.pt")
    for form in (*forms, tmp_path / "wrapped.pt", trained_run / "checkpoint.pt"):
        assert figures(call(form, "--val", VAL, "--device", "cpu")) == expected, form


@pytest.mark.parametrize("batch", [1, 7])
def test_an_onnx_file_of_a_fixed_batch(batch: int, trained_run: Path, tmp_path: Path, call: Call) -> None:
    """As older exporters write it; catches a last batch that is not filled up."""
    needs("onnx", "onnxruntime")
    import onnx

    call(trained_run, "-o", tmp_path / "model.onnx", command="export")
    model = onnx.load(tmp_path / "model.onnx")
    for value in (model.graph.input[0], model.graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_value = batch
    onnx.save(model, tmp_path / "fixed.onnx")
    expected = figures(call(tmp_path / "model.onnx", "--val", VAL, "--device", "cpu"))
    assert figures(call(tmp_path / "fixed.onnx", "--val", VAL, "--device", "cpu")) == expected


def test_the_screen_says_what_its_figures_are(trained_run: Path, call: Call) -> None:
    output = call(trained_run, "--device", "cpu")
    for text in (
        "± over folds",
        "95 % of the mean",
        "no error of the mean",
        "accept above cosine",
        "1,000 bootstrap samples of",
    ):
        assert text in " ".join(output.split())
    assert "pairs of two people are too few for FAR" in output
    assert "fewer than 30 false accepts" in output
    assert max(len(line) for line in output.splitlines() if str(trained_run.parent) not in line) <= 80


def test_all_bins_of_a_folder(trained_run: Path, bins: Path, call: Call) -> None:
    output = call(trained_run, "--val", bins, "--device", "cpu")
    assert [line.split()[0] for line in figures(output)] == ["one", "two"]
    assert output.index("one: accuracy") < output.index("two: accuracy")
    shutil.copytree(bins, bins.parent / "other")
    output = call(trained_run, "--val", bins / "one.bin", "--val", bins.parent / "other" / "one.bin", "--device", "cpu")
    assert len(figures(output)) == 2, "two sets of one name"


def test_a_rate_that_is_chosen(trained_run: Path, bins: Path, call: Call) -> None:
    output = call(trained_run, "--val", bins / "one.bin", "--far", "0.2", "--far", "0.25", "--device", "cpu")
    rows = [line.split()[0] for line in output.splitlines() if line.strip().startswith("0.")]
    assert rows == ["0.25", "0.2"]
    assert "FAR 0.0" not in output


@pytest.mark.parametrize("place", ["before", "between", "after"])
def test_compare(place: str, trained_run: Path, call: Call) -> None:
    other = trained_run / "model.pt"
    arguments: list[object] = [trained_run, other]
    arguments.insert({"before": 0, "between": 1, "after": 2}[place], "--compare")
    output = " ".join(call(*arguments, "--val", VAL, "--device", "cpu").split())
    assert f"A: {trained_run / 'best.pt'} B: {other}" in output
    for text in ("B - A:", "paired bootstrap by person", "McNemar's exact test", "no difference is shown"):
        assert text in output


def test_a_roc_picture(trained_run: Path, tmp_path: Path, call: Call) -> None:
    pytest.importorskip("matplotlib", reason="the [report] extra")
    output = call(trained_run, "--roc", tmp_path / "roc.svg", "--device", "cpu")
    assert f"ROC curves: {tmp_path / 'roc.svg'}" in output
    assert VAL in (tmp_path / "roc.svg").read_text()


def test_options_that_make_no_sense(trained_run: Path, tmp_path: Path, refusal: Refusal) -> None:
    refusal(UsageError, "--compare needs two models", "evaluate", trained_run, "--compare")
    for far in ("0", "1", "1.5", "nan", "x"):
        rule = f"--far must be a number between 0 and 1, both excluded, but got '{far}'"
        refusal(UsageError, rule, "evaluate", trained_run, "--far", far)
    refusal(UsageError, r"--roc must end in \.svg or \.png", "evaluate", trained_run, "--roc", tmp_path / "roc.jpg")
    refusal(VerificationSetError, "--val must name", "evaluate", trained_run / "model.pt", "--device", "cpu")
    refusal(CheckpointError, "MODEL must exist, but got .*where nothing is", "evaluate", tmp_path / "no.pt", "--val", VAL)
    refusal(AttfcError, "--at-least 1 of the pairs", "evaluate", trained_run, "--at-least", "1", "--device", "cpu")


def test_without_matplotlib(trained_run: Path, monkeypatch: pytest.MonkeyPatch, refusal: Refusal) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    refusal(UsageError, r"--roc needs the extra 'report'", "evaluate", trained_run, "--roc", "roc.svg")


def test_templates_of_ijb(trained_run: Path, tmp_path: Path, call: Call) -> None:
    root = write_ijb(tmp_path / "IJBX")
    output = " ".join(call(trained_run, "--ijb", root, "--device", "cpu").split())
    assert "IJBX: 24 pictures, 12 templates, 6 pairs of one person, 60 of two" in output
    assert "TAR as InsightFace's IJB script gives it" in output
    assert re.search(r"1:N ijbx_1N_gallery_G1: rank 1 [\d.]+%, rank 5 .* \(4 mated probes, 2 others\)", output)
    assert "± over folds" not in output, "templates have no folds"


def test_rank_one_among_distractors(trained_run: Path, bins: Path, call: Call, refusal: Refusal) -> None:
    arguments = [trained_run, "--val", bins / "one.bin", "--device", "cpu", "--distractors"]
    output = " ".join(call(*arguments, "synthetic:8x2+5000").split())
    assert re.search(r"one: rank 1 [\d.]+% \(95 %: .* 60 searches among 16 distractors of synthetic:8x2\+5000", output)
    refusal(DataError, "no/such", "evaluate", *arguments, "no/such")


def test_what_needs_a_set_of_pairs(trained_run: Path, tmp_path: Path, refusal: Refusal) -> None:
    refusal(VerificationSetError, "must hold one", "evaluate", trained_run, "--ijb", tmp_path, "--device", "cpu")
    refusal(UsageError, "need a --val", "evaluate", trained_run, "--ijb", tmp_path, "--distractors", "synthetic:8x2")
