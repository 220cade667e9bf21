"""The formats of data sets, as a list: a new one is its file in this folder and a line in `FORMATS`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from attfc_train.data.dataset import FaceDataset
from attfc_train.data.formats.folder import FolderFaces, is_folder_pattern, is_image_folder
from attfc_train.data.formats.list_file import ListFaces, is_list_file
from attfc_train.data.formats.lmdb_faces import LmdbFaces, is_lmdb
from attfc_train.data.formats.mapping import open_joined, open_mapping
from attfc_train.data.formats.mapping_file import is_mapping
from attfc_train.data.formats.parquet import ParquetFaces, is_parquet
from attfc_train.data.formats.recordio import RecordIOFaces, is_record_file, is_record_folder
from attfc_train.data.formats.subset import OpenDataset, open_subset
from attfc_train.data.formats.subset_file import is_subset
from attfc_train.data.formats.synthetic import SyntheticFaces, is_synthetic
from attfc_train.data.formats.tar_shards import TarFaces, is_shard_pattern, is_tar
from attfc_train.data.reading import existing_path
from attfc_train.data.specs import is_joined


@dataclass(frozen=True, slots=True)
class Format:
    """A format of data sets: how its specs are told from others, how one is opened, and what messages call it."""

    matches: Callable[[str], bool]
    """Returns whether a spec, without its part, is of this format."""
    open: Callable[[str, OpenDataset], FaceDataset]
    """Opens such a spec, and by the second argument what it is an index over, if anything.

    Raises `DataError` or `UsageError` where the data are bad."""
    help: str
    """A noun phrase for the list of formats in messages: ``a .rec file``."""
    needs_labels: bool = False
    """Whether what it opens must know who is who, as an index with labels of its own need not."""

    @classmethod
    def of_path(cls, matches: Callable[[Path], bool], open_path: Callable[[Path], FaceDataset], help_text: str) -> Format:
        """Return a format of files or folders; both functions get a path that exists, without a ``~``."""

        def matches_spec(spec: str) -> bool:
            path = existing_path(spec)
            return path is not None and matches(path)

        return cls(matches_spec, lambda spec, _: open_path(Path(spec).expanduser()), help_text)


FORMATS: tuple[Format, ...] = (
    Format.of_path(is_record_folder, RecordIOFaces, "a folder with train.rec and train.idx"),
    Format.of_path(is_record_file, RecordIOFaces, "a .rec file"),
    Format.of_path(is_image_folder, FolderFaces, "a folder of images per identity"),
    Format(is_folder_pattern, lambda spec, _: FolderFaces.of_pattern(spec), "FOLDER/* or FOLDER/** where they lie deeper"),
    Format.of_path(is_list_file, ListFaces, "a .txt or .lst file with a path and a label in each line"),
    Format.of_path(is_lmdb, LmdbFaces, "an LMDB folder or file"),
    Format.of_path(is_tar, TarFaces, "a .tar file, a folder of them"),
    Format(is_shard_pattern, lambda spec, _: TarFaces.of_pattern(spec), "SHARDS-{000..127}.tar"),
    Format.of_path(is_parquet, ParquetFaces, "a .parquet file, a folder of them"),
    Format(is_subset, open_subset, "a .subset file"),
    Format(is_mapping, open_mapping, "a .mapping file", needs_labels=True),
    Format(is_joined, open_joined, 'several as ["SET", "SET"]', needs_labels=True),
    Format(is_synthetic, lambda spec, _: SyntheticFaces.from_spec(spec), "synthetic:IDSxIMAGES[+FIRST]"),
)
"""Messages list the formats in this order. The last one that matches opens a spec, so a special format stands behind a general
one that would match the same folder."""
