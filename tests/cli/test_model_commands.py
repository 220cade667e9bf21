"""``attfc-train export``, ``embed``, ``compare``, ``--init`` and ``--extend`` as users call them."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from attfc_train import cli
from attfc_train.errors import CheckpointError, DataError, StorageError, UsageError
from attfc_train.evaluate.embed import evaluate
from attfc_train.evaluate.load import load_verification_sets
from attfc_train.export.model_file import open_encoder
from attfc_train.profile.file import load_profile
from tests.cli.conftest import Refusal, face
from tests.train.export.networks import needs

Call = Callable[..., str]
VAL = "synthetic:6x3+500"


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """``call("export", run)``: runs attfc-train, which must succeed, and returns what it printed."""

    def run(*arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", ["attfc-train", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            cli.main()
        output, errors = capsys.readouterr()
        assert left.value.code == 0, errors
        return " ".join(output.split())

    return run


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    (folder / "inner").mkdir(parents=True)
    for identity in range(3):
        (folder / f"{identity}.jpg").write_bytes(face(identity, 0))
    (folder / "inner" / "0b.jpg").write_bytes(face(0, 1))
    (folder / "notes.txt").write_text("no picture")
    return folder


def test_export_as_onnx_says_how_alike(trained_run: Path, tmp_path: Path, call: Call) -> None:
    needs("onnx", "onnxruntime")
    output = call("export", trained_run, "-o", tmp_path / "model.onnx", "--val", "synthetic:6x3+500")
    assert "32 x 32 -> 16, least cosine with the original 1.0000000 (batches of 1, 2, 32; 32 images of synthetic:8x3)" in output
    assert "InsightFace's package takes no recognition model for 32 pixels" in output
    assert "accuracy" in output
    assert (tmp_path / "model.onnx").is_file()


@pytest.mark.parametrize("ending", [".safetensors", ".pt", ".pt2"])
def test_export_in_other_formats(ending: str, trained_run: Path, tmp_path: Path, call: Call) -> None:
    if ending == ".safetensors":
        needs("safetensors")
    output = call("export", trained_run, "-o", tmp_path / f"out{ending}")
    assert ("the same bits" in output) == (ending != ".pt2")
    assert (tmp_path / f"out{ending}").is_file()


def test_int8_needs_images(trained_run: Path, tmp_path: Path, refusal: Refusal) -> None:
    needs("onnx", "onnxruntime", "safetensors")
    target = tmp_path / "small.onnx"
    refusal(UsageError, "--calibrate must name images", "export", trained_run / "model.pt", "-o", target, "--precision", "int8")
    assert not target.exists()


def test_int8_is_calibrated_on_the_runs_own_data(trained_run: Path, tmp_path: Path, call: Call) -> None:
    needs("onnx", "onnxruntime")
    output = call("export", trained_run, "-o", tmp_path / "small.onnx", "--precision", "int8")
    assert "int8" in output
    assert "images of synthetic:8x3" in output


@pytest.mark.parametrize(
    ("expected", "arguments"),
    [
        ("must end in the name of a format", ["-o", "model.tflite"]),
        ("--precision must be fp32 or fp16 or int8, but got 'fp8'. Leave it out", ["--precision", "fp8"]),
        ("--which must be best or last", ["--which", "first"]),
        ("must be another file than the model", ["-o", "RUN/best.pt"]),
        ("--precision is for .onnx files", ["-o", "OUT/model.pt", "--precision", "fp16"]),
    ],
)
def test_options_that_make_no_sense(
    expected: str, arguments: list[str], trained_run: Path, tmp_path: Path, refusal: Refusal
) -> None:
    folder = Path(shutil.copytree(trained_run, tmp_path / "run"))
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    replaced = [argument.replace("RUN", str(folder)).replace("OUT", str(tmp_path)) for argument in arguments]
    refusal(UsageError, expected, "export", folder, *replaced)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_what_is_no_model(images: Path, tmp_path: Path, refusal: Refusal) -> None:
    (tmp_path / "text.pt").write_text("hello")
    refusal(CheckpointError, "must be a readable checkpoint", "export", tmp_path / "text.pt")
    refusal(CheckpointError, "must exist", "embed", images, "--model", tmp_path / "nowhere.onnx")


def test_embed_writes_a_row_per_image(trained_run: Path, images: Path, tmp_path: Path, call: Call) -> None:
    (images / "broken.jpg").write_bytes(b"\xff\xd8 no picture")
    output = call("embed", images, "-o", tmp_path / "f.npz", "--model", trained_run, "--device", "cpu")
    assert "warning: left out: " in output
    assert "broken.jpg" in output
    assert "features [4, 16] of length 1" in output
    assert "1 left out" in output
    table = np.load(tmp_path / "f.npz")
    assert [Path(name).name for name in table["files"]] == ["0.jpg", "1.jpg", "2.jpg", "0b.jpg"]
    np.testing.assert_allclose(np.linalg.norm(table["features"], axis=1), 1, atol=1e-5)
    assert table["features"].dtype == np.float32


def test_embed_without_images(trained_run: Path, tmp_path: Path, refusal: Refusal) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "b.jpg").write_bytes(b"no picture")
    refusal(DataError, "there must be images", "embed", tmp_path / "empty", "--model", trained_run)
    refusal(UsageError, "must be an .npz file", "embed", tmp_path / "b.jpg", "--model", trained_run, "-o", "f.csv")
    refusal(UsageError, "IMAGE must be a path on this machine", "embed", "s3://b/x", "--model", trained_run)
    words = ("embed", tmp_path / "empty", "--model", trained_run, "-o", "s3://b/f.npz")
    refusal(StorageError, "--output must be a path on this machine", *words)


def test_compare_gives_a_cosine_and_a_verdict(trained_run: Path, images: Path, call: Call) -> None:
    same = [images / "0.jpg", images / "0.jpg", "--model", trained_run]
    assert "cosine 1.0000 (" in call("compare", *same)
    assert "the same person, at the threshold 0.9000 of --threshold" in call("compare", *same, "--threshold", "0.9")
    output = call("compare", *same, "--val", VAL)
    encoder = open_encoder(trained_run)
    sets = load_verification_sets([VAL], encoder.image_size)
    (result,) = evaluate(encoder.network, sets, image_size=encoder.image_size, batch_size=64, device=encoder.device).values()
    # The protocol's threshold is a squared distance of unit vectors, 2 - 2 cosine.
    assert f"at the threshold {1 - result.threshold / 2:.4f} of {VAL} (accuracy {result.accuracy:.2%})" in output
    assert "different people" in call("compare", images / "0.jpg", images / "1.jpg", "--model", trained_run, "--threshold", "1")


def test_init_and_extend(trained_run: Path, profile_file: Callable[..., Path], tmp_path: Path, call: Call) -> None:
    folder = tmp_path / "second"
    call("--profile", profile_file(), "--init", trained_run, "--output", folder, "--device", "cpu")
    assert load_profile(folder / "profile.json").run.steps == 2
    call("--resume", folder, "--extend", "0.5", "--device", "cpu")
    assert load_profile(folder / "profile.json").run.steps == 5


def test_init_of_another_network_names_its_parameters(
    trained_run: Path, profile_file: Callable[..., Path], tmp_path: Path, refusal: Refusal
) -> None:
    arguments = ["--profile", profile_file(), "--init", trained_run, "--output", tmp_path / "second", "--device", "cpu"]
    expected = r"fc\.weight is \[16, 1024\], not \[16, 4096\].*--set model\.image_size=32"
    refusal(CheckpointError, expected, *arguments, "--set", "model.image_size=64")


def test_extend_and_init_where_they_do_not_belong(
    trained_run: Path, profile_file: Callable[..., Path], refusal: Refusal
) -> None:
    refusal(UsageError, "--extend needs a run", "--profile", profile_file(), "--extend", "2", "--device", "cpu")
    refusal(UsageError, "--extend must be", "--resume", trained_run, "--extend", "-1", "--device", "cpu")
    refusal(UsageError, "takes its settings from the run", "--resume", trained_run, "--init", "x.pt", "--device", "cpu")
