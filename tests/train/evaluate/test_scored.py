"""The pairs of a set as a model sees them, block by block, equal those of all pictures at once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from attfc_train.errors import CheckpointError
from attfc_train.evaluate.embed import evaluate
from attfc_train.evaluate.load import load_verification, open_verification, with_folders
from attfc_train.evaluate.pairs import verify_distances
from attfc_train.evaluate.roc_picture import draw_roc, roc_points
from attfc_train.evaluate.scored import Network, score

CPU = torch.device("cpu")
SIZE = 32


class Counting(nn.Module):
    """Raw pixels, and the sizes of the batches that came."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] = []

    def forward(self, images: Tensor) -> Tensor:
        self.batches.append(len(images))
        return images.flatten(1)


def test_blocks_equal_the_whole() -> None:
    spec = "synthetic:30x3"
    together = load_verification(spec, SIZE)
    expected = evaluate(nn.Flatten(), [together], image_size=SIZE, batch_size=7, device=CPU)[spec]
    model, done = Counting(), []
    opened = open_verification(spec)
    scored = score(Network(model, SIZE, 7, CPU), opened, done.append)
    result = verify_distances(scored.distances, scored.same, scored.embedding_norm)
    assert (result.accuracy, result.std, result.auc, result.tar) == (
        expected.accuracy,
        expected.std,
        expected.auc,
        expected.tar,
    )
    assert result.embedding_norm == pytest.approx(expected.embedding_norm)
    assert set(model.batches) == {7}, "an ONNX model, cuDNN's choice and the memory trace want equal batches"
    assert sum(done) == len(opened.encoded)
    assert not opened._decoded, "no picture is kept"


def test_a_model_that_gives_no_numbers() -> None:
    class Broken(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.flatten(1) / 0

    with pytest.raises(CheckpointError, match=r"must be finite, but got NaN or infinity for 90 of 90 images of synthetic"):
        score(Network(Broken(), SIZE, 16, CPU), open_verification("synthetic:30x3"))


def test_a_folder_stands_for_its_bin_files(tmp_path: Path) -> None:
    for name in ("lfw.bin", "agedb_30.BIN", "train.rec", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "more.bin").mkdir()
    bins = [str(tmp_path / "agedb_30.BIN"), str(tmp_path / "lfw.bin")]
    assert with_folders([str(tmp_path)]) == bins
    assert with_folders(["synthetic:30x3", str(tmp_path / "lfw.bin"), str(tmp_path)]) == ["synthetic:30x3", bins[1], bins[0]]
    assert with_folders([str(tmp_path / "more.bin"), "no/such", "\0"]) == [str(tmp_path / "more.bin"), "no/such", "\0"]


def test_roc_points() -> None:
    scores, same = np.array([0.9, 0.8, 0.8, 0.7, 0.1]), np.array([True, True, False, False, True])
    falsely, truly = roc_points(scores, same)
    np.testing.assert_allclose(falsely, [0, 0, 0.5, 1, 1])
    np.testing.assert_allclose(truly, [0, 1 / 3, 2 / 3, 2 / 3, 1])


@pytest.mark.parametrize("ending", ["svg", "png"])
def test_a_roc_picture(ending: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the [report] extra")
    rng = np.random.default_rng(0)
    same = rng.random(20_000) < 0.5
    path = tmp_path / f"roc.{ending}"
    draw_roc(path, {"_a <set> of $\\frac$": (rng.normal(loc=same), same)})
    content = path.read_bytes()
    assert len(content) < 200_000, "20,000 points are thinned"
    if ending == "svg":
        assert b"_a &lt;set&gt; of $\\frac$" in content
        draw_roc(tmp_path / "again.svg", {"_a <set> of $\\frac$": (rng.normal(loc=same), same)})
    else:
        assert content.startswith(b"\x89PNG")
