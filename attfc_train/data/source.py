"""From what the user names as a data set to the data set."""

from __future__ import annotations

from pathlib import Path

from attfc_train.data.dataset import FaceDataset
from attfc_train.data.formats.folder import FolderFaces
from attfc_train.data.formats.recordio import RecordIOFaces
from attfc_train.data.formats.synthetic import PREFIX, SyntheticFaces
from attfc_train.data.part import PartOfFaces, part_of_spec
from attfc_train.errors import DataError, UsageError

_KINDS = (
    "a folder with train.rec and train.idx, a .rec file, a folder of images per identity, or synthetic:IDSxIMAGES[+FIRST], "
    "each with @FIRST:STOP for some of the identities"
)


def open_dataset(spec: str) -> FaceDataset:
    """Opens `spec`: a RecordIO folder or ``.rec`` file, a folder per identity, or ``synthetic:IDSxIMAGES[+FIRST]``.

    Behind each of them ``@FIRST:STOP`` takes some of its identities (see `PartOfFaces`), unless a file has that very name.

    Raises:
        UsageError: `spec` names no kind of data set.
        DataError: there is nothing, or nothing readable, or fewer than two identities.
    """
    data, places = part_of_spec(spec)
    named = _expanded(spec)
    if places is not None and not (named and named.exists()):
        if part_of_spec(data)[1] is not None:
            raise UsageError("a part must be of a whole data set", f"'{spec}'", "Write one FIRST:STOP behind one @.")
        return PartOfFaces(open_dataset(data), *places)
    if spec.startswith(PREFIX):
        return SyntheticFaces.from_spec(spec)
    path = _expanded(spec)
    if path is None or not path.exists():
        raise DataError(f"a data set must be {_KINDS}", f"'{spec}', which does not exist", "Check the path.")
    if path.is_dir():
        return _open_folder(path)
    if path.suffix == ".rec":
        return RecordIOFaces(path)
    raise UsageError(f"a data set must be {_KINDS}", f"the file '{spec}'", _remedy(path))


def _expanded(spec: str) -> Path | None:
    """The path with its ``~``; None where no file can have that name."""
    try:
        path = Path(spec).expanduser()
        path.exists()
    except (OSError, RuntimeError, ValueError):  # name too long, no such user, a zero byte
        return None
    return path if spec else None


def _open_folder(path: Path) -> FaceDataset:
    """RecordIO where one of its two files is there, else a folder per identity."""
    if (path / "train.rec").exists() or (path / "train.idx").exists():
        return RecordIOFaces(path)
    records = sorted(entry.name for entry in path.glob("*.rec"))
    if records:
        raise DataError(f"a data set must be {_KINDS}", f"'{path}' with {records[0]}", f"Give '{path / records[0]}' itself.")
    return FolderFaces(path)


def _remedy(path: Path) -> str:
    """What was probably meant by a file that is no data set."""
    if path.suffix == ".idx":
        return f"Give '{path.with_suffix('.rec')}'."
    if path.suffix == ".bin":
        return "A .bin file is a verification set: give it as --val."
    return "Check the path."
