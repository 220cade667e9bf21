"""``attfc-train data``: what can be done with a data set before training; NumPy is imported inside commands only."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from attfc_train import data_writing_commands as writing
from attfc_train.command_line import STYLE, Command, Group, choice, count, examples, number
from attfc_train.commands import models
from attfc_train.sources import joined_spec

app = typer.Typer(
    **STYLE,
    cls=Group,
    help="Data sets before training: look at them, check, repair, align, cluster, thin out, split and convert them.",
    no_args_is_help=True,
    epilog=examples(
        "attfc-train data check faces --repair clean/train.rec",
        "attfc-train data info faces -o montage.png",
        "attfc-train data align photos -o faces --landmarks points.csv",
        "attfc-train data cluster faces --model runs/faces -o people.subset",
        "attfc-train data coreset faces --model runs/faces --keep 0.6 -o sixty.subset",
        "attfc-train data convert faces.lmdb -o faces/train.rec",
        "attfc-train data split faces -o train.subset --val faces.bin",
    ),
)

DataPath = writing.DataPath
DataPaths = Annotated[
    list[str],
    typer.Argument(help="As --data of a training; several are looked at as the one that they make.", metavar="SET..."),
]
Sample = Annotated[
    int,
    typer.Option(help="Images to look at, chosen at random; 0: all.", metavar="NUMBER", parser=count("--sample", 0)),
]
Montage = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="Also write a picture of some people's images: a .png or .jpg file.", metavar="FILE"),
]


@app.callback()
def data() -> None:
    """Look after data sets."""


@app.command(cls=Command)
def info(path: DataPaths, sample: Sample = 20_000, output: Montage = None) -> None:
    """Show what is in a data set: images an identity, sizes, what is passed over, whether faces look aligned."""
    from attfc_train.commands.data_survey import SurveyOptions, show_info
    from attfc_train.screen import Screen

    show_info(joined_spec(path), SurveyOptions(sample, output), Screen())


@app.command(cls=Command)
def check(
    path: DataPaths,
    repair: Annotated[
        Path | None,
        typer.Option(
            help="Also write a clean copy: what convert writes, or a .subset file, an index that copies nothing.",
            metavar="PATH",
        ),
    ] = None,
    tolerate: Annotated[
        float,
        typer.Option(
            help="Share of images or identities up to which a problem is said and no more.",
            metavar="SHARE",
            parser=number("--tolerate", 0, 1, "--tolerate 0.01"),
        ),
    ] = 0.0,
    size: Annotated[
        int | None,
        typer.Option(
            help="Side that every image must have; that of most of them by default.",
            metavar="PIXELS",
            parser=count("--size", 1, 4096),
        ),
    ] = None,
    sample: Annotated[
        int,
        typer.Option(
            help="A quick look at some images, chosen at random; 0: all.", metavar="NUMBER", parser=count("--sample", 0)
        ),
    ] = 0,
    json: Annotated[
        Path | None, typer.Option(help="Also write what was found as JSON, with more examples.", metavar="FILE")
    ] = None,
    output: Montage = None,
) -> None:
    """Decode every image, show what is wrong, and exit with code 4 where something would hurt a training."""
    from attfc_train.commands.data_check import CheckOptions
    from attfc_train.commands.data_check import check as check_data
    from attfc_train.commands.data_survey import SurveyOptions
    from attfc_train.screen import Screen

    check_data(joined_spec(path), CheckOptions(SurveyOptions(sample, output, size), tolerate, repair, json), Screen())


@app.command(cls=Command)
def align(
    path: DataPath,
    output: Annotated[Path, typer.Option("--output", "-o", help="A new folder, or a new .rec file.", metavar="PATH")],
    landmarks: Annotated[
        Path | None,
        typer.Option(help="CSV or JSON with five points an image; the page docs/data.md has the format.", metavar="FILE"),
    ] = None,
    detector: Annotated[
        Path | None,
        typer.Option(help="ONNX face detector with landmarks, as InsightFace's SCRFD and RetinaFace.", metavar="FILE"),
    ] = None,
    size: Annotated[
        int,
        typer.Option(
            help="Side of the crops; the template is scaled with it.", metavar="PIXELS", parser=count("--size", 32, 512)
        ),
    ] = 112,
) -> None:
    """Cut faces out by five landmarks, as the field's models expect them: 112 x 112 by the standard template."""
    from attfc_train.commands.data_align import AlignOptions
    from attfc_train.commands.data_align import align as align_data
    from attfc_train.screen import Screen

    align_data(path, AlignOptions(output, landmarks, detector, size), Screen())


def _distance(option: str) -> Callable[[str], float]:
    return number(option, 0.0, 2.0, f"{option} 0.9")


@app.command(cls=Command)
def cluster(
    path: Annotated[
        str,
        typer.Argument(
            help="Aligned faces: a folder of images, a data set whose labels are not looked at, or an .npz file of features.",
            metavar="DATA",
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The .subset file to write: a data set for --data.", metavar="FILE")
    ],
    model: Annotated[
        Path | None,
        typer.Option(help="A run's folder, or a .pt, .safetensors or .onnx file; none for features.", metavar="MODEL"),
    ] = None,
    threshold: Annotated[
        float,
        typer.Option(
            help="Distance of unit vectors up to which faces are one cluster; larger: fewer identities.",
            metavar="DISTANCE",
            parser=_distance("--threshold"),
        ),
    ] = 0.7,
    connect: Annotated[
        float | None,
        typer.Option(
            help="Up to which two robust clusters are one identity; 0.99 for a --threshold of 0.7, else in proportion.",
            metavar="DISTANCE",
            parser=_distance("--connect"),
        ),
    ] = None,
    connect_weak: Annotated[
        float | None,
        typer.Option(
            help="Up to which a robust and a small cluster are; 1.12, in proportion.",
            metavar="DISTANCE",
            parser=_distance("--connect-weak"),
        ),
    ] = None,
    robust: Annotated[
        int, typer.Option(help="Images that make a cluster robust.", metavar="NUMBER", parser=count("--robust", 1))
    ] = 5,
    connections: Annotated[
        int, typer.Option(help="Connections that a cluster keeps.", metavar="NUMBER", parser=count("--connections", 1))
    ] = 5,
    min_images: Annotated[
        int,
        typer.Option(help="Identities with fewer images are dropped.", metavar="NUMBER", parser=count("--min-images", 1)),
    ] = 2,
    truth: Annotated[bool, typer.Option("--truth", help="Score the identities against the labels of DATA.")] = False,
    which: models.Which = "best",
    device: models.Device = "auto",
) -> None:
    """Find who is who among faces without labels, and write that as a data set; stopped, it goes on when called again."""
    from attfc_train.cluster.settings import ClusterSettings
    from attfc_train.errors import UsageError

    settings = ClusterSettings.scaled(threshold, connect, connect_weak, robust, connections)
    has_features = path.lower().endswith(".npz")
    if has_features == (model is not None):
        got = "both" if has_features else "neither"
        raise UsageError("embeddings are of one: DATA.npz, or a --model", got, "Example: --model runs/faces.")

    import torch

    from attfc_train.commands.data_cluster import ClusterOptions
    from attfc_train.commands.data_cluster import cluster as cluster_data
    from attfc_train.exits import check_device
    from attfc_train.screen import Screen

    options = ClusterOptions(output, settings, min_images, truth, model, which)
    on = torch.device(check_device(device))
    cluster_data(path, lambda: models.opened(model or Path(), which, device), options, on, Screen())


@app.command(cls=Command)
def coreset(
    path: DataPath,
    output: Annotated[Path, typer.Option("--output", "-o", help="A new .subset file, an index over SET.", metavar="FILE")],
    model: Annotated[
        Path | None,
        typer.Option(help="Whose features are compared: a run's folder, a .pt, .safetensors or .onnx file.", metavar="MODEL"),
    ] = None,
    keep: Annotated[
        float | None,
        typer.Option(
            help="Share of the images to keep, over all identities; 0.6 without --threshold.",
            metavar="SHARE",
            parser=number("--keep", 1e-6, 1, "--keep 0.6"),
        ),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            help="In place of --keep: cosine from which on a face is superfluous beside another of its identity.",
            metavar="COSINE",
            parser=number("--threshold", -1, 1, "--threshold 0.7"),
        ),
    ] = None,
    by: Annotated[
        str,
        typer.Option(
            help="nms: rare faces first, without those like them (Face-NMS); random: for comparison, without a model, "
            "so that --which, --device, --batch-size and --workers change nothing.",
            metavar="WORD",
            parser=choice("--by", ("nms", "random"), "Leave it out for Face-NMS."),
        ),
    ] = "nms",
    least: Annotated[
        int, typer.Option(help="Images that an identity keeps at least.", metavar="NUMBER", parser=count("--least", 1))
    ] = 2,
    seed: Annotated[
        int | None, typer.Option(help="Of --by random; 0 by default.", metavar="NUMBER", parser=count("--seed", 0))
    ] = None,
    which: models.Which = "best",
    device: models.Device = "auto",
    batch_size: Annotated[
        int, typer.Option(help="Images in a forward pass.", metavar="NUMBER", parser=count("--batch-size", 1, 65536))
    ] = 64,
    workers: Annotated[
        int,
        typer.Option(
            help="Threads that decode; 0: one a core, at most 16.", metavar="NUMBER", parser=count("--workers", 0, 256)
        ),
    ] = 0,
) -> None:
    """Keep the images of a data set that are worth training on, as an index over it: nothing is copied."""
    from attfc_train.commands.data_coreset import CoresetOptions
    from attfc_train.commands.data_coreset import coreset as write_coreset
    from attfc_train.screen import Screen

    options = CoresetOptions(output, model, which, keep, threshold, by, least, seed, batch_size, workers, device)
    write_coreset(path, options, Screen())


for _command in (
    writing.convert,
    writing.pack,
    writing.unpack,
    writing.group,
    writing.split,
    writing.make_index,
):
    app.command(cls=Command)(_command)
