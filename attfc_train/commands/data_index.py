"""``attfc-train data make-index``: the index of a record file, made by reading the records."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from attfc_train.commands.data_convert import remove_left, stopped_by_signals
from attfc_train.data.formats.record_frames import RecordFile
from attfc_train.data.formats.record_index import index_path, made_index, read_idx, write_idx
from attfc_train.data.formats.recordio import record_file
from attfc_train.errors import DataError, StorageError
from attfc_train.files import keep_under, refuse_url_of
from attfc_train.run.live_line import busy
from attfc_train.screen import Screen


def make_index(records: Path, console: Screen) -> None:
    """Write ``X.idx`` beside ``X.rec``, and keep a former one that differs as ``X.idx.former``.

    Raises:
        UsageError: they are behind a URL.
        DataError: the records cannot be read.
        StorageError: the index cannot be written; the former one is still there.
        Interrupted: a signal came; nothing has been written.
    """
    remedy = (
        "Behind a URL a missing index is made when the set is opened, and kept in the cache folder: attfc-train data info URL."
    )
    refuse_url_of("RECORDS", records, remedy)
    file = RecordFile(record_file(records.expanduser()))
    with stopped_by_signals(), busy(console, "Making the index"):
        keys, offsets = made_index(file)
        path = index_path(file.path)
        try:
            written = read_idx(path)
        except DataError:  # missing, or no index
            written = None
        order = keys.argsort()  # an index is read by ascending key
        is_right = written is not None and all(map(np.array_equal, written, (keys[order], offsets[order])))
        kept = ""
        if not is_right:
            remove_left(path)
            kept = _keep_former(path)
            write_idx(path, keys, offsets)
    if is_right:
        console.print(f"{path} is right already: {keys.size:,} records.", soft_wrap=True)
        return
    console.print(f"Wrote {path}: {keys.size:,} records{kept}.", soft_wrap=True)


def _keep_former(path: Path) -> str:
    """Give a former index a second name, so that the first stays until it is replaced; return what to say of it."""
    former = path.with_name(f"{path.name}.former")
    if not path.exists():
        return ""
    try:
        keep_under(path, former)
    except OSError as error:
        remedy = "Free disk space, or check who may write there."
        raise StorageError(f"'{former}' must be writable", error.strerror or "an error", remedy) from error
    return f"; the former one is {former}"
