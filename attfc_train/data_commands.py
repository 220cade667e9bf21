"""``attfc-train data``: what can be done with a data set before training; NumPy is imported inside commands only."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Data sets: write the index of a RecordIO file.", no_args_is_help=True)


@app.callback()
def data() -> None:
    """Look after data sets."""


@app.command()
def make_index(
    records: Annotated[Path, typer.Argument(help="A .rec file, or a folder with train.rec.")],
) -> None:
    """Write X.idx beside X.rec, by reading the records; a former X.idx that differs is kept as X.idx.former."""
    import numpy as np

    from attfc_train.data.formats.record_frames import RecordFile
    from attfc_train.data.formats.record_index import index_path, made_index, read_idx, write_idx
    from attfc_train.data.formats.recordio import record_file
    from attfc_train.errors import DataError

    file = RecordFile(record_file(records.expanduser()))
    keys, offsets = made_index(file)
    path = index_path(file.path)
    former = path.with_name(f"{path.name}.former")
    kept = ""
    try:
        written = read_idx(path)
    except DataError:  # missing, or no index
        written = None
    order = keys.argsort()  # an index is read by ascending key
    if written is not None and all(map(np.array_equal, written, (keys[order], offsets[order]))):
        typer.echo(f"{path} is right already: {keys.size:,} records.")
        return
    if path.exists():
        path.replace(former)
        kept = f"; the former one is {former}"
    write_idx(path, keys, offsets)
    typer.echo(f"Wrote {path}: {keys.size:,} records{kept}.")
