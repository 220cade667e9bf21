"""``attfc-train presets``: the shipped profiles, and every setting of one; free of torch."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from attfc_train.command_line import STYLE, Command, Group, examples

if TYPE_CHECKING:
    from attfc_train.profile.profile import TrainProfile

app = typer.Typer(**STYLE, cls=Group, help="List the shipped profiles, or show the settings of one.", add_completion=False)


def add_to(program: typer.Typer) -> None:
    """Add the commands to the command line."""
    program.add_typer(app, name="presets", invoke_without_command=True)


@app.callback()
def presets(context: typer.Context) -> None:
    """List the shipped profiles, or show the settings of one."""
    if context.invoked_subcommand is not None:
        return
    from attfc_train.profile.file import load_preset, preset_names

    for name in preset_names():
        typer.echo(f"{name:14s} {load_preset(name).description}")


@app.command(cls=Command, epilog=examples("attfc-train presets show attfc", "attfc-train presets show tiny > mine.json --json"))
def show(
    name: Annotated[str, typer.Argument(help="A name of the list.", metavar="NAME")],
    as_json: Annotated[bool, typer.Option("--json", help="As a profile, for --profile.")] = False,
) -> None:
    """Show the settings of a shipped profile as --set takes them, with the values that each can have."""
    from attfc_train.profile.file import load_preset
    from attfc_train.profile.keys import known_keys

    profile = load_preset(name)
    if as_json:
        typer.echo(profile.model_dump_json(indent=2))
        return
    typer.echo(f"{name}: {profile.description}")
    for key, values in known_keys(profile).items():
        typer.echo(f"{f'{key}={_value(profile, key)}':40s}  {values.rule}")


def _value(profile: TrainProfile, key: str) -> str:
    node: Any = profile
    for part in key.split("."):
        node = getattr(node, part)
    return node if isinstance(node, str) else json.dumps(node)
