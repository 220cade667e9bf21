"""The command lines are an interface: what is here works in scripts. Adding is free; renaming or removing is a new version."""

from __future__ import annotations

import re
from typing import Any

import pytest
import typer.main

import attfc_planner.cli
import attfc_train.cli
from attfc_train.backbones.kinds import BACKBONES

COMPLETION = {"--install-completion", "--show-completion"}
TRAIN = {
    "": {
        "--profile",
        "--preset",
        "--resume",
        "--data",
        "--val",
        "--output",
        "--set",
        "--device",
        "--tensorboard",
        "--no-tensorboard",
        "--on-oom",
        "--on-collapse",
        "--extend",
        "--init",
        "--teacher",
        "--version",
        "--wandb",
        "--mlflow",
    }
    | COMPLETION,
    "export": {"model", "--output", "-o", "--which", "--precision", "--calibrate", "--val"},
    "embed": {"images", "--output", "-o", "--model", "--which", "--device"},
    "compare": {"first", "second", "--model", "--threshold", "--val", "--which", "--device"},
    "evaluate": {
        "model",
        "--val",
        "--which",
        "--far",
        "--compare",
        "--roc",
        "--ijb",
        "--distractors",
        "--masked",
        "--at-least",
        "--device",
    },
    "presets": set(),
    "profile-step": {"--profile", "--preset", "--data", "--teacher", "--set", "--steps", "--device", "--json", "--trace"},
    "data": set(),
}
PLAN: dict[str, set[str]] = {
    "": {
        "--gpu",
        "--gpus",
        "--nodes",
        "--link",
        "--channels-last",
        "--compile",
        "--ids",
        "--images",
        "--data",
        "--cores",
        "--val",
        "--backbone",
        "--head",
        "--output",
        "--train",
        "--max-accuracy-drop",
        "--prefer",
        "--max-hours",
        "--max-memory",
        "--precision",
        "--image-size",
        "--epochs",
        "--trials",
        "--tuned",
        "--teacher",
        "--seed",
        "--version",
    },
    "calibrate": {"--gpu"},
    "import": {"config", "--gpu", "--backbone", "--data", "--precision"},
    "compare-gpus": {
        "--ids",
        "--images",
        "--data",
        "--cores",
        "--gpus",
        "--hours",
        "--price",
        "--sort",
        "--backbone",
        "--head",
        "--teacher",
        "--max-accuracy-drop",
        "--prefer",
        "--tuned",
        "--precision",
        "--image-size",
        "--epochs",
    },
    "explain": {"profile", "--gpu", "--plot", "--cores"},
    "fit": {"--gpu", "--backbone", "--share", "--storage", "--precision"},
    "gpus": {"card"},
    "tune": {
        "--data",
        "--val",
        "--gpu",
        "--trials",
        "--hours",
        "--storage",
        "--study",
        "--resume",
        "--output",
        "--backbone",
        "--head",
        "--image-size",
        "--precision",
        "--epochs",
        "--max-accuracy-drop",
        "--prefer",
        "--seed",
        "--teacher",
    },
    "report": {"profile", "--output", "-o", "--run", "--study"},
}


def surface(app: Any) -> dict[str, set[str]]:
    """Options and arguments by command; both names of a switch."""
    group = typer.main.get_command(app)
    return {name: _names(command) for name, command in {"": group, **group.commands}.items()}  # type: ignore[attr-defined]  # a group, by its app


def _names(command: Any) -> set[str]:
    names = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    return names - {"--help", "-h"}


@pytest.mark.parametrize(
    ("app", "frozen"), [(attfc_train.cli.app, TRAIN), (attfc_planner.cli.app, PLAN)], ids=["train", "plan"]
)
def test_commands_and_options(app: Any, frozen: dict[str, set[str]]) -> None:
    assert surface(app) == frozen


@pytest.mark.parametrize("app", [attfc_train.cli.app, attfc_planner.cli.app], ids=["train", "plan"])
def test_every_option_says_what_it_does(app: Any) -> None:
    group = typer.main.get_command(app)
    for command in (group, *group.commands.values()):  # type: ignore[attr-defined]  # a group, by its app
        assert command.help
        assert [parameter.name for parameter in command.params if not parameter.help] == []


@pytest.mark.parametrize("command", ["", "tune", "compare-gpus"])
def test_the_help_names_every_backbone(command: str) -> None:
    """Catches a list that somebody typed: eight networks were missing in it."""
    group: Any = typer.main.get_command(attfc_planner.cli.app)
    parameters = (group.commands[command] if command else group).params
    (option,) = (parameter for parameter in parameters if parameter.name == "backbone")
    assert set(BACKBONES) <= set(re.findall(r"\w+", option.help))
