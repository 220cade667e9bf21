"""The ``attfc-plan`` command line; everything heavy is imported inside commands only."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from attfc_planner.commands import compare_gpus, import_config, options
from attfc_planner.commands.option_checks import (
    HEAD_WORDS,
    MAX_TRIALS,
    backbone_word,
    backbones,
    check_output,
    check_preference,
    check_values,
    checked_head,
    checked_link,
    checked_teacher,
    checked_word,
    opened,
    real,
    size_of_data,
    whole,
)
from attfc_planner.tune.studies.address import shown_command
from attfc_train.command_line import STYLE, Command, Group, Version, examples, number
from attfc_train.exits import run_and_exit
from attfc_train.sources import joined_spec, named_by_options

if TYPE_CHECKING:
    from attfc_planner.gpu.links import LinkName
    from attfc_planner.search.choose import Preference
    from attfc_train.document import Precision, StorageName

app = typer.Typer(
    **STYLE,
    cls=Group,
    help="Plan the training of face recognition with millions of identities on one GPU, or on several.",
    add_completion=False,
    epilog=examples(
        "attfc-plan --gpu rtx-4090 --ids 2059906 --images 42474557",
        "attfc-plan --data faces --backbone r100 --max-hours 100",
        "attfc-plan tune --data faces --hours 2",
        "attfc-plan explain best.json",
    ),
)
import_config.add_to(app)
compare_gpus.add_to(app)


@app.callback(invoke_without_command=True)
def plan(
    context: typer.Context,
    gpu: Annotated[str, typer.Option(help="auto, cpu, a card ('attfc-plan gpus' lists them) or a GPU profile file.")] = "auto",
    gpus: options.Gpus = 1,
    nodes: options.Nodes = 1,
    link: options.Link = None,
    ids: options.Ids = None,
    images: options.Images = None,
    data: options.Data = None,
    cores: options.Cores = None,
    val: options.Val = None,
    backbone: options.Backbones = None,
    head: options.Head = "auto",
    output: options.Output = Path("best.json"),
    train: Annotated[bool, typer.Option("--train", help="Train with the plan afterwards; needs --data.")] = False,
    teacher: options.Teacher = None,
    max_accuracy_drop: options.MaxAccuracyDrop = 1.0,
    prefer: options.Prefer = "balanced",
    tuned: options.Tuned = None,
    max_hours: Annotated[
        float | None,
        typer.Option(help="Hours that the training may take.", metavar="HOURS", parser=real("--max-hours", 0.001, 100)),
    ] = None,
    max_memory: Annotated[
        float | None,
        typer.Option(help="GiB to use; without it all that the GPU has.", metavar="GIB", parser=real("--max-memory", 0.1, 20)),
    ] = None,
    precision: options.AnyPrecision = None,
    compiled: Annotated[bool, typer.Option("--compile", help="Have the encoders compiled: run.compile.")] = False,
    channels_last: Annotated[
        bool, typer.Option("--channels-last", help="Lay images and filters channels-last: model.channels_last.")
    ] = False,
    image_size: options.ImageSize = 112,
    epochs: options.Epochs = 5.0,
    trials: Annotated[
        int,
        typer.Option(
            help="Optuna trials, at least the Pareto front.", metavar="NUMBER", parser=whole("--trials", 1, MAX_TRIALS)
        ),
    ] = 40,
    seed: options.Seed = 0,
    version: Version = False,
) -> None:
    """Choose the head's settings, batch size and parts, precision and checkpointing for a GPU, and write best.json."""
    from attfc_train.errors import UsageError

    del version
    if context.invoked_subcommand is not None:
        given = [name for name in context.params if _was_given(context, name)]
        if given:
            command = context.invoked_subcommand
            option = "--" + given[0].replace("_", "-")
            raise UsageError("options belong behind their command", f"{option} before {command}", f"See {command} --help.")
        return
    if train and data is None:
        raise UsageError("--train needs --data", "none", "Give the data set to train on.")
    compared = backbones(backbone)
    for name in compared:
        check_values(name, image_size, epochs, precision)
    kind = checked_head(head)
    check_preference(prefer)
    check_output(output)
    checked_link(link, gpus, nodes, train)
    taught_by, embedding_size = checked_teacher(teacher, image_size, needed_by="--train" if train else None)
    data_path = named_by_options(data)
    dataset = opened(data_path)
    num_ids, num_images = size_of_data(dataset, ids, images)

    from attfc_planner.commands.decoding import decoding_of
    from attfc_planner.commands.plan import plan_and_train
    from attfc_planner.plan.request import PlanRequest
    from attfc_train.profile.file import load_profile

    request = PlanRequest(
        num_ids=num_ids,
        num_images=num_images,
        data_path=data_path,
        backbone=compared[0],
        head=kind,
        compared=tuple(compared) if len(compared) > 1 else (),
        image_size=image_size,
        precision=cast("Precision | None", precision),
        compile=compiled,
        channels_last=channels_last,
        epochs=epochs,
        max_accuracy_drop=max_accuracy_drop,
        max_hours=max_hours,
        max_memory_bytes=None if max_memory is None else round(max_memory * 1024**3),
        prefer=cast("Preference", prefer),
        tuned=None if tuned is None else load_profile(tuned),
        val=tuple(val or ()),
        teacher=taught_by,
        cores=cores,
        gpus=gpus,
        nodes=nodes,
        link=cast("LinkName | None", link),
        embedding_size=embedding_size,
        decoding=decoding_of(dataset, image_size),
        num_trials=trials,
        seed=seed,
        command=shlex.join(["attfc-plan", *shown_command(sys.argv[1:])]),
    )
    raise SystemExit(plan_and_train(request, gpu, output, train, _asked_to_train))


@app.command(cls=Command)
def gpus(card: Annotated[str | None, typer.Argument(help="Show this card's figures and their sources.")] = None) -> None:
    """List the cards that --gpu takes."""
    from attfc_planner.gpu.catalog import get_card, load_catalog
    from attfc_planner.screens.plan import show_card, show_catalog
    from attfc_train.screen import Screen

    if card is None:
        show_catalog(Screen(), load_catalog())
    else:
        show_card(Screen(), get_card(card))


@app.command(cls=Command)
def explain(
    profile: Annotated[Path, typer.Argument(help="Training profile, such as the best.json of a plan.")],
    gpu: Annotated[str | None, typer.Option(help="Another device than the one that was planned for; as for a plan.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Write memory over the step as an SVG file.")] = None,
    cores: options.Cores = None,
) -> None:
    """Say where a profile's memory goes, when the peak is, and what every knob would change."""
    from attfc_train.screen import Screen

    if plot is not None:
        _check_plot(plot, profile)

    from attfc_planner.commands.explain import explain_file

    explain_file(Screen(), profile, gpu, plot, cores)


@app.command(cls=Command)
def fit(
    gpu: Annotated[str, typer.Option(help="Device, as for a plan.")] = "auto",
    backbone: Annotated[
        list[str] | None,
        typer.Option(
            help="Feature encoder; repeatable. Default: mbf, r18, r50, r100, r200.", metavar="NAME", parser=backbone_word
        ),
    ] = None,
    share: Annotated[
        float,
        typer.Option(
            help="DCC slots as a share of the identities.", metavar="SHARE", parser=number("--share", 0.001, 1, "--share 0.1")
        ),
    ] = 1.0,
    storage: Annotated[str, typer.Option(help="Type of the stored centers: fp32, bf16, fp8 or int8.")] = "fp32",
    precision: options.AnyPrecision = None,
) -> None:
    """Show the most identities that fit a GPU, by backbone and batch size."""
    from attfc_train.screen import Screen

    for name in backbone or ["r50"]:
        check_values(name, 112, 1, precision)
    _check_storage(storage)

    from attfc_planner.commands.fit import fit_gpu

    fit_gpu(Screen(), gpu, backbone, share, cast("StorageName", storage), cast("Precision | None", precision))


@app.command(cls=Command)
def report(
    profile: Annotated[Path, typer.Argument(help="Training profile that attfc-plan wrote, such as best.json.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The page.")] = Path("report.html"),
    run: Annotated[Path | None, typer.Option(help="Folder of a run with it, to show predicted beside measured.")] = None,
    study: Annotated[Path | None, typer.Option(help="Optuna journal; without it those that lie beside the profile.")] = None,
) -> None:
    """Write a plan as one HTML page: settings, memory, Pareto front, study, measured figures, commands."""
    from attfc_train.errors import UsageError
    from attfc_train.screen import Screen

    if output.suffix.lower() not in (".html", ".htm"):
        raise UsageError("--output must be an .html file", f"'{output}'", "Example: -o report.html.")

    from attfc_planner.commands.report import report_file

    report_file(Screen(), profile, output, study, run)


@app.command(cls=Command)
def calibrate(
    gpu: Annotated[str, typer.Option(help="auto: the GPU that is here, else the CPU; or cpu.")] = "auto",
) -> None:
    """Measure real train steps on this device, for sharper plans; a GPU does it by itself when it is first used."""
    from attfc_planner.commands.calibrate import calibrate_device
    from attfc_train.screen import Screen

    calibrate_device(Screen(), gpu)


@app.command(cls=Command)
def tune(
    data: Annotated[
        list[str],
        typer.Option(help="Data set, as for a plan; some of its identities are held out. Repeatable.", metavar="SET"),
    ],
    val: options.Val = None,
    gpu: Annotated[str, typer.Option(help="auto or cpu: the device that is here.")] = "auto",
    trials: Annotated[
        int,
        typer.Option(
            help="Settings whose real train steps are run.", metavar="NUMBER", parser=whole("--trials", 1, MAX_TRIALS)
        ),
    ] = 40,
    hours: Annotated[
        float,
        typer.Option(
            help="Hours that this process takes in all.", metavar="HOURS", parser=number("--hours", 0.001, 1000, "--hours 2")
        ),
    ] = 2.0,
    storage: Annotated[
        str | None,
        typer.Option(
            help="postgresql://..., sqlite:///FILE or journal:FILE, for many workers; else a journal beside --output."
        ),
    ] = None,
    study: Annotated[str | None, typer.Option(help="Name in the storage; else backbone and identities.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the study that is there.")] = False,
    output: options.Output = Path("best.json"),
    backbone: options.Backbone = "r50",
    head: Annotated[str, typer.Option(help="Head to tune: attfc, another kind, or 'auto' ('any') to try all.")] = "attfc",
    image_size: options.ImageSize = 112,
    precision: options.AnyPrecision = None,
    epochs: options.Epochs = 5.0,
    max_accuracy_drop: options.MaxAccuracyDrop = 1.0,
    prefer: Annotated[
        str, typer.Option(help="speed, balanced or accuracy: what the plan, and a tuning without trainings, chooses.")
    ] = "balanced",
    teacher: Annotated[
        str | None,
        typer.Option(help="A trained model that every training learns from too; a file or run.", metavar="MODEL"),
    ] = None,
    seed: options.Seed = 0,
) -> None:
    """Plan, then try settings with real train steps and short trainings on --data, and write best.json."""
    check_values(backbone, image_size, epochs, precision)
    kind = "auto" if checked_head(head) in HEAD_WORDS else head
    check_preference(prefer)
    check_output(output)
    taught_by, embedding_size = checked_teacher(teacher, image_size, needed_by="tune")
    data_path = joined_spec(data)
    dataset = opened(data_path)
    num_ids, num_images = size_of_data(dataset, None, None)

    from attfc_planner.commands import tune as session
    from attfc_planner.commands.decoding import decoding_of
    from attfc_planner.plan.request import PlanRequest

    request = PlanRequest(
        num_ids=num_ids,
        num_images=num_images,
        data_path=data_path,
        backbone=backbone,
        head=kind,
        tries_heads=True,
        image_size=image_size,
        precision=cast("Precision | None", precision),
        epochs=epochs,
        max_accuracy_drop=max_accuracy_drop,
        prefer=cast("Preference", prefer),
        val=tuple(val or ()),
        teacher=taught_by,
        embedding_size=embedding_size,
        decoding=decoding_of(dataset, image_size),
        num_trials=trials,
        seed=seed,
        command=shlex.join(["attfc-plan", *shown_command(sys.argv[1:])]),
    )
    session.tune(request, session.TuneOptions(gpu, output, hours, storage, study, resume))


def _asked_to_train() -> bool:
    """Ask whether to train, where somebody can answer."""
    return sys.stdin.isatty() and sys.stdout.isatty() and typer.confirm("Train now?", default=False)


def _check_storage(storage: str) -> None:
    from attfc_train.document import STORAGES

    checked_word("--storage", "fp32, bf16, fp8 or int8", storage, STORAGES)


def _check_plot(plot: Path, profile: Path) -> None:
    """Check that the picture can be written, and is not written over the profile."""
    from attfc_train.errors import UsageError

    if plot.absolute() == profile.absolute():
        raise UsageError("--plot must be another file than the profile", f"'{plot}'", "Example: --plot memory.svg.")
    check_output(plot, "--plot")


def _was_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def main() -> None:
    """Run the command line and exit."""
    run_and_exit(app)


if __name__ == "__main__":
    main()
