"""``attfc-train``: train a profile, resume a run, evaluate a model; torch is imported once the arguments are right."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from attfc_train import data_commands
from attfc_train.command_line import STYLE, Command, Group, Version, choice, examples, number
from attfc_train.commands import models, presets, profile_step, training
from attfc_train.cuda_environment import prepare
from attfc_train.errors import UsageError
from attfc_train.exits import known_device, run_and_exit
from attfc_train.sources import named_by_options

app = typer.Typer(
    **STYLE,
    cls=Group,
    help="Train face recognition with the AttFC container: millions of identities on one GPU, or on several with torchrun.",
    epilog=examples(
        "attfc-train --preset tiny --data synthetic:500x20 --output runs/first",
        "attfc-train --profile best.json --data faces --val lfw.bin --output runs/a",
        "attfc-train --resume runs/a",
        "attfc-train evaluate runs/a --val lfw.bin",
    ),
)
app.add_typer(data_commands.app, name="data")
models.add_to(app)
presets.add_to(app)
profile_step.add_to(app)

Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.", metavar="DEVICE", parser=known_device)]
Val = Annotated[
    list[str] | None,
    typer.Option(help="Verification set: a .bin file, or a data set to draw pairs from. Repeatable.", metavar="SET"),
]


def _preset_names() -> list[str]:
    from attfc_train.profile.file import preset_names

    return preset_names()


@app.callback(invoke_without_command=True)
def train(
    context: typer.Context,
    profile: Annotated[Path | None, typer.Option(help="Training profile, as attfc-plan writes it.", metavar="FILE")] = None,
    preset: Annotated[
        str | None,
        typer.Option(help="A shipped profile; see 'attfc-train presets'.", metavar="NAME", autocompletion=_preset_names),
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(help="Folder of a run to continue from its last checkpoint.", metavar="RUN")
    ] = None,
    extend: Annotated[
        float | None,
        typer.Option(
            help="With --resume: train so many epochs longer.",
            metavar="EPOCHS",
            parser=number("--extend", 1e-6, 10_000, "--extend 5"),
        ),
    ] = None,
    init: Annotated[
        Path | None,
        typer.Option(
            help="Start from a model's weights: a .pt, .safetensors or .onnx file, or a run's folder.", metavar="MODEL"
        ),
    ] = None,
    teacher: Annotated[
        str | None,
        typer.Option(help="Learn to agree with this trained model too; a file or run as for --init.", metavar="MODEL"),
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(
            help="RecordIO, folder per identity, ..., synthetic:IDSxIMAGES, or a URL of one; @FIRST:STOP: a part. Repeatable.",
            metavar="SET",
        ),
    ] = None,
    val: Val = None,
    output: Annotated[
        Path, typer.Option(help="Folder for checkpoints, models and logs; must be new.", metavar="FOLDER")
    ] = Path("runs/attfc"),
    override: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="Change a setting of the profile; 'presets show' has them. Repeatable.", metavar="SECTION.KEY=VALUE"
        ),
    ] = None,
    device: Device = "auto",
    tensorboard: Annotated[bool, typer.Option(help="Also write TensorBoard scalars.")] = False,
    wandb: Annotated[bool, typer.Option("--wandb", help="Also log to Weights & Biases.")] = False,
    mlflow: Annotated[bool, typer.Option("--mlflow", help="Also log to MLflow.")] = False,
    on_oom: Annotated[
        str,
        typer.Option(
            help="Out of memory: 'shrink' the micro-batch and repeat the step, or 'fail'.",
            metavar="WORD",
            parser=choice("--on-oom", ("fail", "shrink"), "Leave it out to shrink."),
        ),
    ] = "shrink",
    on_collapse: Annotated[
        str,
        typer.Option(
            help="All features become alike: 'warn' and go on, or save and 'fail'.",
            metavar="WORD",
            parser=choice("--on-collapse", ("warn", "fail"), "Leave it out to be warned."),
        ),
    ] = "warn",
    version: Version = False,
) -> None:
    """Train --profile or --preset on --data, or --resume a run."""
    del version
    given = _given_options(context)
    if context.invoked_subcommand is not None:
        if given:
            command = context.invoked_subcommand
            raise UsageError("options belong behind their command", f"{given[0]} before {command}", f"See {command} --help.")
        return
    trackers = {"--tensorboard": tensorboard, "--wandb": wandb, "--mlflow": mlflow}
    process = training.ProcessOptions(device, [option for option, wanted in trackers.items() if wanted], on_oom, on_collapse)
    source = training.Source(
        profile, preset, resume, output, named_by_options(data), val or (), override or (), extend, init, teacher
    )
    training.train(source, given, process)


@app.command(cls=Command, epilog=examples("attfc-train evaluate runs/faces", "attfc-train evaluate A B --val sets --compare"))
def evaluate(
    model: Annotated[
        list[Path], typer.Argument(help="Folders of runs, and .pt, .safetensors or .onnx files.", metavar="MODEL")
    ],
    val: Annotated[
        list[str] | None,
        typer.Option(
            help="Verification set: a .bin file, a folder of them, or a data set to draw pairs from. Repeatable.",
            metavar="SET",
        ),
    ] = None,
    which: models.Which = "best",
    far: Annotated[
        list[float] | None,
        typer.Option(
            help="False accept rate to give threshold and TAR at, 0.1 to 1e-6 by default. Repeatable.",
            metavar="RATE",
            parser=number("--far", 0, 1, "--far 1e-3", excluded=True),
        ),
    ] = None,
    compare: Annotated[bool, typer.Option("--compare", help="Test whether the models differ on the same pairs.")] = False,
    roc: Annotated[Path | None, typer.Option(help="Also draw the ROC curves: an .svg or .png file.", metavar="FILE")] = None,
    ijb: Annotated[
        Path | None, typer.Option(help="Folder of IJB-B or IJB-C: 1:1 and 1:N of its templates.", metavar="FOLDER")
    ] = None,
    distractors: Annotated[
        str | None,
        typer.Option(help="Data set of other people: rank 1 of each --val set's faces among them.", metavar="SET"),
    ] = None,
    masked: Annotated[
        bool, typer.Option("--masked", help="Also with a mask drawn on the second image of each pair; faces must be aligned.")
    ] = False,
    at_least: Annotated[
        float,
        typer.Option(
            help="Fail where the accuracy of a set is lower.",
            metavar="ACCURACY",
            parser=number("--at-least", 0, 1, "--at-least 0.9"),
        ),
    ] = 0.0,
    device: Device = "auto",
) -> None:
    """Thresholds, TAR at FAR and ten-fold accuracy of models, with intervals."""
    models.must_exist(model)

    from attfc_train.commands.evaluate import EvaluateOptions, evaluate_models
    from attfc_train.screen import Screen

    options = EvaluateOptions(val or [], which, at_least, far or [], compare, roc, ijb, distractors, masked)
    evaluate_models(model, options, training.device_of(device), Screen())


def _given_options(context: typer.Context) -> list[str]:
    """Return the options that stand on the command line, as opposed to defaults."""
    names = {name: "--set" if name == "override" else f"--{name.replace('_', '-')}" for name in context.params}
    sources = {name: context.get_parameter_source(name) for name in names}
    return [names[name] for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"]


def main() -> None:
    """Run the command line; the environment is prepared first, because commands import torch."""
    prepare(os.environ)
    run_and_exit(app)


if __name__ == "__main__":
    main()
