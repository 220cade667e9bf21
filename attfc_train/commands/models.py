"""The options of the commands that use a trained model; torch is imported inside them only."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from attfc_train.exits import check_device

if TYPE_CHECKING:
    from attfc_train.export.model_file import Encoder

Model = Annotated[Path, typer.Option(help="A run's folder, or a .pt, .safetensors or .onnx file.")]
Which = Annotated[str, typer.Option(help="'best' or 'last' model of a run.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Val = Annotated[
    list[str] | None,
    typer.Option(help="Verification set: a .bin file, or a data set to draw pairs from. Repeatable."),
]
_MODEL = Path("runs/attfc")


def add_to(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    for command in (export, embed, compare):
        app.command()(command)


def export(
    model: Annotated[Path, typer.Argument(help="A run's folder, or a .pt, .safetensors or .onnx file.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="File to write: .onnx, .safetensors, .pt2 (torch.export) or .pt (state_dict)."),
    ] = None,
    which: Which = "best",
    precision: Annotated[str, typer.Option(help="Of an .onnx file: fp32, fp16 or int8.")] = "fp32",
    calibrate: Annotated[
        str | None, typer.Option(help="Data set that int8's ranges are measured on; a run's own data by default.")
    ] = None,
    val: Val = None,
) -> None:
    """Write a model as ONNX, safetensors, torch.export or state_dict, compared with the original."""
    from attfc_train.commands.export import ExportOptions, export_model

    export_model(model, output, ExportOptions(which, precision, calibrate, val or []), _say)


def embed(
    images: Annotated[list[Path], typer.Argument(help="Image files, and folders of them: aligned face crops.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The .npz file to write.")] = Path("features.npz"),
    model: Model = _MODEL,
    which: Which = "best",
    device: Device = "auto",
) -> None:
    """Write the features of images, float32 [N, D] of length 1, and the names of their files."""
    from attfc_train.commands.faces import embed_images

    embed_images(_opened(model, which, device), images, output, _say)


def compare(
    first: Annotated[Path, typer.Argument(help="An aligned face crop.")],
    second: Annotated[Path, typer.Argument(help="Another one.")],
    model: Model = _MODEL,
    threshold: Annotated[float | None, typer.Option(help="Cosine above which it is the same person.", min=-1, max=1)] = None,
    val: Val = None,
    which: Which = "best",
    device: Device = "auto",
) -> None:
    """Say how alike two faces are, and with --threshold or --val whether it is the same person."""
    from attfc_train.commands.faces import compare_images

    compare_images(_opened(model, which, device), first, second, threshold, val or [], _say)


def _say(text: str) -> None:
    """Print a line, which is not broken: it can be searched, and names of files stay whole."""
    from attfc_train.screen import Screen

    Screen().print(text, soft_wrap=True)


def _opened(model: Path, which: str, device: str) -> Encoder:
    import torch

    from attfc_train.commands.export import checked_which
    from attfc_train.errors import CheckpointError
    from attfc_train.export.model_file import open_encoder

    if not model.exists():
        raise CheckpointError("--model must exist", f"'{model}', where nothing is", "Example: --model runs/faces.")
    return open_encoder(model, checked_which(which), torch.device(check_device(device)))
