"""Tensors that are mapped: the file's bits, in no memory until they are used, and for nobody else to change."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from attfc_train.run import tensor_file
from attfc_train.run.tensor_file import load_tensors, save_tensors
from attfc_train.run.tensor_map import mapped

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def maps() -> str:
    return Path("/proc/self/maps").read_text()


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
    first, second = mapped(path), mapped(path)
    first["a"].fill_(7)
    assert second["a"].tolist() == [0, 1, 2, 3, 4]
    assert path.read_bytes() == before


@on_linux
def test_more_than_the_machine_has_is_mapped(tmp_path: Path) -> None:
    """Catches ``torch.load(mmap=True)``, which a system refuses that promises no more than it has."""
    num = 2 * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    path = tmp_path / "file.pt"
    save_tensors(path, {"a": torch.zeros(1, dtype=torch.int8)})
    data = path.read_bytes()
    with path.open("r+b") as file:
        try:
            file.truncate(num)
        except OSError:
            pytest.skip("this file system has no such files")
        file.seek(num)
        file.write(data)  # an archive may begin anywhere in its file
    assert mapped(path)["a"].tolist() == [0]


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
    def refused(_path: Path) -> Any:
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
    inner = mapped(tmp_path / "file.pt")["a"]
    while not isinstance(inner, Tensor):
        inner = inner[-1]
    assert inner.tolist() == [0, 1, 2]


def test_a_file_of_torch_is_mapped(tmp_path: Path) -> None:
    """Checkpoints of former versions are such files."""
    content = {"a": torch.arange(7.0).bfloat16(), "b": {"c": torch.zeros(0), "d": torch.eye(3).T}}
    torch.save(content, tmp_path / "file.pt")
    loaded = mapped(tmp_path / "file.pt")
    assert torch.equal(loaded["a"], content["a"])  # type: ignore[arg-type]
    assert loaded["b"]["c"].shape == (0,)
    assert loaded["b"]["d"].stride() == (1, 3)
