"""Training and verification data that is missing, damaged, or not what the profile was made for: one line, nothing written."""

from __future__ import annotations

import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from attfc_train.data.formats.recordio_writer import write_recordio
from attfc_train.errors import AttfcError, DataError, UsageError, VerificationSetError
from tests.cli.conftest import Refusal, face


def rewrite(path: Path, change: Callable[[bytes], bytes]) -> None:
    path.write_bytes(change(path.read_bytes()))


def no_rec(folder: Path) -> None:
    (folder / "train.rec").unlink()


def truncated_rec(folder: Path) -> None:
    rewrite(folder / "train.rec", lambda content: content[: len(content) // 2])


def empty_rec(folder: Path) -> None:
    (folder / "train.rec").write_bytes(b"")


def record_cut_short(folder: Path) -> None:
    rewrite(folder / "train.rec", lambda content: content[:-4])


def outside_index(folder: Path) -> None:
    rewrite(folder / "train.idx", lambda content: content.replace(b"\n3\t", b"\n3\t99999"))


def negative_offset(folder: Path) -> None:
    rewrite(folder / "train.idx", lambda content: content.replace(b"\n3\t", b"\n3\t-"))


def wrong_magic(folder: Path) -> None:
    rewrite(folder / "train.rec", lambda content: content.replace(struct.pack("<I", 0xCED7230A), b"JPEG"))


def other_text(folder: Path) -> None:
    (folder / "train.idx").write_text("<html>404</html>")


def one_identity(folder: Path) -> None:
    write_recordio(folder / "train.rec", [0, 0, 0], [face(0, image) for image in range(3)])


def fractional_label(folder: Path) -> None:
    rewrite(folder / "train.rec", lambda content: content.replace(struct.pack("<If", 0, 2.0), struct.pack("<If", 0, 2.5)))


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (no_rec, "train.rec' must be readable, but got No such file"),
        (truncated_rec, "must hold every record of its .idx file, but got 1?[0-9] behind its end"),
        (empty_rec, "must hold every record of its .idx file"),
        (record_cut_short, "behind the end of the file"),
        (outside_index, "must hold every record of its .idx file, but got 1 behind its end .key 3 at byte"),
        (negative_offset, "other text|impossible numbers"),
        (wrong_magic, "must be a RecordIO record, but got no record magic|no image record there"),
        (other_text, "must hold lines of key<tab>offset, but got a web page"),
        (one_identity, "2 identities"),
        (fractional_label, "must be whole numbers from 0 to 2\\*\\*24, but got 2.5"),
    ],
)
def test_damaged_records(
    damage: Callable[[Path], None], expected: str, records: Path, profile_file: Callable[..., Path], refusal: Refusal
) -> None:
    damage(records)
    output = records.parent / "run"
    refusal(DataError, expected, "--profile", profile_file(), "--data", records, "--output", output, "--device", "cpu")
    assert not output.exists()


def test_images_that_cannot_be_decoded(records: Path, profile_file: Callable[..., Path], refusal: Refusal) -> None:
    labels = [0] * 9 + [1] * 9
    broken = [b"no image", b"\xff\xd8 cut"] * 4
    write_recordio(records / "train.rec", labels, [face(0, 0), *broken, face(1, 0), *broken])
    refusal(
        DataError,
        "max_corrupt_share.*train.rec key [0-9]+ .* bytes that cannot be decoded",
        "--profile",
        profile_file(),
        "--data",
        records,
        "--output",
        records.parent / "run",
        "--device",
        "cpu",
    )


@pytest.mark.parametrize(
    ("spec", "error", "expected"),
    [
        ("missing", DataError, "'missing', which does not exist"),
        ("missing/train.rec", DataError, "which does not exist"),
        ("", DataError, "which does not exist"),
        ("empty", DataError, "empty"),
        ("synthetic:many", UsageError, "synthetic"),
        ("synthetic:1x5", DataError, "2 identities"),
        ("synthetic:0x0", DataError, "at least 1 image"),
        ("synthetic:10x10+-3", UsageError, "synthetic"),
        ("faces.zip", UsageError, "faces.zip"),
        ("lfw.bin", UsageError, "give it as --val"),
        ("2024", DataError, "'2024', which does not exist"),
        ("null", DataError, "'null', which does not exist"),
        (None, UsageError, "--data must name the training data"),
    ],
)
def test_what_is_no_data_set(
    spec: str | None,
    error: type[AttfcError],
    expected: str,
    tmp_path: Path,
    profile_file: Callable[..., Path],
    refusal: Refusal,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    for name in ("faces.zip", "lfw.bin"):
        (tmp_path / name).write_bytes(b"PK")
    data = [] if spec is None else ["--data", spec]
    refusal(error, expected, "--profile", profile_file(data__path=None), *data, "--output", "run", "--device", "cpu")
    assert not (tmp_path / "run").exists()


def test_a_profile_for_another_data_set(tmp_path: Path, profile_file: Callable[..., Path], refusal: Refusal) -> None:
    refusal(
        DataError,
        "must have the 9 identities of the profile .data.num_ids, --ids., but got 8",
        "--profile",
        profile_file(data__num_ids=9),
        "--output",
        tmp_path / "run",
        "--device",
        "cpu",
    )


class Attack:
    """Runs a shell command where it is unpickled without an allow-list."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (self.command,)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "must be a pickle of"),
        (b"PK\x03\x04 an archive", "must be a pickle of"),
        (pickle.dumps([1, 2, 3]), "not a pair of lists"),
        (pickle.dumps(([b"a"] * 24, [True] * 11)), "24 images for 11 pairs"),
        (pickle.dumps(([b"a"] * 4, [True] * 2)), "2 pairs"),
        (pickle.dumps(([b"no image"] * 24, [True, False] * 6)), "must be decodable"),
        (pickle.dumps(([b"no image"] * 24, [True] * 12)), "pairs of two, but got 12 and 0"),
        (None, "must be a file"),
    ],
)
def test_what_is_no_verification_file(
    content: bytes | None, expected: str, tmp_path: Path, profile_file: Callable[..., Path], refusal: Refusal
) -> None:
    path = tmp_path / "lfw.bin"
    if content is not None:
        path.write_bytes(content)
    refusal(
        VerificationSetError,
        expected,
        "--profile",
        profile_file(),
        "--val",
        path,
        "--output",
        tmp_path / "run",
        "--device",
        "cpu",
    )
    assert not (tmp_path / "run").exists()


def test_a_verification_file_that_attacks_is_not_run(
    tmp_path: Path, profile_file: Callable[..., Path], refusal: Refusal
) -> None:
    path, trace = tmp_path / "lfw.bin", tmp_path / "attacked"
    path.write_bytes(pickle.dumps(([Attack(f"touch {trace}")] * 24, [True] * 12)))
    refusal(
        VerificationSetError,
        "must be a pickle of",
        "--profile",
        profile_file(),
        "--val",
        path,
        "--output",
        tmp_path / "run",
        "--device",
        "cpu",
    )
    assert not trace.exists()


@pytest.mark.parametrize("spec", ["missing", "faces.txt", "synthetic:3x1", "synthetic:two"])
def test_what_is_no_verification_set(
    spec: str, profile_file: Callable[..., Path], refusal: Refusal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "faces.txt").write_text("faces")
    refusal(
        VerificationSetError, "pairs|--val", "--profile", profile_file(), "--val", spec, "--output", "run", "--device", "cpu"
    )
    assert not (tmp_path / "run").exists()
