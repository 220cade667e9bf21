"""Opens the data set that the user names."""

from __future__ import annotations

from pathlib import Path

from attfc_train.data.dataset import FaceDataset
from attfc_train.data.foreign import foreign_content
from attfc_train.data.formats.folder import LooseImagesError
from attfc_train.data.formats.kinds import FORMATS
from attfc_train.data.formats.loose import LooseFaces
from attfc_train.data.formats.recordio import is_record_file
from attfc_train.data.part import PartOfFaces, part_of_spec
from attfc_train.data.reading import existing_path, read_file
from attfc_train.errors import AttfcError, DataError, UsageError
from attfc_train.urls import is_url, without_secrets


def open_dataset(spec: str) -> FaceDataset:
    """Open `spec` with the format in `FORMATS` that knows it.

    ``@FIRST:STOP`` behind the spec takes some of its identities (see `PartOfFaces`), unless a file has that very name.

    Raises:
        UsageError: `spec` names no kind of data set.
        DataError: there is nothing, or nothing readable, or fewer than two identities.
    """
    spec = without_secrets(spec)
    whole, places = part_of_spec(spec)
    if places is not None and existing_path(spec) is None:
        if part_of_spec(whole)[1] is not None:
            raise UsageError("a part must be of a whole data set", f"'{spec}'", "Write one FIRST:STOP behind one @.")
        return PartOfFaces.of_places(open_dataset(whole), *places)
    path = existing_path(spec) if is_url(spec) else None
    spec = spec if path is None else str(path)
    for kind in reversed(FORMATS):
        if kind.matches(spec):
            return kind.open(spec, open_dataset if kind.needs_labels else open_source)
    raise _refusal(spec)


def open_source(spec: str) -> FaceDataset:
    """Open what other labels are found or kept for: as `open_dataset`, and also a folder whose images lie in no folders.

    Raises:
        UsageError, DataError: as `open_dataset`.
    """
    try:
        return open_dataset(spec)
    except LooseImagesError:
        path = existing_path(spec)
        if path is None:  # a part of such a folder: there are no identities to take some of
            raise
        return LooseFaces(path)


def _refusal(spec: str) -> AttfcError:
    """Return the error for a spec of no format, with what was probably meant."""
    *others, last = (kind.help for kind in FORMATS)
    rule = f"a data set must be {', '.join(others)}, or {last}, each with @FIRST:STOP for some of the identities"
    path = existing_path(spec)
    if path is None:
        return DataError(rule, f"'{spec}', which does not exist", "Check the path.")
    records = sorted(entry.name for entry in path.glob("*") if is_record_file(entry))
    if records:
        return DataError(rule, f"'{path}' with {records[0]}", f"Give '{path / records[0]}' itself.")
    return UsageError(rule, f"the file '{spec}'", _remedy(path))


def _remedy(path: Path) -> str:
    """Return advice for a file that is no data set."""
    ending = path.suffix.lower()
    if ending == ".idx":
        return f"Give '{path.with_suffix('.rec')}'."
    if ending == ".bin":
        return "A .bin file is a verification set: give it as --val."
    foreign = foreign_content(read_file(path, 512)) if path.is_file() else None
    if foreign is not None:
        return f"It is {foreign.what}. {foreign.remedy}"
    return "Check the path."
