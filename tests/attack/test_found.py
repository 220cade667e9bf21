"""What the attack has found: each with the smallest input that shows it, and the right value."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import struct
import warnings
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from attfc_planner.gpu.detect import find_gpu
from attfc_train.data.decode import decode
from attfc_train.data.formats.kept_index import Indexed, kept_or_made
from attfc_train.data.report import DataReport
from attfc_train.errors import CheckpointError, DataError, ProfileError, StorageError
from attfc_train.export.weights import fill
from attfc_train.profile.file import load_profile, profiles_folder
from attfc_train.run.log import RunLog
from attfc_train.run.tensor_file import load_tensors
from benchmarks.attack.formats.records import DamagedIndex, read_all, small_profile
from benchmarks.attack.formats.studies import read_study, write_study


def test_an_index_that_exchanges_two_images_exchanges_no_labels(tmp_path: Path) -> None:
    """InsightFace's ranges say whose image has which number; only those at the ends of a range are looked at."""
    subject = DamagedIndex(tmp_path / "case")
    layout = subject.layouts[0]
    lines = layout.idx.splitlines()
    middle = [1, 7]  # the second image of the first person, and of the third
    offsets = [lines[place].split(b"\t")[1] for place in middle]
    for place, offset in zip(middle, reversed(offsets), strict=True):
        lines[place] = lines[place].split(b"\t")[0] + b"\t" + offset
    subject.put(layout.rec, b"\n".join(lines) + b"\n")
    items, _ = read_all(str(subject.folder))
    assert sorted(items) == sorted(layout.items)


def changed(section: str, **values: Any) -> dict[str, Any]:
    document = small_profile()
    return {**document, section: {**document[section], **values}}


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("optim", "batch_size", "4"),
        ("optim", "batch_size", True),
        ("optim", "learning_rate", True),
        ("optim", "warmup_images", False),
        ("optim", "learning_rate", "0.1"),
        ("head", "num_references", "1"),
        ("run", "epochs", "2"),
        ("head", "batch_negatives", 1),
    ],
)
def test_text_and_truth_are_no_numbers(section: str, key: str, value: Any, tmp_path: Path) -> None:
    """``"128"`` was taken as 128, and ``true`` as a learning rate of 1."""
    path = tmp_path / "best.json"
    path.write_text(json.dumps(changed(section, **{key: value})))
    with pytest.raises(ProfileError, match=rf"{section}\.{key} with value '{value}'"):
        load_profile(path)


def test_what_looks_like_a_number_stays_a_name(tmp_path: Path) -> None:
    path = tmp_path / "best.json"
    path.write_text(json.dumps(changed("data", path="2024")))
    assert load_profile(path).data.path == "2024"


def test_a_key_is_given_once(tmp_path: Path) -> None:
    """The second value was taken, without a word."""
    path = tmp_path / "best.json"
    path.write_text(json.dumps(small_profile()).replace('"batch_size": 4', '"batch_size": 8, "batch_size": 4'))
    with pytest.raises(ProfileError, match="must be JSON, but got the key 'batch_size' twice"):
        load_profile(path)
    card = (profiles_folder() / "gpus" / "a10.json").read_text()
    path.write_text(card.replace('"capacity_bytes":', '"capacity_bytes": 1, "capacity_bytes":', 1))
    with pytest.raises(ProfileError, match="the key 'capacity_bytes' twice"):
        find_gpu(str(path))


@pytest.mark.parametrize(
    ("former", "now"),
    [
        (b"MAXIMIZE", b"xxxxxxxx"),
        (b"COMPLETE", b"00000000"),
        (b"WAITING", b"\xff\xff\xff\xff\xff\xff\xff"),
        (b"trial_id", b"di_lairt"),
        (b"CREATE TABLE version_info", b"CREATE TABLE ver\xe3ion_info"),
    ],
)
def test_a_database_of_something_else(former: bytes, now: bytes, tmp_path: Path) -> None:
    """A LookupError of SQLAlchemy's came through, and Optuna told of others on the screen."""
    path = tmp_path / "tune.db"
    write_study(f"sqlite:///{path}")
    path.write_bytes(path.read_bytes().replace(former, now))
    said: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = said.append  # type: ignore[method-assign]
    logging.getLogger("optuna").addHandler(handler)
    try:
        with pytest.raises(StorageError, match="must be reachable and hold Optuna studies"):
            read_study(f"sqlite:///{path}")
    finally:
        logging.getLogger("optuna").removeHandler(handler)
    assert said == []


def test_a_journal_whose_setting_is_a_number(tmp_path: Path) -> None:
    path = tmp_path / "best.tune.jsonl"
    write_study(f"journal:{path}")
    text, count = re.subn(r'"fixed_params": ?\{[^}]*\}', '"fixed_params": 0.5', path.read_text(), count=1)
    assert count == 1
    path.write_text(text)
    expected = "trial 0 of the study '.*' must be as attfc-plan tune writes it, but got .*give another --study"
    with pytest.raises(StorageError, match=expected):
        read_study(f"journal:{path}")


def test_a_huge_picture_is_refused_and_nothing_else_is_said() -> None:
    """Pillow warned of a bomb on the screen, before the size was looked at."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 10_000, 11_000, 8, 2, 0, 0, 0)
    body = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    with pytest.raises(DataError, match="10000 x 11000"):
        decode(b"\x89PNG\r\n\x1a\n" + body + b"\0\0\0\0IDAT", 32)


def test_the_name_of_a_record_is_on_the_disk_before_a_checkpoint_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A power cut could leave a checkpoint of step 2 without the record of the steps before."""
    flushed: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: flushed.append(os.readlink(f"/proc/self/fd/{descriptor}")))
    with RunLog(tmp_path, 4, 0, console=Console(quiet=True)):
        assert str(tmp_path) in flushed


def test_complex_numbers_are_no_weights(tmp_path: Path) -> None:
    """Torch dropped the imaginary parts."""
    encoder = torch.nn.Linear(2, 2)
    state = {**encoder.state_dict(), "bias": torch.tensor([1j, 2j])}
    with pytest.raises(CheckpointError, match="bias is complex64"):
        fill(encoder, state, tmp_path / "model.pt")


@pytest.mark.parametrize("name", ["bias", "num_batches_tracked"])
def test_counts_are_no_complex_numbers_either(name: str, tmp_path: Path) -> None:
    """Of a count, which is whole, torch dropped the imaginary part with a warning on the screen."""
    encoder = torch.nn.BatchNorm1d(2)
    state = {key: value.to(torch.complex64) if key == name else value for key, value in encoder.state_dict().items()}
    with pytest.raises(CheckpointError, match=f"{name} is complex64"):
        fill(encoder, state, tmp_path / "model.pt")


def test_weights_without_values_are_refused(tmp_path: Path) -> None:
    """A model that was saved from the device ``meta`` ended in a traceback, like one with sparse weights."""
    encoder = torch.nn.Linear(2, 2)
    torch.save({"weight": torch.empty(2, 2, device="meta"), "bias": torch.zeros(2).to_sparse()}, tmp_path / "model.pt")
    state = load_tensors(tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match="weight is without values; bias is sparse"):
        fill(encoder, state, tmp_path / "model.pt")


def test_a_count_that_is_left_over_is_left_out(tmp_path: Path) -> None:
    """It passed the look at the names, and ended in torch's traceback."""
    encoder = torch.nn.BatchNorm1d(2)
    state = {**encoder.state_dict(), "other.num_batches_tracked": torch.tensor(3), "weight": torch.full((2,), 7.0)}
    del state["num_batches_tracked"]
    fill(encoder, state, tmp_path / "model.pt")
    assert encoder.weight.tolist() == [7.0, 7.0]


def test_a_damaged_pickle_is_refused_and_nothing_else_is_said(tmp_path: Path) -> None:
    """Torch asked the user to report the protocol 143."""
    file = io.BytesIO()
    torch.save({"a": torch.zeros(2)}, file)
    path = tmp_path / "model.pt"
    with zipfile.ZipFile(file) as source, zipfile.ZipFile(path, "w") as target:
        for member in source.infolist():
            content = source.read(member)
            target.writestr(member.filename, b"\x80\x8fc" if member.filename.endswith("data.pkl") else content)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        with pytest.raises(CheckpointError):
            load_tensors(path)
    assert said == []


@pytest.mark.parametrize("size", [10_000, 100_000])
def test_blocks_of_a_kept_index_that_change_places_are_seen(tmp_path: Path, size: int) -> None:
    """Catches a sum that does not know where its terms stand: a disk that gives one sector for another."""
    data = tmp_path / "data.bin"
    data.write_bytes(b"faces")
    indexed = Indexed([data], tmp_path, "tar-1", "faces")
    kept_or_made(indexed, lambda _: {"places": np.arange(size)}, DataReport())
    (kept,) = tmp_path.glob(".data.bin*")
    content = bytearray(kept.read_bytes())
    begin = len(content) - 8 * size
    for first, second in ((0, 4096), (512, 32768), (len(content) - begin - 1024, len(content) - begin - 512)):
        other = bytearray(content)
        one, two = (slice(begin + place, begin + place + 512) for place in (first, second))
        other[one], other[two] = content[two], content[one]
        kept.unlink()
        kept.write_bytes(other)
        assert kept_or_made(indexed, lambda _: {"places": np.zeros(1, np.int64)}, DataReport())["places"].size == 1
