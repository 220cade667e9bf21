"""Checkpoints that rot on the disk: never trained on, said, and replaced by the one before."""

from __future__ import annotations

import random
import shutil
import zipfile
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import pytest
import torch
from rich.console import Console

from attfc_train.commands.evaluate import EvaluateOptions, evaluate_models
from attfc_train.errors import CheckpointError
from attfc_train.run import run
from attfc_train.run.checkpoint import load_checkpoint, load_last
from attfc_train.run.tensor_file import DamagedFileError, load_tensors
from tests.train.run.test_resume import assert_same_end, options, profile_of, same, stopped_run, tensors

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 6 steps that saved after 2, 4 and 6."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    run.start(profile_of(steps=6, save_every=2, eval_every=100), options(folder))
    return folder


@pytest.fixture
def unfinished(finished: Path, tmp_path: Path) -> Path:
    """The same, killed before its end was recorded."""
    folder = Path(shutil.copytree(finished, tmp_path / "run"))
    (folder / "model.pt").unlink()
    return folder


def flip(path: Path, place: int, bit: int = 3) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1 << bit
    path.write_bytes(content)


def in_a_tensor(path: Path) -> int:
    """A place in the middle of the largest member."""
    with zipfile.ZipFile(path) as archive:
        largest = max(archive.infolist(), key=lambda member: member.file_size)
    return largest.header_offset + 64 + largest.file_size // 2


def printed(call: Callable[[Console], object]) -> str:
    console = Console(record=True, width=300, file=StringIO())
    call(console)
    return console.export_text()


def test_no_flipped_bit_is_loaded(finished: Path, tmp_path: Path) -> None:
    """Catches ``torch.load`` without a look at the checksums: three bits of four went through."""
    rng = random.Random(0)
    path = tmp_path / "model.pt"
    original = tensors(load_tensors(finished / "model.pt"))
    size = (finished / "model.pt").stat().st_size
    refused = 0
    for place in (*range(0, 300, 7), *(rng.randrange(size) for _ in range(150)), *range(size - 300, size, 7)):
        shutil.copy(finished / "model.pt", path)
        flip(path, place, rng.randrange(8))
        try:
            loaded = tensors(load_tensors(path))
        except CheckpointError:
            refused += 1
        else:  # a bit between the members, or one such as a date
            assert [key for key in original if not same(loaded[key], original[key])] == []
    assert refused > 150


def test_packed_members_are_refused(tmp_path: Path) -> None:
    """Catches a small file that unpacks to as much as its author likes."""
    torch.save(torch.zeros(100_000), tmp_path / "model.pt")
    with zipfile.ZipFile(tmp_path / "model.pt") as archive, zipfile.ZipFile(tmp_path / "packed.pt", "w") as packed:
        for member in archive.infolist():
            packed.writestr(member.filename, archive.read(member), zipfile.ZIP_DEFLATED)
    with pytest.raises(DamagedFileError, match="members that torch does not write"):
        load_tensors(tmp_path / "packed.pt")


@pytest.mark.parametrize("harm", ["a bit", "half of it", "nothing left"])
def test_the_one_before_takes_its_place_and_the_run_ends_alike(harm: str, unfinished: Path, finished: Path) -> None:
    path = unfinished / "checkpoint.pt"
    assert (load_checkpoint(path).step, load_checkpoint(unfinished / "checkpoint.1.pt").step) == (6, 4)
    if harm == "a bit":
        flip(path, in_a_tensor(path))
    elif harm == "half of it":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    else:
        path.unlink()
    text = printed(lambda console: run.resume(run.RunOptions(unfinished, CPU, console)))
    assert "checkpoint.pt" in text
    assert f"The one before takes its place: {unfinished / 'checkpoint.1.pt'}, step 4." in text
    assert_same_end(finished, unfinished)
    assert load_checkpoint(unfinished / "checkpoint.1.pt").step == 4, "and not the damaged file under its name"


def test_without_a_good_one_the_run_stops(unfinished: Path) -> None:
    for name in ("checkpoint.pt", "checkpoint.1.pt"):
        flip(unfinished / name, in_a_tensor(unfinished / name))
    with pytest.raises(CheckpointError, match=r"checkpoint\.pt' must be a readable .*the checksum of .* differs"):
        run.resume(options(unfinished))


def test_one_that_is_no_checkpoint_is_no_damage(unfinished: Path) -> None:
    """Catches a fall back on an older state where the user has put another file in its place."""
    torch.save({"format": 1}, unfinished / "checkpoint.pt")
    with pytest.raises(CheckpointError, match="must be an attfc checkpoint of format 2"):
        run.resume(options(unfinished))


@pytest.mark.parametrize(("keep", "steps"), [(1, [6]), (2, [6, 4]), (3, [6, 4, 2]), (9, [6, 4, 2])])
def test_as_many_are_kept_as_were_asked_for(keep: int, steps: list[int], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run.start(profile_of(steps=6, save_every=2, eval_every=100, keep_checkpoints=keep), options(folder))
    names = ["checkpoint.pt", *(f"checkpoint.{age}.pt" for age in range(1, len(steps)))]
    assert sorted(path.name for path in folder.glob("checkpoint*")) == sorted(names)
    assert [load_checkpoint(folder / name).step for name in names] == steps


def test_a_file_system_without_second_names_keeps_it_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_names: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("os.link", refused)
    folder = tmp_path / "run"
    run.start(profile_of(steps=4, save_every=2, eval_every=100), options(folder))
    assert [load_checkpoint(folder / name).step for name in ("checkpoint.pt", "checkpoint.1.pt")] == [4, 2]


def test_a_stopped_run_can_be_evaluated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its checkpoint, as long as there is no model; with the weights that a model would have."""
    folder = stopped_run(tmp_path / "run", monkeypatch)
    assert not (folder / "model.pt").exists()
    for which in ("best", "last"):
        text = printed(lambda console, which=which: evaluate_models([folder], EvaluateOptions(which=which), CPU, console))  # type: ignore[misc]
        assert "whose run is at step 3 of 6: using checkpoint.pt" in text
        assert "%" in text
    assert (
        load_last(folder, print).exported_encoder.keys()
        == load_checkpoint(folder / "checkpoint.pt").state["feature_encoder"].keys()
    )


def test_a_damaged_model_names_the_other(finished: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(finished, tmp_path / "run"))
    flip(folder / "best.pt", in_a_tensor(folder / "best.pt"))
    with pytest.raises(CheckpointError, match=r"best\.pt' must be .* differs\)\. Take the other model with --which last"):
        evaluate_models([folder], EvaluateOptions(), CPU, Console(quiet=True))
