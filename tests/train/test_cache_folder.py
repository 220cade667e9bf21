"""Caches: private, whole or missing, and never a program."""

from __future__ import annotations

import gzip
import json
import os
import random
import stat
from pathlib import Path
from typing import Any

import pytest

from attfc_train import cache_folder
from attfc_train.cache_folder import make_private, read_kept, write_kept
from attfc_train.errors import StorageError
from tests.architecture.modules import imports, modules

DOCUMENT = {"rates": {"fp32_flops": 1.25e11, "capacity_bytes": 2**40}, "date": "2026-01-02", "text": "é\n", "none": None}


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("mask", [0, 0o022, 0o077])
def test_a_new_folder_is_its_owners(tmp_path: Path, mask: int) -> None:
    """Catches a folder by the umask alone, which is 0755 nearly everywhere."""
    former = os.umask(mask)
    try:
        write_kept(tmp_path / "new" / "cache" / "a.json", DOCUMENT)
    finally:
        os.umask(former)
    assert mode(tmp_path / "new" / "cache") == 0o700


def test_only_the_users_own_folder_is_closed_afterwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a folder that several users share and that one of them closes; and one of the first release that stays open."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for name in ("attfc", "shared"):
        (tmp_path / name).mkdir()
        (tmp_path / name).chmod(0o755)
        make_private(tmp_path / name)
    assert (mode(tmp_path / "attfc"), mode(tmp_path / "shared")) == (0o700, 0o755)


def test_what_was_written_is_read(tmp_path: Path) -> None:
    write_kept(tmp_path / "a.json", DOCUMENT)
    assert read_kept(tmp_path / "a.json", lambda value: value) == DOCUMENT
    write_kept(tmp_path / "a.gz", DOCUMENT, gzip.compress)
    assert read_kept(tmp_path / "a.gz", lambda value: value, gzip.decompress) == DOCUMENT


def test_a_folder_that_cannot_be_written_is_a_storage_error() -> None:
    with pytest.raises(StorageError):
        write_kept(Path("/proc/none/a.json"), DOCUMENT)


@pytest.mark.parametrize("ending", ["json", "gz"])
def test_no_damaged_byte_is_believed(tmp_path: Path, ending: str) -> None:
    """Catches a document without a digest: a flipped bit of a digit is another digit."""
    pack, unpack = (gzip.compress, gzip.decompress) if ending == "gz" else (bytes, bytes)
    path = tmp_path / f"a.{ending}"
    write_kept(path, DOCUMENT, pack)
    whole = path.read_bytes()
    draw = random.Random(0)
    for _ in range(2000):
        damaged = bytearray(whole)
        damaged[draw.randrange(len(whole))] ^= 1 << draw.randrange(8)
        path.write_bytes(damaged[: draw.randrange(len(whole))] if draw.random() < 0.2 else damaged)
        assert read_kept(path, lambda value: value, unpack) in (None, DOCUMENT)


class Strange(Exception):
    """An exception that nobody expects."""


@pytest.mark.parametrize("error", [Strange, MemoryError, RecursionError, OverflowError, AttributeError, AssertionError])
def test_whatever_decoding_raises_means_missing(tmp_path: Path, error: type[Exception]) -> None:
    """Catches a list of exceptions: damaged files raised others, and every later plan stopped at them."""

    def decode(_: Any) -> None:
        raise error

    write_kept(tmp_path / "a.json", DOCUMENT)
    assert read_kept(tmp_path / "a.json", decode) is None


@pytest.mark.parametrize("content", ["", "[]", "{}", "null", '{"value": 1}', '{"sha256": 5, "value": 1}', "[" * 100_000])
def test_what_is_no_document_is_missing(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.json").write_text(content)
    assert read_kept(tmp_path / "a.json", lambda value: value) is None
    assert read_kept(tmp_path, lambda value: value) is None
    assert read_kept(tmp_path / "none", lambda value: value) is None


def test_a_document_of_another_hand_is_missing(tmp_path: Path) -> None:
    write_kept(tmp_path / "a.json", DOCUMENT)
    document = json.loads((tmp_path / "a.json").read_text())
    document["value"]["rates"]["fp32_flops"] = 1.0
    (tmp_path / "a.json").write_text(json.dumps(document))
    assert read_kept(tmp_path / "a.json", lambda value: value) is None


PICKLING = {
    "attfc_planner.trace.jobs",  # between this process and those that it started: no file
    "attfc_planner.trace.workers",
    "attfc_train.evaluate.bins",  # verification sets, by way of the next one
    "attfc_train.evaluate.restricted_pickle",
    "attfc_train.run.tensor_file",  # the name of an error of torch's
    "attfc_train.run.tensor_writer",  # writes one, which torch alone reads
}


def test_no_cache_is_loaded_by_pickle() -> None:
    """Catches ``pickle.load`` of a file, which is a program for whoever can write it."""
    others = {name for name in modules() if name not in PICKLING}
    assert {name for name in others if imports(name) & {"pickle", "shelve", "marshal", "dill", "joblib"}} == set()
    assert {name for name in modules() if "allow_pickle=True" in modules()[name].read_text(encoding="utf-8")} == set()
    assert cache_folder.__name__ in others
