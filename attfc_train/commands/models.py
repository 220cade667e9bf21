"""The options of the commands that use a trained model; torch is imported inside them only."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from attfc_train.command_line import Command, choice, examples, number
from attfc_train.errors import CheckpointError
from attfc_train.exits import check_device, known_device

if TYPE_CHECKING:
    from attfc_train.export.model_file import Encoder

Model = Annotated[Path, typer.Option(help="A run's folder, or a .pt, .safetensors or .onnx file.", metavar="MODEL")]
Which = Annotated[
    str,
    typer.Option(
        help="'best' or 'last' model of a run.",
        metavar="WORD",
        parser=choice("--which", ("best", "last"), "'best' needs a run that had --val."),
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.", metavar="DEVICE", parser=known_device)]
Val = Annotated[
    list[str] | None,
    typer.Option(help="Verification set: a .bin file, or a data set to draw pairs from. Repeatable.", metavar="SET"),
]
_MODEL = Path("runs/attfc")
_PRECISIONS = ("fp32", "fp16", "int8")


def add_to(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    lines: dict[Callable[..., None], tuple[str, ...]] = {
        export: ("attfc-train export runs/faces", "attfc-train export runs/faces -o faces.int8.onnx --precision int8"),
        embed: ("attfc-train embed photos -o features.npz --model runs/faces",),
        compare: ("attfc-train compare a.jpg b.jpg --model runs/faces --val lfw.bin",),
    }
    for command, shown in lines.items():
        app.command(cls=Command, epilog=examples(*shown))(command)


def must_exist(paths: Sequence[Path], option: str = "MODEL") -> None:
    """Check that there is something at the paths of models, before torch is loaded.

    Args:
        option: what gave them.

    Raises:
        CheckpointError: there is nothing: neither a model nor the folder of a run.
    """
    for path in paths:
        if not os.path.exists(path):  # unlike `Path.exists`, not raised by a name that no file can have
            example = "attfc-train evaluate" if option == "MODEL" else option
            raise CheckpointError(f"{option} must exist", f"'{path}', where nothing is", f"Example: {example} runs/faces.")


def export(
    model: Annotated[Path, typer.Argument(help="A run's folder, or a .pt, .safetensors or .onnx file.", metavar="MODEL")],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="File to write: .onnx, .safetensors, .pt2 (torch.export) or .pt (state_dict).",
            metavar="FILE",
        ),
    ] = None,
    which: Which = "best",
    precision: Annotated[
        str,
        typer.Option(
            help="Of an .onnx file: fp32, fp16 or int8.",
            metavar="WORD",
            parser=choice("--precision", _PRECISIONS, "Leave it out for fp32."),
        ),
    ] = "fp32",
    calibrate: Annotated[
        str | None,
        typer.Option(help="Data set that int8's ranges are measured on; a run's own data by default.", metavar="SET"),
    ] = None,
    val: Val = None,
) -> None:
    """Write a model as ONNX, safetensors, torch.export or state_dict, compared with the original."""
    must_exist([model])

    from attfc_train.commands.export import ExportOptions, export_model

    export_model(model, output, ExportOptions(which, precision, calibrate, val or []), _say)


def embed(
    images: Annotated[
        list[Path], typer.Argument(help="Image files, and folders of them: aligned face crops.", metavar="IMAGE")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The .npz file to write.", metavar="FILE")] = Path(
        "features.npz"
    ),
    model: Model = _MODEL,
    which: Which = "best",
    device: Device = "auto",
) -> None:
    """Write the features of images, float32 [N, D] of length 1, and the names of their files."""
    from attfc_train.commands.faces import embed_images

    embed_images(opened(model, which, device), images, output, _say)


def compare(
    first: Annotated[Path, typer.Argument(help="An aligned face crop.", metavar="FIRST")],
    second: Annotated[Path, typer.Argument(help="Another one.", metavar="SECOND")],
    model: Model = _MODEL,
    threshold: Annotated[
        float | None,
        typer.Option(
            help="Cosine above which it is the same person.",
            metavar="COSINE",
            parser=number("--threshold", -1, 1, "--threshold 0.3"),
        ),
    ] = None,
    val: Val = None,
    which: Which = "best",
    device: Device = "auto",
) -> None:
    """Say how alike two faces are, and with --threshold or --val whether it is the same person."""
    from attfc_train.commands.faces import compare_images

    compare_images(opened(model, which, device), first, second, threshold, val or [], _say)


def _say(text: str) -> None:
    """Print a line, which is not broken: it can be searched, and names of files stay whole."""
    from attfc_train.screen import Screen

    Screen().print(text, soft_wrap=True)


def opened(model: Path, which: str, device: str) -> Encoder:
    """Return the encoder that --model, --which and --device name; what its user should know of it is printed.

    Raises:
        CheckpointError, UsageError, ProfileError: it cannot be opened, or computed there.
    """
    must_exist([model], "--model")

    import torch

    from attfc_train.commands.export import checked_which
    from attfc_train.export.model_file import open_encoder

    encoder = open_encoder(model, checked_which(which), torch.device(check_device(device)))
    for note in encoder.notes:
        _say(note)
    return encoder
