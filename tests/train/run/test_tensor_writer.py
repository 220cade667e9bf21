"""Files that are written some at a time: what ``torch.save`` would have written, and never much of it in memory."""

from __future__ import annotations

import io
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from attfc_train.errors import StorageError
from attfc_train.optim.torch_internals import first_byte
from attfc_train.ranks.ranks import Ranks
from attfc_train.ranks.shard import Shard
from attfc_train.ranks.tables import Table
from attfc_train.run import tensor_writer
from attfc_train.run.tensor_file import DamagedFileError, load_tensors, save_tensors
from attfc_train.run.tensor_writer import Packed
from tests.train.ranks.gloo import in_processes
from tests.train.ranks.test_runs import differing

DTYPES = (
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
    *(torch.float8_e4m3fn, torch.float8_e5m2, torch.uint16, torch.complex64),
)


def random_tensor(dtype: torch.dtype, *shape: int, seed: int = 0) -> Tensor:
    """Any bits of a dtype; a bool is 0 or 1."""
    generator = torch.Generator().manual_seed(seed)
    size = int(np.prod(shape)) * dtype.itemsize
    most = 2 if dtype == torch.bool else 256
    return torch.randint(0, most, (size,), dtype=torch.uint8, generator=generator).view(dtype).view(shape)


def written(content: Any) -> bytes:
    file = io.BytesIO()
    Packed(content).write(file)
    return file.getvalue()


def oracle(content: Any) -> Any:
    """What is read of a file that torch wrote."""
    file = io.BytesIO()
    torch.save(content, file)
    return torch.load(io.BytesIO(file.getvalue()), weights_only=True)


def read(content: bytes) -> Any:
    return torch.load(io.BytesIO(content), weights_only=True)


def all_bytes(tensor: Tensor) -> Tensor:
    """Those of its storage, seen or not."""
    return torch.empty(0, dtype=torch.uint8).set_(tensor.untyped_storage())


def assert_same(actual: Any, expected: Any) -> None:
    assert type(actual) is type(expected)
    if isinstance(expected, dict):
        assert list(actual) == list(expected)
        for key in expected:
            assert_same(actual[key], expected[key])
    elif isinstance(expected, Tensor):
        assert (actual.shape, actual.stride(), actual.dtype) == (expected.shape, expected.stride(), expected.dtype)
        assert actual.storage_offset() == expected.storage_offset()
        assert actual.requires_grad == expected.requires_grad
        assert torch.equal(all_bytes(actual), all_bytes(expected))
    else:
        assert actual == expected


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_file_holds_what_torch_writes(dtype: torch.dtype, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a storage of another type, a stride that is lost, and a piece in another's place."""
    monkeypatch.setattr(tensor_writer, "PIECE_BYTES", 48)  # no multiple of a row
    table = random_tensor(dtype, 7, 5)
    content = {
        "whole": table,
        "rows": table[2:4],
        "turned": table.T,
        "spread": random_tensor(dtype, 1).expand(4),
        "number": random_tensor(dtype, 1)[0],
        "nothing": torch.empty(3, 0, dtype=dtype),
        "state": OrderedDict(a=random_tensor(dtype, 64), b=[1, 2.5, None, "x", True]),
    }
    save_tensors(tmp_path / "file.pt", content)
    for loaded in (torch.load(tmp_path / "file.pt", weights_only=True), load_tensors(tmp_path / "file.pt")):
        assert_same(loaded, oracle(content))


@given(st.lists(st.tuples(st.sampled_from(DTYPES), st.lists(st.integers(0, 5), max_size=3), st.integers(0, 9)), max_size=6))
def test_any_tensors_are_as_torch_writes_them(tensors: list[tuple[torch.dtype, list[int], int]]) -> None:
    content = {f"{n}": random_tensor(dtype, *shape, seed=seed) for n, (dtype, shape, seed) in enumerate(tensors)}
    assert_same(read(written(content)), oracle(content))


def test_views_share_their_storage_and_are_written_once() -> None:
    table = torch.arange(100_000.0)
    content = {"whole": table, "part": table[10:20], "same": table}
    data = written(content)
    assert len(data) < 2 * table.nbytes
    loaded = read(data)
    loaded["whole"][10] = -1
    assert loaded["part"][0] == -1
    assert loaded["same"] is loaded["whole"]


def test_a_parameter_and_its_gradient_flag_stay() -> None:
    content = {"w": torch.nn.Parameter(torch.ones(3)), "leaf": torch.ones(2, requires_grad=True)}
    assert_same(read(written(content)), oracle(content))


def test_members_are_checked_and_lie_where_a_map_wants_them() -> None:
    """Catches a checksum that is that of the last piece, and a tensor that begins at an odd byte."""
    data = written({f"{n}": random_tensor(torch.int8, n) for n in range(1, 12)})
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
    nowhere = torch.load(io.BytesIO(data), map_location="meta", weights_only=True)
    assert {(first_byte(tensor) or 1) % 64 for tensor in nowhere.values()} == {0}


def test_zeros_take_no_room(tmp_path: Path) -> None:
    """Catches a hole in the place of the bytes behind it, and one that the checksum knows nothing of."""
    values = torch.zeros(3, 2**20)
    values[1, 7] = 1.5
    save_tensors(tmp_path / "file.pt", {"empty": torch.zeros(4, 2**20), "values": values, "end": torch.ones(3)})
    assert_same(load_tensors(tmp_path / "file.pt"), {"empty": torch.zeros(4, 2**20), "values": values, "end": torch.ones(3)})
    found = (tmp_path / "file.pt").stat()
    assert found.st_size > 28 * 2**20
    if found.st_blocks * 512 >= found.st_size:
        pytest.skip("this file system has no holes")
    assert found.st_blocks * 512 < 13 * 2**20


class Watched(io.BytesIO):
    """A file that keeps how much it was given at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.largest = 0

    def write(self, data: Any) -> int:
        self.largest = max(self.largest, memoryview(data).nbytes)
        return super().write(data)


@dataclass(frozen=True)
class Elsewhere(Ranks):
    """Rank 0 of processes whose rows come as they are asked for, and in one place."""

    source: tuple[Tensor, ...] = ()
    asked: list[int] = field(default_factory=list)

    def collected(self, rows: Tensor, shard: Shard) -> Iterator[Tensor]:
        buffer = torch.empty_like(self.source[0])
        for piece in self.source:
            self.asked.append(len(piece))
            yield buffer[: len(piece)].copy_(piece)


def test_a_table_is_written_as_it_comes() -> None:
    """Catches pieces that are kept until all are there: each takes the place of the one before."""
    rows = random_tensor(torch.bfloat16, 1000, 16)
    ranks = Elsewhere(0, 2, rows.split(64))
    packed = Packed({"table": Table(rows[:10], Shard(0, 10, 1000), ranks)})
    assert ranks.asked == []
    file = Watched()
    packed.write(file)
    assert sum(ranks.asked) == 1000
    assert file.largest <= 64 * 16 * 2
    assert_same(read(file.getvalue()), oracle({"table": rows}))


def test_a_device_gives_a_piece_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a tensor that is copied whole, as ``torch.save`` does."""
    monkeypatch.setattr(tensor_writer, "PIECE_BYTES", 1000)
    sizes: list[int] = []
    cpu = Tensor.cpu
    monkeypatch.setattr(Tensor, "cpu", lambda tensor: sizes.append(tensor.nbytes) or cpu(tensor))  # type: ignore[func-returns-value]
    written({"table": torch.zeros(999, 10), "state": torch.ones(3)})
    assert max(sizes) == 1000
    assert sum(sizes) == 999 * 10 * 4 + 12


def saved_by_all(ranks: Ranks, tables: dict[str, Tensor], path: Path) -> None:
    from attfc_train.ranks import group

    group.PIECE_BYTES = 64  # in this process alone
    shards = {name: ranks.shard(len(table)) for name, table in tables.items()}
    parts = {name: table[shards[name].first : shards[name].stop] for name, table in tables.items()}
    content = {name: Table(part, shards[name], ranks) for name, part in parts.items()}
    packed = Packed({"tables": content, "own": torch.tensor(7), "again": content})
    if ranks.is_first:
        with path.open("wb") as file:
            packed.write(file)
    else:
        packed.give()


@pytest.mark.parametrize("size", [2, 3])
def test_processes_write_what_one_has(size: int, tmp_path: Path) -> None:
    """Catches parts in another order, tables in another order on another process, and rows of a part that is empty there."""
    tables = {str(dtype): random_tensor(dtype, 41, 3) for dtype in DTYPES}
    tables |= {"labels": torch.arange(41), "wide": random_tensor(torch.int8, 5, 100), "few": random_tensor(torch.float32, 1, 4)}
    in_processes(size, saved_by_all, tables, tmp_path / "file.pt")
    expected = {"tables": tables, "own": torch.tensor(7), "again": tables}
    assert differing(load_tensors(tmp_path / "file.pt"), expected) == []


def test_a_full_disk_is_told_and_the_former_file_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(io.BytesIO):
        def write(self, data: Any) -> int:
            if self.tell() > 3000:
                raise OSError(28, "No space left on device")
            return super().write(data)

    save_tensors(tmp_path / "file.pt", {"a": torch.ones(3)})
    write = Packed.write
    monkeypatch.setattr(Packed, "write", lambda packed, _file: write(packed, Full()))
    with pytest.raises(StorageError, match="No space left on device"):
        save_tensors(tmp_path / "file.pt", {"a": torch.ones(3000), "b": torch.ones(3000)})
    assert load_tensors(tmp_path / "file.pt")["a"].tolist() == [1, 1, 1]
    assert [path.name for path in tmp_path.iterdir()] == ["file.pt"]


@pytest.mark.parametrize("place", [0.3, 0.6, 0.9])
def test_a_flipped_bit_of_a_streamed_table_is_refused(place: float, tmp_path: Path) -> None:
    data = bytearray(written({"a": random_tensor(torch.int8, 5000), "b": random_tensor(torch.int8, 5000)}))
    data[int(place * len(data))] ^= 4
    (tmp_path / "file.pt").write_bytes(data)
    with pytest.raises(DamagedFileError, match="checksum"):
        load_tensors(tmp_path / "file.pt")
