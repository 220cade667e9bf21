"""Tensors that are mapped: the file's bits, in no memory until they are used, and for nobody else to change."""

from __future__ import annotations

import io
import os
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from attfc_train.errors import StorageError
from attfc_train.ranks.ranks import Ranks
from attfc_train.ranks.shard import Shard
from attfc_train.ranks.tables import Table
from attfc_train.run import tensor_file, tensor_writer
from attfc_train.run.tensor_file import load_tensors, save_tensors
from attfc_train.run.tensor_map import mapped

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def maps() -> str:
    return Path("/proc/self/maps").read_text()


def map_of(path: Path) -> Any:
    with path.open("rb") as file:
        return mapped(file)


@on_linux
def test_a_file_is_mapped_as_long_as_a_tensor_lives(tmp_path: Path) -> None:
    save_tensors(tmp_path / "kept.pt", {"a": torch.arange(10), "b": torch.ones(3)})
    content = load_tensors(tmp_path / "kept.pt")
    last = content.pop("b")
    del content
    assert "kept.pt" in maps()
    assert last.tolist() == [1, 1, 1]
    del last
    assert "kept.pt" not in maps()


def test_a_replaced_file_is_read_on(tmp_path: Path) -> None:
    """Catches a path that is opened again; a checkpoint may be replaced by the next one before it is read."""
    path = tmp_path / "file.pt"
    save_tensors(path, {"a": torch.arange(100_000)})
    content = load_tensors(path)
    save_tensors(path, {"a": torch.zeros(100_000)})
    assert torch.equal(content["a"], torch.arange(100_000))


def test_writing_changes_neither_the_file_nor_another_view(tmp_path: Path) -> None:
    path = tmp_path / "file.pt"
    save_tensors(path, {"a": torch.arange(5)})
    before = path.read_bytes()
    first, second = map_of(path), map_of(path)
    first["a"].fill_(7)
    assert second["a"].tolist() == [0, 1, 2, 3, 4]
    assert path.read_bytes() == before


class Zeros(Ranks):
    """Rank 0 of processes whose rows are all 0."""

    def collected(self, rows: Tensor, shard: Shard) -> Iterator[Tensor]:
        piece = torch.zeros(2**30, dtype=torch.int8)
        for _ in range(shard.total // len(piece)):
            yield piece


@on_linux
def test_more_than_the_machine_has_is_mapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches ``torch.load(mmap=True)``, which a system refuses that promises no more than it has; and a place in 32 bits."""
    num = (2 * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**30 + 4) * 2**30
    crc32 = zipfile.crc32  # type: ignore[attr-defined]
    monkeypatch.setattr(zipfile, "crc32", lambda data, crc=0: crc if memoryview(data).nbytes == 2**30 else crc32(data, crc))
    monkeypatch.setattr(tensor_writer, "_has_bits", lambda values: len(values) < 2**30)
    path = tmp_path / "file.pt"
    try:
        save_tensors(path, {"a": Table(torch.zeros(1, dtype=torch.int8), Shard(0, 1, num), Zeros(0, 2)), "b": torch.arange(9)})
    except StorageError:
        pytest.skip("this file system has no such files")
    if path.stat().st_blocks > 2**20:
        pytest.skip("this file system has no holes")
    content = map_of(path)
    path.unlink()
    assert content["a"].shape == (num,)
    assert content["a"][-1] == 0
    assert content["b"].tolist() == list(range(9))


def unusual() -> dict[str, Any]:
    return {
        "sparse": torch.ones(2, 2).to_sparse(),
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "nowhere": torch.ones(2, device="meta"),
    }


@pytest.mark.parametrize("name", unusual())
def test_what_cannot_be_mapped_is_read(name: str, tmp_path: Path) -> None:
    expected = unusual()[name]
    torch.save({"plain": torch.arange(3), "other": expected}, tmp_path / "file.pt")
    content = load_tensors(tmp_path / "file.pt")
    assert content["plain"].tolist() == [0, 1, 2]
    assert (type(content["other"]), content["other"].layout, content["other"].device) == (
        type(expected),
        expected.layout,
        expected.device,
    )


def test_where_nothing_is_mapped_all_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_file: Any) -> Any:
        raise OSError(12, "Cannot allocate memory")

    save_tensors(tmp_path / "file.pt", {"a": torch.arange(5)})
    monkeypatch.setattr(tensor_file, "mapped", refused)
    assert load_tensors(tmp_path / "file.pt")["a"].tolist() == [0, 1, 2, 3, 4]


def test_one_thing_in_many_places_is_made_once(tmp_path: Path) -> None:
    """Catches a walk of every way to a thing: a small file of nested lists has more of them than there are seconds."""
    content: Any = [torch.arange(3)]
    for _ in range(60):
        content = [content, (content, content)]
    torch.save({"a": content}, tmp_path / "file.pt")
    inner = map_of(tmp_path / "file.pt")["a"]
    while not isinstance(inner, Tensor):
        inner = inner[-1]
    assert inner.tolist() == [0, 1, 2]


def test_a_file_of_torch_is_mapped(tmp_path: Path) -> None:
    """Checkpoints of former versions are such files."""
    content = {"a": torch.arange(7.0).bfloat16(), "b": {"c": torch.zeros(0), "d": torch.eye(3).T}}
    torch.save(content, tmp_path / "file.pt")
    loaded = map_of(tmp_path / "file.pt")
    assert torch.equal(loaded["a"], content["a"])  # type: ignore[arg-type]
    assert loaded["b"]["c"].shape == (0,)
    assert loaded["b"]["d"].stride() == (1, 3)


def rewritten(path: Path, change: dict[str, bytes]) -> None:
    """Pack an archive of torch anew, as other programs do: without its alignment, and with some members changed."""
    data = path.read_bytes()
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(path, "w") as target:
        for member in source.infolist():
            target.writestr(member.filename, change.get(member.filename.split("/")[-1], source.read(member)))


def test_a_file_that_was_packed_anew_has_its_own_places(tmp_path: Path) -> None:
    """Catches the places that torch reckons: the bits of another tensor, or of a header, would be trained on."""
    content = {str(n): torch.arange(n, n + 4, dtype=torch.int8) for n in range(8)}
    torch.save(content, tmp_path / "file.pt")
    rewritten(tmp_path / "file.pt", {})
    loaded = load_tensors(tmp_path / "file.pt")
    assert all(torch.equal(loaded[name], content[name]) for name in content)


def test_numbers_of_the_other_byte_order_are_read(tmp_path: Path) -> None:
    """Catches a process that torch kills: it would turn the bytes of a tensor that has none."""
    torch.save({"a": torch.arange(4)}, tmp_path / "file.pt")
    rewritten(tmp_path / "file.pt", {"byteorder": b"big" if sys.byteorder == "little" else b"little"})
    assert load_tensors(tmp_path / "file.pt")["a"].tolist() == torch.arange(4).numpy().byteswap().tolist()
