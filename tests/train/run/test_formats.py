"""Every format is planned for, trained from and resumed, and the run ends with the bits of one on RecordIO."""

from __future__ import annotations

import os
import signal
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from attfc_planner.commands.option_checks import opened, size_of_data
from attfc_train.data.encode import png
from attfc_train.data.formats.procedural_face import render_face
from attfc_train.data.formats.writers import Images, WriteOptions, target_of, written_root
from attfc_train.errors import Interrupted
from attfc_train.profile.profile import TrainProfile
from attfc_train.run import loop, run
from attfc_train.sources import joined_spec
from attfc_train.step.state import TrainState
from attfc_train.step.step import train_step
from tests.train.run.test_resume import assert_same_end, options, profile_of

LABELS = np.repeat(np.arange(20), 4)
IMAGES = [png(render_face(identity, place, 64)) for place, identity in enumerate(LABELS.tolist())]

KINDS: dict[str, tuple[str, str, str]] = {
    "im2rec": ("a.rec", "im2rec", ""),
    "f2c": ("b.lmdb", "f2c", "lmdb"),
    "msgpack": ("c.lmdb", "msgpack", "lmdb"),
    "tar": ("d.tar", "", ""),
    "shards": ("e/x-%03d.tar", "", ""),
    "parquet": ("f.parquet", "", "pyarrow"),
    "folder": ("g", "", ""),
    "list": ("h", "", ""),
}
"""Output, layout, and the package that writes it."""


def data_of(kind: str, root: Path) -> str:
    """Write the set in a format; return its spec."""
    name, layout, package = KINDS[kind]
    if package and find_spec(package) is None:
        pytest.skip(f"the package {package} is not installed")
    output = root / name
    target_of(output).write(output, Images(LABELS, IMAGES), WriteOptions(layout, shard_images=30))
    if kind != "list":
        return str(written_root(output))
    files = sorted(path.relative_to(root) for path in output.rglob("*.png"))
    (root / "h.txt").write_text("".join(f"{file} {label}\n" for file, label in zip(files, LABELS, strict=True)))
    return str(root / "h.txt")


def of_several(kind: str, root: Path) -> str:
    """Write the set as two halves, records and a tar archive; in a mapping's the last person's images are of two."""
    half = len(LABELS) // 2
    second = LABELS[half:] - LABELS[half]
    if kind == "mapping":
        second[-2:] += 1
    target_of(root / "a.rec").write(root / "a.rec", Images(LABELS[:half], IMAGES[:half]), WriteOptions())
    target_of(root / "b.tar").write(root / "b.tar", Images(second, IMAGES[half:]), WriteOptions())
    if kind == "list":
        return joined_spec([str(root / "a.rec"), str(root / "b.tar")])
    (root / "c.mapping").write_text("a = a.rec\nb = b.tar\nb:10 b:9\n")
    return str(root / "c.mapping")


def below_sites(root: Path) -> str:
    """Write the set as a folder of sites with people in them."""
    target_of(root / "g").write(root / "g", Images(LABELS, IMAGES), WriteOptions())
    for place, person in enumerate(sorted((root / "g").iterdir())):
        site = root / "sites" / f"{place // 7}"
        site.mkdir(parents=True, exist_ok=True)
        person.rename(site / person.name)
    return str(root / "sites" / "*")


def profile_on(data: str, **settings: Any) -> TrainProfile:
    profile = profile_of(steps=6, eval_every=100)
    return profile.model_copy(update={"data": profile.data.model_copy(update={"path": data, **settings})})


@pytest.fixture(scope="module")
def on_records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a whole run on RecordIO."""
    root = tmp_path_factory.mktemp("records")
    target_of(root / "train.rec").write(root / "train.rec", Images(LABELS, IMAGES), WriteOptions())
    run.start(profile_on(str(root)), options(root / "run"))
    return root / "run"


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_on_each_format_resumes_to_the_same_bits(
    kind: str, on_records: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches an order of images, or of identities, that a second opening does not have."""
    data = data_of(kind, tmp_path)
    assert size_of_data(opened(data), None, None) == (20, 80)
    _interrupt_and_resume(profile_on(data), tmp_path / "run", monkeypatch)
    assert_same_end(on_records, tmp_path / "run")


@pytest.mark.parametrize("kind", ["list", "mapping"])
def test_a_run_on_several_sets_resumes_to_the_same_bits(
    kind: str, on_records: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches labels that are not behind each other, and a profile that loses one of the sets."""
    data = of_several(kind, tmp_path)
    assert size_of_data(opened(data), None, None) == (20, 80)
    _interrupt_and_resume(profile_on(data), tmp_path / "run", monkeypatch)
    assert_same_end(on_records, tmp_path / "run")


def test_a_run_on_people_below_sites_resumes_to_the_same_bits(
    on_records: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _interrupt_and_resume(profile_on(below_sites(tmp_path)), tmp_path / "run", monkeypatch)
    assert_same_end(on_records, tmp_path / "run")


def test_a_run_in_the_sequential_order_resumes_to_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the middle of a buffer, of which nothing is stored."""
    profile = profile_on(data_of("shards", tmp_path), draw="sequential", window_share=0.5)
    run.start(profile, options(tmp_path / "whole"))
    _interrupt_and_resume(profile, tmp_path / "run", monkeypatch)
    assert_same_end(tmp_path / "whole", tmp_path / "run")


def _interrupt_and_resume(profile: TrainProfile, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted_step(state: TrainState, batch: Any) -> Any:
        if state.step == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return train_step(state, batch)

    monkeypatch.setattr(loop, "train_step", interrupted_step)
    with pytest.raises(Interrupted, match="--resume"):
        run.start(profile, options(folder))
    monkeypatch.setattr(loop, "train_step", train_step)
    run.resume(options(folder))
