"""``attfc-train data``: what can be done with a data set before training; NumPy is imported inside commands only."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from attfc_train.command_line import STYLE, Command, Group, count, examples, number

app = typer.Typer(
    **STYLE,
    cls=Group,
    help="Data sets before training: look at them, check them, align their faces, write them in another format.",
    no_args_is_help=True,
    epilog=examples(
        "attfc-train data check faces",
        "attfc-train data info faces -o montage.png",
        "attfc-train data align photos -o faces --landmarks points.csv",
        "attfc-train data convert faces.lmdb -o faces/train.rec",
    ),
)

DataPath = Annotated[str, typer.Argument(help="As --data of a training: a folder, a .rec file, a part of either.")]
Sample = Annotated[int, typer.Option(help="Images to look at, chosen at random; 0: all.", metavar="NUMBER", min=0)]
Montage = Annotated[
    Path | None, typer.Option("--output", "-o", help="Also write a picture of some people's images: a .png or .jpg file.")
]


@app.callback()
def data() -> None:
    """Look after data sets."""


@app.command(cls=Command)
def info(path: DataPath, sample: Sample = 20_000, output: Montage = None) -> None:
    """Show what is in a data set: images an identity, sizes, what is passed over, whether faces look aligned."""
    from attfc_train.commands.data_survey import SurveyOptions, show_info
    from attfc_train.screen import Screen

    show_info(path, SurveyOptions(sample, output), Screen())


@app.command(cls=Command)
def check(
    path: DataPath,
    sample: Sample = 20_000,
    output: Montage = None,
    tolerate: Annotated[
        float,
        typer.Option(
            help="Share of images or identities up to which a problem is said and no more.",
            metavar="SHARE",
            parser=number("--tolerate", 0, 1, "--tolerate 0.01"),
        ),
    ] = 0.0,
) -> None:
    """Show what is in a data set, and exit with code 4 where something would hurt a training."""
    from attfc_train.commands.data_survey import SurveyOptions
    from attfc_train.commands.data_survey import check as check_data
    from attfc_train.screen import Screen

    check_data(path, SurveyOptions(sample, output), tolerate, Screen())


@app.command(cls=Command)
def align(
    path: DataPath,
    output: Annotated[Path, typer.Option("--output", "-o", help="A new folder, or a new .rec file.")],
    landmarks: Annotated[
        Path | None, typer.Option(help="CSV or JSON with five points an image; the page docs/data.md has the format.")
    ] = None,
    detector: Annotated[
        Path | None, typer.Option(help="ONNX face detector with landmarks, as InsightFace's SCRFD and RetinaFace.")
    ] = None,
    size: Annotated[
        int, typer.Option(help="Side of the crops in pixels; the template is scaled with it.", min=32, max=512)
    ] = 112,
) -> None:
    """Cut faces out by five landmarks, as the field's models expect them: 112 x 112 by the standard template."""
    from attfc_train.commands.data_align import AlignOptions
    from attfc_train.commands.data_align import align as align_data
    from attfc_train.screen import Screen

    align_data(path, AlignOptions(output, landmarks, detector, size), Screen())


@app.command(cls=Command)
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


NewRecords = Annotated[Path, typer.Option("--output", "-o", help="A new .rec file, such as faces/train.rec.", metavar="FILE")]
NewFolder = Annotated[
    Path, typer.Option("--output", "-o", help="A new folder, which gets a folder per identity.", metavar="FOLDER")
]
NewData = Annotated[
    Path,
    typer.Option(
        "--output",
        "-o",
        help="A new .rec, .tar or .parquet file, .lmdb folder, SHARDS/x-%06d.tar, or folder.",
        metavar="PATH",
    ),
]


@app.command(cls=Command)
def pack(path: DataPath, output: NewRecords) -> None:
    """Write a data set as RecordIO, images as they are: the fastest to train from."""
    from attfc_train.commands.data_convert import ConvertOptions
    from attfc_train.commands.data_convert import pack as pack_data
    from attfc_train.screen import Screen

    pack_data(path, ConvertOptions(output), Screen())


@app.command(cls=Command)
def unpack(path: DataPath, output: NewFolder) -> None:
    """Write a data set as a folder per identity, images as they are."""
    from attfc_train.commands.data_convert import ConvertOptions
    from attfc_train.commands.data_convert import unpack as unpack_data
    from attfc_train.screen import Screen

    unpack_data(path, ConvertOptions(output), Screen())


@app.command(cls=Command)
def convert(
    path: DataPath,
    output: NewData,
    layout: Annotated[
        str | None,
        typer.Option(help=".rec: insightface or im2rec; .lmdb: f2c or msgpack.", metavar="NAME"),
    ] = None,
    shard_images: Annotated[
        int, typer.Option(help="Images in each tar shard.", metavar="NUMBER", parser=count("--shard-images", 1))
    ] = 10_000,
) -> None:
    """Write a data set in another format, images as they are."""
    from attfc_train.commands.data_convert import ConvertOptions
    from attfc_train.commands.data_convert import convert as convert_data
    from attfc_train.screen import Screen

    convert_data(path, ConvertOptions(output, layout, shard_images), Screen())
