"""``attfc-train``: train a profile, resume a run, evaluate a model; torch is imported inside commands only."""

from __future__ import annotations

import json
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from attfc_train import data_commands
from attfc_train.commands import models
from attfc_train.cuda_environment import prepare
from attfc_train.exits import check_device, run_and_exit

if TYPE_CHECKING:
    import torch

    from attfc_train.profile.profile import TrainProfile
    from attfc_train.run.collapse import OnCollapse
    from attfc_train.run.longer import Initialise
    from attfc_train.run.out_of_memory import OnOom

app = typer.Typer(
    help="Train face recognition with the AttFC container: one GPU, millions of identities.",
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(data_commands.app, name="data")
models.add_to(app)

Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Val = Annotated[
    list[str] | None,
    typer.Option(help="Verification set: a .bin file, or a data set to draw pairs from. Repeatable."),
]


@app.callback(invoke_without_command=True)
def train(
    context: typer.Context,
    profile: Annotated[Path | None, typer.Option(help="Training profile, as attfc-plan writes it.")] = None,
    preset: Annotated[str | None, typer.Option(help="A shipped profile; see 'attfc-train presets'.")] = None,
    resume: Annotated[Path | None, typer.Option(help="Folder of a run to continue from its last checkpoint.")] = None,
    extend: Annotated[float | None, typer.Option(help="With --resume: train so many epochs longer.")] = None,
    init: Annotated[
        Path | None, typer.Option(help="Start from a model's weights: a .pt, .safetensors or .onnx file, or a run's folder.")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(help="RecordIO folder or .rec file, folder per identity, or synthetic:IDSxIMAGES; @FIRST:STOP: a part."),
    ] = None,
    val: Val = None,
    output: Annotated[Path, typer.Option(help="Folder for checkpoints, models and logs; must be new.")] = Path("runs/attfc"),
    override: Annotated[
        list[str] | None,
        typer.Option("--set", help="Change a setting of the profile: section.key=value. Repeatable."),
    ] = None,
    device: Device = "auto",
    tensorboard: Annotated[bool, typer.Option(help="Also write TensorBoard scalars.")] = False,
    on_oom: Annotated[
        str, typer.Option(help="Out of memory: 'shrink' the micro-batch and repeat the step, or 'fail'.")
    ] = "shrink",
    on_collapse: Annotated[str, typer.Option(help="All features become alike: 'warn' and go on, or save and 'fail'.")] = "warn",
) -> None:
    """Train --profile or --preset on --data, or --resume a run."""
    from attfc_train.errors import UsageError

    given = _given_options(context)
    if context.invoked_subcommand is not None:
        if given:
            command = context.invoked_subcommand
            raise UsageError("options belong behind their command", f"{given[0]} before {command}", f"See {command} --help.")
        return
    from attfc_train.run import run
    from attfc_train.screen import Screen

    sources = [name for name in given if name in ("--profile", "--preset", "--resume")]
    if len(sources) != 1:
        raise UsageError(
            "exactly one of --profile, --preset and --resume must be given",
            " and ".join(sources) or "none",
            "See attfc-train --help.",
        )
    if on_oom not in ("fail", "shrink"):
        raise UsageError("--on-oom must be fail or shrink", f"'{on_oom}'", "Leave it out to shrink.")
    if on_collapse not in ("warn", "fail"):
        raise UsageError("--on-collapse must be warn or fail", f"'{on_collapse}'", "Leave it out to be warned.")
    torch_device = _device(device)
    policies = cast("OnOom", on_oom), cast("OnCollapse", on_collapse)
    if resume is not None:
        superfluous = [name for name in given if name in ("--val", "--output", "--init")]
        if superfluous:
            raise UsageError("--resume takes its settings from the run", " and ".join(superfluous), "Leave them out.")
        assignments = _assignments(data, override)
        run.resume(run.RunOptions(resume, torch_device, Screen(), tensorboard, *policies), assignments, extend)
        return
    if extend is not None:
        raise UsageError("--extend needs a run to continue", "no --resume", "Add --resume RUN, or set run.epochs.")
    options = run.RunOptions(output, torch_device, Screen(), tensorboard, *policies)
    run.start(_load(profile, preset, data, val, override), options, _initialiser(init))


@app.command()
def evaluate(
    model: Annotated[list[Path], typer.Argument(help="Folders of runs, and .pt, .safetensors or .onnx files.")],
    val: Annotated[
        list[str] | None,
        typer.Option(help="Verification set: a .bin file, a folder of them, or a data set to draw pairs from. Repeatable."),
    ] = None,
    which: Annotated[str, typer.Option(help="'best' or 'last' model of a run.")] = "best",
    far: Annotated[
        list[float] | None,
        typer.Option(help="False accept rate to give threshold and TAR at, 0.1 to 1e-6 by default. Repeatable."),
    ] = None,
    compare: Annotated[bool, typer.Option("--compare", help="Test whether the models differ on the same pairs.")] = False,
    roc: Annotated[Path | None, typer.Option(help="Also draw the ROC curves: an .svg or .png file.")] = None,
    ijb: Annotated[Path | None, typer.Option(help="Folder of IJB-B or IJB-C: 1:1 and 1:N of its templates.")] = None,
    distractors: Annotated[
        str | None, typer.Option(help="Data set of other people: rank 1 of each --val set's faces among them.")
    ] = None,
    at_least: Annotated[float, typer.Option(help="Fail where the accuracy of a set is lower.", min=0, max=1)] = 0.0,
    device: Device = "auto",
) -> None:
    """Thresholds, TAR at FAR and ten-fold accuracy of models, with intervals."""
    from attfc_train.commands.evaluate import EvaluateOptions, evaluate_models
    from attfc_train.screen import Screen

    options = EvaluateOptions(val or [], which, at_least, far or [], compare, roc, ijb, distractors)
    evaluate_models(model, options, _device(device), Screen())


@app.command()
def presets() -> None:
    """List the shipped profiles."""
    from attfc_train.profile.file import load_preset, preset_names

    for name in preset_names():
        typer.echo(f"{name:14s} {load_preset(name).description}")


def _given_options(context: typer.Context) -> list[str]:
    """Return the options that stand on the command line, as opposed to defaults."""
    names = {name: "--set" if name == "override" else f"--{name.replace('_', '-')}" for name in context.params}
    sources = {name: context.get_parameter_source(name) for name in names}
    return [names[name] for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"]


def _initialiser(init: Path | None) -> Initialise | None:
    if init is None:
        return None
    from attfc_train.export.model_file import initialise

    return partial(initialise, path=init)


def _device(name: str) -> torch.device:
    import torch

    return torch.device(check_device(name))


def _load(
    profile: Path | None, preset: str | None, data: str | None, val: list[str] | None, override: list[str] | None
) -> TrainProfile:
    """Return the profile with the command line's changes; --data and --val win over --set."""
    from attfc_train.profile.file import load_preset, load_profile, with_overrides

    if preset is not None:
        loaded = load_preset(preset)
    else:
        assert profile is not None
        loaded = load_profile(profile)
    assignments = _assignments(data, override)
    if val:
        assignments.append(f"run.val={json.dumps(val)}")
    return with_overrides(loaded, assignments)


def _assignments(data: str | None, override: list[str] | None) -> list[str]:
    """Return the assignments of ``--set``, and ``--data`` as the last one."""
    return [*(override or []), *([f"data.path={json.dumps(data)}"] if data is not None else [])]


def main() -> None:
    """Run the command line; the environment is prepared first, because commands import torch."""
    prepare(os.environ)
    run_and_exit(app)


if __name__ == "__main__":
    main()
