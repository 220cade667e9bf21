"""Checkpoints and models: damaged archives, and whole archives with another content."""

from __future__ import annotations

import copy
import io
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from random import Random
from typing import Any, Final

import torch

from attfc_train import cli as trainer
from attfc_train.export.model_file import open_encoder
from attfc_train.run.checkpoint import load_checkpoint, load_last
from attfc_train.run.tensor_file import load_tensors
from attfc_train.step.build import build
from benchmarks.attack.formats.base import Format
from benchmarks.attack.mutations import CHANGES, Change, mutated
from benchmarks.attack.oracle import judge_tensors, same_bits
from benchmarks.attack.outcome import Kind, Silent

_CPU: Final = torch.device("cpu")
_COUNTER: Final = "num_batches_tracked"
"""The end of a name that a model may lack, or have too many of: no encoder reads such a count."""
_QUICK: Final[tuple[Change, ...]] = tuple(change for change in CHANGES if change.__name__ != "other_lines")


class _Tensors(Format):
    """A file of a run folder that is replaced by a damaged one.

    Args:
        run: folder of a finished run with two checkpoints.
    """

    file: str
    every = 200

    def __init__(self, folder: Path, run: Path) -> None:
        super().__init__(folder)
        for path in run.iterdir():
            target = folder / path.name
            if path.is_file() and not target.exists():
                target.write_bytes(path.read_bytes())
        self.path = folder / self.file
        self.clean = self.path.read_bytes()
        self.content = copy.deepcopy(load_tensors(self.path))  # it is mapped, and the file is written over

    def damage(self, random: Random) -> str:
        """Write a file with damaged bytes; sparse and repacked ones are among them."""
        roll = random.random()
        if roll < 0.1:
            content, what = _repacked(random, self.clean)
        else:
            content, what = mutated(random, self.clean, changes=_QUICK)
        self.path.write_bytes(content)
        if roll > 0.998:
            with self.path.open("r+b") as file:
                file.truncate(random.choice((2**33, 2**42)))
            what += ", sparse"
        return what

    def write_other(self, random: Random) -> str:
        """Write a whole file with another content: its pickle has other bytes, or its tensors are others."""
        if random.random() < 0.2:
            self.path.write_bytes(_other_pickle(random, self.clean))
            return "other pickle"
        content = copy.copy(self.content)
        names = [_change(random, content) for _ in range(random.choice((1, 1, 2)))]
        try:
            torch.save(content, self.path)
        except Exception:  # torch cannot write it
            self.path.write_bytes(self.clean)
        return ", ".join(names)


class DamagedCheckpoints(_Tensors):
    """``checkpoint.pt`` with damaged bytes, beside the one before."""

    name = "checkpoint"
    file = "checkpoint.pt"

    def __init__(self, folder: Path, run: Path) -> None:
        super().__init__(folder, run)
        self.former = load_tensors(folder / "checkpoint.1.pt")
        self.said: list[str] = []

    def attack(self, random: Random) -> str:
        """Override `Format`."""
        return self.damage(random)

    def use(self) -> Any:
        """Override `Format`."""
        self.said = []
        return load_last(self.folder, self.said.append)

    def judge(self, taken: Any) -> Kind:
        """Override `Format`."""
        if taken.path.name == self.file:
            if self.said:
                raise Silent(f"a line about nothing: {self.said[0]}")
            return judge_tensors(_of_checkpoint(self.content), (taken.state, taken.rng, taken.best_accuracy))
        judge_tensors(_of_checkpoint(self.former), (taken.state, taken.rng, taken.best_accuracy))
        if not self.said:
            raise Silent("the checkpoint before was taken without a word")
        return "said"


def _of_checkpoint(content: dict[str, Any]) -> tuple[Any, Any, Any]:
    return content["state"], content["rng"], content["best_accuracy"]


class OtherCheckpoints(_Tensors):
    """``checkpoint.pt`` with right checksums and another content, loaded and restored."""

    name = "checkpoint content"
    file = "checkpoint.pt"

    def __init__(self, folder: Path, run: Path) -> None:
        super().__init__(folder, run)
        (folder / "checkpoint.1.pt").unlink(missing_ok=True)
        self.state = build(load_checkpoint(self.path).profile, _CPU)

    def attack(self, random: Random) -> str:
        """Override `Format`."""
        return self.write_other(random)

    def use(self) -> Any:
        """Override `Format`."""
        checkpoint = load_checkpoint(self.path)
        checkpoint.restore(self.state)
        return self.state.saved()

    def judge(self, taken: Any) -> Kind:
        """Override `Format`."""
        if not isinstance(taken["step"], int):
            raise Silent("a step that is no number")
        return "other"

    def command(self) -> tuple[Callable[[], None], list[str]] | None:
        """Resume, where nothing is left to do."""
        return None


class DamagedModels(_Tensors):
    """``model.pt`` with damaged bytes."""

    name = "model"
    file = "model.pt"

    def __init__(self, folder: Path, run: Path) -> None:
        super().__init__(folder, run)
        (folder / "best.pt").unlink(missing_ok=True)

    def attack(self, random: Random) -> str:
        """Override `Format`."""
        return self.damage(random)

    def use(self) -> Any:
        """Override `Format`."""
        return open_encoder(self.folder, "last").network.state_dict()

    def judge(self, taken: Any) -> Kind:
        """Override `Format`."""
        return judge_tensors(dict(self.content), dict(taken))

    def command(self) -> tuple[Callable[[], None], list[str]] | None:
        """Override `Format`."""
        return trainer.main, ["attfc-train", "evaluate", str(self.folder), "--which", "last", "--device", "cpu"]


class OtherModels(DamagedModels):
    """``model.pt`` with right checksums and another content."""

    name = "model content"

    def attack(self, random: Random) -> str:
        """Override `Format`."""
        return self.write_other(random)

    def judge(self, taken: Any) -> Kind:
        """Every tensor that was loaded must be as the file has it: neither cut nor left as it was."""
        given = torch.load(self.path, map_location="cpu", weights_only=True)
        if not all(key.endswith(_COUNTER) for key in given.keys() ^ taken.keys()):
            raise Silent("other keys than the model's were taken")
        for key, value in given.items():
            if key in taken and not same_bits(_as_loaded(value, taken[key]), taken[key]):
                raise Silent(f"{key}: {_brief(value)} was taken as {_brief(taken[key])}")
        return "other"

    def command(self) -> tuple[Callable[[], None], list[str]] | None:
        """Override `Format`."""
        return None


def _as_loaded(value: Any, taken: torch.Tensor) -> Any:
    """Return a tensor of real numbers as torch loads it: in the module's type, one number in whatever shape."""
    if not isinstance(value, torch.Tensor) or value.is_complex() or value.layout != torch.strided:
        return value
    cast = value.detach().to(taken.dtype)
    return cast.reshape(taken.shape) if cast.numel() == taken.numel() == 1 else cast


def _brief(value: Any) -> str:
    return f"{value.dtype} {tuple(value.shape)}" if isinstance(value, torch.Tensor) else repr(value)[:40]


def _other_pickle(random: Random, clean: bytes) -> bytes:
    """Return an archive with right checksums, whose pickle is damaged."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(clean)) as source, zipfile.ZipFile(file, "w") as target:
        for member in source.infolist():
            content = source.read(member)
            if member.filename.endswith("data.pkl"):
                content, _ = mutated(random, content, changes=_QUICK)
            target.writestr(member.filename, content)
    return file.getvalue()


def _repacked(random: Random, clean: bytes) -> tuple[bytes, str]:
    """Return an archive that was packed anew: compressed, with members left out, twice, renamed or damaged."""
    what = random.choice(("deflated", "left out", "twice", "renamed", "bomb", "comment", "outside"))
    if what == "bomb":
        return _bomb(clean), "repacked: bomb"
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(clean)) as source, zipfile.ZipFile(file, "w") as target:
        members = source.infolist()
        chosen = random.choice(members)
        for member in members:
            content = source.read(member)
            name = member.filename
            if member is chosen:
                if what == "left out":
                    continue
                if what == "renamed":
                    name += "x"
                elif what == "outside":
                    name = "../../" + name
            target.writestr(name, content, zipfile.ZIP_DEFLATED if what == "deflated" else zipfile.ZIP_STORED)
        if what == "comment":
            target.comment = b"PK\x05\x06" + random.randbytes(200)
    whole = file.getvalue()
    return (whole + clean if what == "twice" else whole), f"repacked: {what}"


@cache
def _bomb(clean: bytes) -> bytes:
    """Return an archive with a member that is 300 MB when it is unpacked; packing it takes a second, so that is done once."""
    file = io.BytesIO(clean)
    with zipfile.ZipFile(file, "a", zipfile.ZIP_DEFLATED) as target:
        target.writestr("archive/data/9999", bytes(3 * 10**8))
    return file.getvalue()


def _change(random: Random, content: dict[str, Any]) -> str:
    """Change a leaf of a content in place, copying the dicts on the way to it."""
    node: Any = content
    path: list[str] = []
    while True:
        if not isinstance(node, dict) or not node:
            return "nothing"
        key = random.choice(list(node))
        path.append(str(key))
        if not isinstance(node[key], dict) or random.random() < 0.1:
            break
        node[key] = dict(node[key])
        node = node[key]
    value = _tensor(random, node[key]) if isinstance(node[key], torch.Tensor) else _plain(random)
    what = random.choice(("value", "value", "value", "gone", "new"))
    if what == "gone":
        del node[key]
    elif what == "new":
        node[random.choice(("other", 3, None, True, ("a", 1)))] = value
    else:
        node[key] = value
    shown = _brief(value) if what != "gone" else ""
    return f"{what} {'.'.join(path)[:60]} {shown}"


def _plain(random: Random) -> Any:
    values: tuple[Any, ...] = (
        None,
        True,
        -1,
        0,
        1,
        2**31,
        2**63,
        10**30,
        1.5,
        float("nan"),
        float("inf"),
        "x",
        "9" * 5000,
        b"x",
        [],
        {},
        {"a": 1},
    )
    return random.choice((*values, torch.zeros(3), [[[]]], ("a",), {1: {2: {}}}))


def _tensor(random: Random, former: torch.Tensor) -> Any:
    """Return another tensor: of another type, shape, layout or values; some take terabytes once they are made whole."""
    if former.layout != torch.strided or former.is_meta:  # made by a change before
        return None
    one = former.reshape(-1)[:1].clone()
    makers: tuple[Callable[[], Any], ...] = (
        lambda: former.to(random.choice((torch.float16, torch.float64, torch.int8, torch.bool, torch.complex64))),
        lambda: torch.full_like(former, float("nan")) if former.is_floating_point() else torch.full_like(former, -1),
        lambda: torch.full_like(former, 2**62) if former.dtype == torch.int64 else former * 1,
        lambda: former.reshape(-1),
        lambda: former.reshape(-1)[:-1] if former.dim() else former[None],
        lambda: torch.cat([former.reshape(-1)] * 2),
        lambda: one.expand(10**12) if one.numel() else one,
        lambda: one.as_strided((10**6, 10**6), (0, 0)) if one.numel() else one,
        lambda: one.expand(former.shape) if one.numel() and former.dim() else one,
        lambda: torch.zeros(0),
        lambda: torch.zeros((2, 2)).to_sparse(),
        lambda: torch.sparse_coo_tensor(torch.zeros((1, 1), dtype=torch.long), torch.ones(1), (10**12,), check_invariants=True),
        lambda: torch.empty(former.shape, device="meta"),
        lambda: former.tolist() if former.numel() < 100 else "x",
        lambda: torch.nn.Parameter(former.float()),
        lambda: None,
    )
    return random.choice(makers)()
