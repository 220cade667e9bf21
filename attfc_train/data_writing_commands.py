"""Those of the ``attfc-train data`` commands that write a data set; NumPy is imported inside commands only."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from attfc_train.command_line import count

DataPath = Annotated[
    str, typer.Argument(help="As --data of a training: a folder, a .rec or .subset file, a URL, a part of one.", metavar="SET")
]
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


def pack(path: DataPath, output: NewRecords) -> None:
    """Write a data set as RecordIO, images as they are: the fastest to train from."""
    from attfc_train.commands.data_convert import ConvertOptions
    from attfc_train.commands.data_convert import pack as pack_data
    from attfc_train.screen import Screen

    pack_data(path, ConvertOptions(output), Screen())


def unpack(path: DataPath, output: NewFolder) -> None:
    """Write a data set as a folder per identity, images as they are."""
    from attfc_train.commands.data_convert import ConvertOptions
    from attfc_train.commands.data_convert import unpack as unpack_data
    from attfc_train.screen import Screen

    unpack_data(path, ConvertOptions(output), Screen())


def group(
    path: DataPath,
    output: NewRecords,
    seed: Annotated[
        int | None,
        typer.Option(
            help="Identities in a random order; left out, in that of their labels.", metavar="NUMBER", parser=count("--seed", 0)
        ),
    ] = None,
) -> None:
    """Write a data set as RecordIO, the images of each identity next to each other: a batch then needs fewer seeks."""
    from attfc_train.commands.data_group import GroupOptions
    from attfc_train.commands.data_group import group as group_data
    from attfc_train.screen import Screen

    group_data(path, GroupOptions(output, seed), Screen())


def split(
    path: DataPath,
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            help="For training: a new .subset file, an index that copies nothing, or what convert writes, a copy.",
            metavar="PATH",
        ),
    ],
    val: Annotated[Path, typer.Option(help="For verification: a new .bin file, as InsightFace has them.", metavar="FILE")],
    ids: Annotated[
        str, typer.Option(help="Identities to hold out: a number, or a share of all.", metavar="NUMBER|SHARE%")
    ] = "5%",
    pairs: Annotated[
        int | None,
        typer.Option(
            help="Pairs to draw of them, in ten folds, each half pairs of one person; left out, 6,000 or as many as there are.",
            metavar="NUMBER",
            parser=count("--pairs", 20, 100_000),
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(help="Of the choice of people and pairs.", metavar="NUMBER", parser=count("--seed", 0))
    ] = 0,
) -> None:
    """Hold people out of a data set: the others for training, and pairs of them as a verification file."""
    from attfc_train.commands.data_split import SplitOptions
    from attfc_train.commands.data_split import split as split_data
    from attfc_train.screen import Screen

    split_data(path, SplitOptions(output, val, ids, pairs, seed), Screen())


def make_index(
    records: Annotated[Path, typer.Argument(help="A .rec file, or a folder with train.rec.")],
) -> None:
    """Write X.idx beside X.rec, by reading the records; a former X.idx that differs is kept as X.idx.former."""
    from attfc_train.commands.data_index import make_index as make_record_index
    from attfc_train.screen import Screen

    make_record_index(records, Screen())
