"""The benchmark of the loader runs, and its other ways load what they should."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from attfc_train.data.formats.procedural_face import render_face
from attfc_train.data.formats.recordio_writer import write_recordio
from attfc_train.data.sampling.sampler import AttentionSampler
from attfc_train.data.source import open_dataset
from benchmarks import loader
from benchmarks.heads.page import ROOT
from benchmarks.loader_cold import write_copies
from benchmarks.loader_processes import Steps
from benchmarks.loader_released import ReleasedFaces
from benchmarks.provenance import RESULTS


def face(identity: int, image: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(render_face(identity, image, loader.SIZE)).save(file, "JPEG", quality=95)
    return file.getvalue()


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 images of 10 identities."""
    path = tmp_path_factory.mktemp("records") / "train.rec"
    write_recordio(path, np.arange(40) // 4, [face(place // 4, place % 4) for place in range(40)])
    return path


def test_it_runs(records: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Catches a case that is left out of the tables, and a quick run that overwrites results."""
    saved: list[str] = []
    monkeypatch.setattr(loader, "save", lambda name, _: saved.append(name))
    monkeypatch.setattr(sys, "argv", ["loader", str(records), "--quick", "--folder", str(tmp_path)])
    loader.main()
    printed = capsys.readouterr().out
    for name in ("pure decoding", "loader, sequential, R = 1", "in processes", "released way, R = 1", "asked for ahead"):
        assert name in printed
    assert saved == []


def test_the_released_way_gives_what_is_described(records: Path, tmp_path: Path) -> None:
    """Legend: a query and R references as float32 [3, H, W] in [-1, 1], the label as float32 [1]."""
    loader.write_folder(open_dataset(str(records)), tmp_path / "faces")
    views, label = ReleasedFaces(tmp_path / "faces", 2)[0]
    assert [(view.dtype, tuple(view.shape)) for view in views] == [(torch.float32, (3, 112, 112))] * 3
    assert (label.dtype, tuple(label.shape)) == (torch.float32, (1,))
    assert all(-1.0 <= view.min() < view.max() <= 1.0 for view in views)
    number = int(label)
    faces = [np.asarray(Image.open(io.BytesIO(face(number, image)))).transpose(2, 0, 1) / 127.5 - 1 for image in range(4)]
    for view in views:
        differences = [min(np.abs(view.numpy() - one).max(), np.abs(view.numpy()[..., ::-1] - one).max()) for one in faces]
        assert min(differences) < 1e-5


def test_processes_do_the_loaders_work(records: Path) -> None:
    dataset = open_dataset(str(records))
    sampler = AttentionSampler(dataset.index, 1, 8, 1)
    images = Steps(dataset, sampler, loader.SIZE)[3].reshape(2, 8, 3, 112, 112)
    batch = next(loader.AttentionLoader(dataset, sampler, loader.SIZE).batches(3, 4))
    assert torch.equal(images[0], batch.query)
    assert torch.equal(images[1:], batch.references)


@pytest.mark.parametrize("shuffled", [False, True])
def test_copies_are_the_same_images_in_either_order(records: Path, tmp_path: Path, shuffled: bool) -> None:
    dataset = open_dataset(str(records))
    write_copies(dataset, tmp_path / "copies.rec", 2, shuffled)
    copies = open_dataset(str(tmp_path / "copies.rec"))
    assert (copies.index.num_images, copies.index.num_ids) == (80, 20)
    assert sorted(copies.encoded(place) for place in range(80)) == sorted(2 * [dataset.encoded(place) for place in range(40)])
    changes = np.count_nonzero(np.diff(copies.index.labels))
    assert (changes > 40) if shuffled else (changes == 19)


def test_the_pages_say_what_is_on_record() -> None:
    record = json.loads((RESULTS / "loader.json").read_text())
    data, true = (" ".join((ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8").split()) for name in ("data", "how-true"))
    assert " ".join(loader.table(record["warm"]).split()) in data
    gains = {name: f"{figures['gain']['p50']:.1f}" for name, figures in record["cold"].items() if "gain" in figures}
    one, three = (gains[f"reading, one thread, R = {references}"] for references in (1, 3))
    assert f"reading alone is {one} times as fast with one reference" in data
    assert f"and {three} times with three" in data
    shares = [figures["of_pure"] for name, figures in record["warm"].items() if name.startswith("loader, ")]
    lowest, highest = ({name: find(share[name] for share in shares) for name in ("p20", "p50", "p80")} for find in (min, max))
    middles = f"{lowest['p50']:.2f} to {highest['p50']:.2f} of pure decoding in median"
    assert f"{middles}, {lowest['p20']:.2f} to {highest['p80']:.2f} between" in true
