"""Options that several commands of attfc-plan have, with their help; this file loads nothing heavy."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from attfc_planner.commands.option_checks import backbone_word, real, whole
from attfc_train.backbones.kinds import BACKBONES

Head = Annotated[
    str,
    typer.Option(
        help="auto: a full FC layer where it fits and is as fast, else the best of it, Partial FC and AttFC; any: the best of "
        "all kinds; or attfc, full_fc, partial_fc, dcq, f2c."
    ),
]
Ids = Annotated[
    int | None,
    typer.Option(help="Identities to train on; from --data where that is given.", metavar="NUMBER", parser=whole("--ids", 2)),
]
Images = Annotated[
    int | None,
    typer.Option(help="Images, for hours per epoch; from --data if given.", metavar="NUMBER", parser=whole("--images", 2)),
]
Data = Annotated[
    list[str] | None,
    typer.Option(
        help="RecordIO, folder per identity, ..., synthetic:IDSxIMAGES, or a URL of one; @FIRST:STOP: a part. Repeatable.",
        metavar="SET",
    ),
]
Cores = Annotated[
    int | None,
    typer.Option(
        help="Cores of the GPU's host, which decode the images; without it those that are here, else unknown.",
        metavar="NUMBER",
        parser=whole("--cores", 1, 65_536),
    ),
]
Gpus = Annotated[
    int,
    typer.Option(
        help="GPUs that train together, of all machines; the batch is that of all.",
        metavar="NUMBER",
        parser=whole("--gpus", 1, 512),
    ),
]
Nodes = Annotated[
    int, typer.Option(help="Machines with as many of --gpus each.", metavar="NUMBER", parser=whole("--nodes", 1, 512))
]
Link = Annotated[
    str | None,
    typer.Option(
        help="Slowest link between --gpus: nvlink, pcie or eth100. Without it eth100 between machines, else the card's best."
    ),
]
Backbone = Annotated[str, typer.Option(help=f"Feature encoder: {', '.join(BACKBONES)}.", metavar="NAME", parser=backbone_word)]
Backbones = Annotated[
    list[str] | None,
    typer.Option(
        help=f"Feature encoder: {', '.join(BACKBONES)}; without it r50. Repeat it, or 'any', to choose.",
        metavar="NAME",
        parser=backbone_word,
    ),
]
Val = Annotated[list[str] | None, typer.Option(help="Verification set: a .bin file or a data set. Repeatable.")]
Output = Annotated[Path, typer.Option(help="Where the training profile is written.")]
ImageSize = Annotated[
    int, typer.Option(help="Height and width of the images.", metavar="PIXELS", parser=whole("--image-size", 32, 512))
]
AnyPrecision = Annotated[str | None, typer.Option(help="bf16, fp16 or fp32; without it the best of the device.")]
Epochs = Annotated[
    float, typer.Option(help="Passes over the images of the full run.", metavar="NUMBER", parser=real("--epochs", 0.001, 20))
]
Teacher = Annotated[
    str | None,
    typer.Option(
        help="Plan for a teacher: a trained model (file or run), or a network's name until there is one.", metavar="MODEL"
    ),
]
MaxAccuracyDrop = Annotated[
    float,
    typer.Option(
        help="Points that the accuracy may lie below a full FC layer.",
        metavar="POINTS",
        parser=real("--max-accuracy-drop", 0, 0.5),
    ),
]
Prefer = Annotated[str, typer.Option(help="speed, balanced or accuracy: which end of the Pareto front within the limits.")]
Tuned = Annotated[
    Path | None, typer.Option(help="What 'attfc-plan tune' wrote for these data: its trainings replace the accuracy prior.")
]
Seed = Annotated[int, typer.Option(help="Seed of the search.", metavar="NUMBER", parser=whole("--seed", 0, 2**32 - 1))]
