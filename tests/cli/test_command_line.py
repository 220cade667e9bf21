"""What both programs have in common: help, versions, completion, ``python -m``, and options that people type."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

import pytest
import typer.main

import attfc_planner.cli
from attfc_train import cli
from attfc_train.command_line import count, nearest
from attfc_train.errors import UsageError
from attfc_train.profile.file import load_preset, parse_profile, read_json, with_overrides
from attfc_train.profile.keys import backbone_name, known_keys
from tests.architecture.test_docs import parse

PROGRAMS: dict[str, Any] = {
    "attfc-train": typer.main.get_command(cli.app),
    "attfc-plan": typer.main.get_command(attfc_planner.cli.app),
}

TYPES = r"<\w+(?:\[\w+\])?>|[─│╭]|\b(?:INTEGER|FLOAT|TEXT|BOOLEAN|DIRECTORY|FILENAME|RANGE)\b|x[<>]=?\d|[<>]=?x\b"
"""What Typer writes for a type or a range, and draws around it."""


def called(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "attfc_train", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | environment, check=False)


def helps() -> dict[str, str]:
    """The help of every command of both programs, however deep it lies, by what is typed for it."""
    return dict(pair for program, command in PROGRAMS.items() for pair in helps_of(command, program, None))


def helps_of(command: Any, name: str, parent: Any) -> Iterator[tuple[str, str]]:
    context = typer.Context(command, parent=parent, info_name=name)
    yield context.command_path, command.get_help(context)
    for child, each in getattr(command, "commands", {}).items():
        yield from helps_of(each, child, context)


def test_the_program_as_a_module_says_its_versions() -> None:
    shown = called("--version")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout.startswith(f"attfc {version('attfc')} (torch {version('torch')}, Python 3.")


def test_a_short_help_is_the_help() -> None:
    short, long = called("-h"), called("--help")
    assert (short.returncode, short.stdout) == (0, long.stdout)


def test_a_help_has_no_boxes_no_types_and_fits_80_columns() -> None:
    """Catches ``<path>``, ``<list[str]>``, ``x>=0`` and ``[OPTIONS]``'s box: a third of 80 columns was lost to them."""
    texts = helps()
    assert {"attfc-train data info", "attfc-train presets show", "attfc-plan compare-gpus"} <= set(texts)
    for name, text in texts.items():
        assert not re.findall(TYPES, text), name
        assert max(map(len, text.splitlines())) <= 80, name


def test_a_list_of_commands_has_their_whole_sentence() -> None:
    assert "compared with the original." in " ".join(helps()["attfc-train"].split())


def test_examples_in_a_help_parse() -> None:
    """Catches an example of an option that was renamed."""
    lines = [line.strip() for text in helps().values() for line in text.splitlines() if line.startswith("    attfc-")]
    assert len(lines) >= 14
    for line in lines:
        parse(line.partition(" > ")[0])


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("attfc-train eva", ["evaluate"]),
        ("attfc-train --on-", ["--on-oom", "--on-collapse"]),
        ("attfc-train --preset ti", ["tiny"]),
        ("attfc-train presets sh", ["show"]),
    ],
)
def test_completion(typed: str, completed: list[str]) -> None:
    code = "import sys; sys.argv[0] = 'attfc-train'; from attfc_train.cli import main; main()"
    words = {"COMP_WORDS": typed, "COMP_CWORD": str(len(typed.split()) - 1), "_ATTFC_TRAIN_COMPLETE": "complete_bash"}
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | words, check=False)
    assert (child.stdout.split(), child.stderr) == (completed, "")


@pytest.mark.parametrize("text", ["R50", "r50", "iresnet50", "IResNet-50", "ir_50", "r-50"])
def test_backbones_by_other_names(text: str) -> None:
    assert backbone_name(text) == "r50"
    assert with_overrides(load_preset("tiny"), [f"model.backbone={text}"]).model.backbone == "r50"


def test_backbones_by_other_names_where_a_plan_asks_for_them() -> None:
    planner = PROGRAMS["attfc-plan"]
    assert planner.make_context("attfc-plan", ["--ids", "2M", "--backbone", "R50"]).params["backbone"] == ["r50"]
    arguments = {"fit": ["--backbone", "IR-50"], "tune": ["--data", "x", "--backbone", "iresnet50"]}
    named = {name: planner.commands[name].make_context(name, words).params["backbone"] for name, words in arguments.items()}
    assert named == {"fit": ["r50"], "tune": "r50"}


@pytest.mark.parametrize("text", ["r51", "resnet50x", "", "50", "iresnet"])
def test_what_is_no_backbone_stays_as_it_is(text: str) -> None:
    assert backbone_name(text) == text


def test_a_count_of_a_setting_may_be_written_as_people_do() -> None:
    changed = with_overrides(load_preset("attfc"), ["run.steps=20k", "data.cache_bytes=2,000,000", "run.seed=3e3"])
    assert (changed.run.steps, changed.data.cache_bytes, changed.run.seed) == (20_000, 2_000_000, 3000)


def test_an_option_that_counts() -> None:
    assert count("--ids", 2)("2.06M") == 2_060_000
    with pytest.raises(UsageError, match=r"--ids must be a whole number of at least 2, but got '1'\. "):
        count("--ids", 2)("1")
    with pytest.raises(UsageError, match=r"--ids must be a whole number of at least 2, but got 'two'\. Examples: .*2M"):
        count("--ids", 2)("two")


@pytest.mark.parametrize(("text", "advice"), [("31", "a larger one"), ("2k", "a smaller one"), ("112.5", "Examples: ")])
def test_an_option_that_counts_up_to_a_limit(text: str, advice: str) -> None:
    assert count("--size", 32, 512)("512") == 512
    with pytest.raises(UsageError, match=rf"--size must be a whole number from 32 to 512, but got '{text}'\. .*{advice}"):
        count("--size", 32, 512)(text)


def test_nothing_alike_is_not_called_near() -> None:
    assert nearest("batchsize", ["batch_size", "momentum"]) == ["batch_size"]
    assert nearest("zzz", ["batch_size", "momentum"]) == []


def test_a_preset_shows_its_settings_as_set_takes_them() -> None:
    shown = called("presets", "show", "partial-fc")
    assert shown.returncode == 0
    lines = shown.stdout.splitlines()[1:]
    profile = load_preset("partial-fc")
    assert with_overrides(profile, [line.split("  ")[0] for line in lines]) == profile
    assert [line.partition("=")[0] for line in lines] == list(known_keys(profile))
    assert re.search(r"^optim\.batch_size=\d+ +a whole number from 2 to 65,536$", shown.stdout, re.MULTILINE)


def test_a_preset_as_a_profile_to_edit(tmp_path: Any) -> None:
    path = tmp_path / "mine.json"
    path.write_text(called("presets", "show", "tiny", "--json").stdout)
    assert parse_profile(read_json(path), "mine") == load_preset("tiny")
