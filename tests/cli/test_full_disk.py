"""A disk that really is full: the kernel refuses the bytes; one line, and everything that was there stays."""

from __future__ import annotations

import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from attfc_train.errors import StorageError
from attfc_train.files import write_atomically
from attfc_train.run.tensor_writer import Packed
from tests.cli.conftest import Refusal


@contextmanager
def no_file_beyond(limit_bytes: int) -> Iterator[None]:
    """Writes beyond `limit_bytes` of a file fail (Python ignores SIGXFSZ, so that they do as on a full disk)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(
    ("limit_bytes", "file", "left_behind"),
    [
        (100, "profile.json", set()),
        (3_000, "log.jsonl|checkpoint.pt|best.pt", {"profile.json", "log.jsonl"}),
        (40_000, "checkpoint.pt", {"profile.json", "log.jsonl"}),
    ],
)
def test_a_new_run(
    limit_bytes: int,
    file: str,
    left_behind: set[str],
    profile_file: Callable[..., Path],
    tmp_path: Path,
    refusal: Refusal,
) -> None:
    profile, output = profile_file(), tmp_path / "run"
    with no_file_beyond(limit_bytes):
        expected = f"({file})' must be writable, but got File too large. Free disk space"
        refusal(StorageError, expected, "--profile", profile, "--output", output, "--device", "cpu")
    assert {path.name for path in output.glob("*")} == left_behind


def test_a_full_disk_while_the_record_is_written(profile_file: Callable[..., Path], tmp_path: Path, refusal: Refusal) -> None:
    output = tmp_path / "run"
    output.mkdir()
    (output / "log.jsonl").symlink_to("/dev/full")
    arguments = ("--profile", profile_file(), "--output", output, "--device", "cpu")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("attfc_train.run.log._keep_until", lambda path, step: None)  # would replace the link
        refusal(StorageError, "log.jsonl' must be writable, but got No space left on device", *arguments)


def test_a_resumed_run_keeps_its_checkpoint(trained_run: Path, tmp_path: Path, refusal: Refusal) -> None:
    folder = Path(shutil.copytree(trained_run, tmp_path / "run"))
    content = torch.load(folder / "checkpoint.pt", weights_only=True)
    content["state"]["step"] = 1
    torch.save(content, folder / "checkpoint.pt")
    (folder / "model.pt").unlink()  # not finished
    kept = ("checkpoint.pt", "checkpoint.1.pt", "best.pt", "profile.json")
    before = {name: (folder / name).read_bytes() for name in kept}
    with no_file_beyond(40_000):
        refusal(StorageError, "must be writable, but got File too large", "--resume", folder, "--device", "cpu")
    assert {name: (folder / name).read_bytes() for name in before} == before
    summary = {"run.json", "README.md", "curves.svg"}  # of the end before
    assert {path.name for path in folder.iterdir()} == {*before, "log.jsonl"} | summary


def test_every_place_where_a_save_can_stop(tmp_path: Path) -> None:
    """The reason is the system's, not that of an archive that is closed half written, wherever the disk is full."""
    path, content = tmp_path / "checkpoint.pt", {"a": torch.zeros(2000), "b": torch.ones(2000)}
    path.write_bytes(b"former")
    for limit_bytes in (0, 1, 500, 1_000, 9_000, 17_000):
        with no_file_beyond(limit_bytes), pytest.raises(StorageError, match="but got File too large"):
            write_atomically(path, Packed(content).write)
        assert path.read_bytes() == b"former"
    assert list(tmp_path.iterdir()) == [path]
