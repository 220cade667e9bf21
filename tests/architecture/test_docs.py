"""README.md and docs/ say what is there: commands parse, settings and files exist, links lead somewhere, exit codes hold."""

from __future__ import annotations

import inspect
import json
import re
import shlex
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
from typer.core import TyperGroup

import attfc_planner.cli
import attfc_train.cli
from attfc_train import errors
from attfc_train.errors import AttfcError, Interrupted
from tests.architecture.modules import PACKAGES, ROOT
from tests.architecture.test_imports import ROW_OF

README = ROOT / "README.md"
PAGES = sorted((ROOT / "docs").glob("*.md"))
DOCUMENTS = [README, ROOT / "CONTRIBUTING.md", *PAGES]
MAX_README_LINES = 150

CLASSES = {name: error for name, error in inspect.getmembers(errors, inspect.isclass) if issubclass(error, AttfcError)}
ROW = re.compile(r"^\| *([\d, ]+?) *\| *(\w+) *\| *(.*?) *\|$", re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#{1,6} +(.+?) *$", re.MULTILINE)
CODE_SPAN = re.compile(r"(?<!`)`([^`]+)`(?!`)")
COMMAND = re.compile(r"attfc-(?:plan|train)(?: |$)")
OPTION = re.compile(r"--[a-z][a-z-]*")
SETTING = re.compile(r"(?:data|model|head|optim|run|teacher)(?:\.[a-z_]+)+(?<!\.py)(?<!\.pt)(?<!\.json)")

GROUPS: dict[str, TyperGroup] = {}
for _name, _app in {"attfc-plan": attfc_planner.cli.app, "attfc-train": attfc_train.cli.app}.items():
    _group = typer.main.get_command(_app)
    assert isinstance(_group, TyperGroup)
    GROUPS[_name] = _group

documents = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)


def text_of(document: Path) -> str:
    return document.read_text(encoding="utf-8")


def code_lines(document: Path) -> list[str]:
    """The lines of indented code."""
    return [line.strip() for line in text_of(document).splitlines() if line.startswith("    ")]


def code_spans(document: Path) -> list[str]:
    """Code within the text, on one line each."""
    prose = "\n".join(line for line in text_of(document).splitlines() if not line.startswith("    "))
    return [" ".join(span.split()) for span in CODE_SPAN.findall(prose)]


def commands(document: Path) -> list[str]:
    """Every command line of ours that is quoted."""
    quoted = [*(line.removeprefix("$ ") for line in code_lines(document)), *code_spans(document)]
    return [line for line in quoted if COMMAND.match(line)]


def parse(command_line: str) -> None:
    """Parse a command line as the program would, without running it; a missing required argument is no error here."""
    program, *arguments = shlex.split(command_line, comments=True)
    command: Any = GROUPS[program]
    if arguments and not arguments[0].startswith("-"):  # options of the group itself are refused before a command
        assert arguments[0] in command.commands, f"no command {arguments[0]}"
        command, arguments = command.commands[arguments[0]], arguments[1:]
        if isinstance(command, TyperGroup) and arguments:
            assert arguments[0] in command.commands, f"no command {arguments[0]}"
            command, arguments = command.commands[arguments[0]], arguments[1:]
    try:
        context = command.make_context(program, arguments)
    except Exception as error:
        if type(error).__name__ != "MissingParameter":
            raise
    else:
        assert not context.args, context.args


def anchors(document: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    prose = "\n".join(line for line in text_of(document).splitlines() if not line.startswith("    "))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in HEADING.findall(prose)}


def test_every_error_and_its_code_are_listed() -> None:
    """Catches another number in docs/errors.md, and an error class without a row."""
    listed = {name: codes for codes, name, _ in ROW.findall(text_of(ROOT / "docs" / "errors.md"))}
    assert listed.pop("Interrupted") == "129, 130, 143", "SIGHUP, SIGINT, SIGTERM"
    assert listed == {name: str(error.exit_code) for name, error in CLASSES.items() if error is not Interrupted}


def test_every_error_has_its_own_code() -> None:
    codes = [error.exit_code for error in CLASSES.values() if error is not Interrupted]
    assert len(set(codes)) == len(codes)
    assert all(0 < code < 126 for code in codes), "126 and above belong to the shell"
    assert Interrupted(signal.SIGTERM, "a", "b").exit_code == 143


def test_an_error_is_one_line() -> None:
    assert str(AttfcError("the rule\nmust hold", "a\tvalue", "Do this.")) == "the rule must hold, but got a value. Do this."


def test_the_readme_is_short() -> None:
    """Catches a page of docs/ that is pasted back."""
    assert len(text_of(README).splitlines()) <= MAX_README_LINES


@documents
def test_every_heading_stands_once(document: Path) -> None:
    """Catches a merge that leaves the old sections beside the new ones; a link leads to the first of two in any case."""
    headings = HEADING.findall(text_of(document))
    assert [heading for heading in dict.fromkeys(headings) if headings.count(heading) > 1] == []


@documents
def test_nothing_is_left_to_fill_in(document: Path) -> None:
    """Catches a line ``SOME_FIGURE``, and ``TODO``."""
    assert re.findall(r"^[A-Z]+_[A-Z]+$|\bTODO\b|\bTBD\b|\bFIXME\b", text_of(document), re.MULTILINE) == []


@documents
def test_links_lead_somewhere(document: Path) -> None:
    """Catches ``(docs/plannig.md)``, and ``(planning.md#a-refusal)`` once that heading is another one."""
    broken = []
    for link in LINK.findall(text_of(document)):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = (document.parent / name).resolve() if name else document
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


def test_every_page_is_in_the_index() -> None:
    """Catches a new page that nobody finds."""
    assert {f"{page.name}" for page in PAGES} - {"README.md"} <= set(LINK.findall(text_of(ROOT / "docs" / "README.md")))


@documents
def test_commands_parse(document: Path) -> None:
    """Catches ``attfc-plan --gpus``, ``attfc-plan tune --ids 7`` (another command's option) and ``attfc-train presents``."""
    broken = []
    for line in commands(document):
        try:
            parse(line)
        except Exception as error:
            broken.append(f"{line}: {error}")
    assert broken == []


def test_commands_are_found() -> None:
    """Catches a pattern that matches nothing any more, so that every command would pass."""
    assert "attfc-plan --gpu rtx-4090 --ids 2059906 --images 42474557" in commands(README)
    assert len({line for document in DOCUMENTS for line in commands(document)}) >= 20
    with pytest.raises(AssertionError, match="no command"):
        parse("attfc-train presents")


@documents
def test_options_in_the_text_exist(document: Path) -> None:
    """Catches `` `--prefers` ``: an option that no command has."""
    known = {option for group in GROUPS.values() for command in _commands(group) for option in _options(command)}
    spans = [span for span in code_spans(document) if span.startswith("--")]
    assert {option for span in spans for option in OPTION.findall(span)} - known == set()


def _commands(group: TyperGroup) -> Iterator[Any]:
    """A group and everything below it, such as ``data`` and ``data check``."""
    yield group
    for command in group.commands.values():
        if isinstance(command, TyperGroup):
            yield from _commands(command)
        else:
            yield command


def _options(command: Any) -> Iterator[str]:
    for parameter in command.params:
        yield from (*parameter.opts, *parameter.secondary_opts)


@documents
def test_settings_exist(document: Path) -> None:
    """Catches ``data.windows_share``, in the text and behind ``--set``."""
    schema = json.loads(text_of(ROOT / "tests" / "architecture" / "train_profile.schema.json"))
    spans = code_spans(document)
    named = {span.partition("=")[0] for span in spans if SETTING.fullmatch(span.partition("=")[0])}
    named |= set(re.findall(r"--set (\w+(?:\.\w+)+)=", text_of(document)))
    assert named - {"section.key"} - set(_settings(schema, schema, "")) == set()


def _settings(schema: dict[str, Any], node: dict[str, Any], prefix: str) -> Iterator[str]:
    """Dotted names of everything below a node; of a union, of all its members."""
    if "$ref" in node:
        node = schema["$defs"][node["$ref"].rpartition("/")[2]]
    for member in (*node.get("anyOf", ()), *node.get("oneOf", ())):
        yield from _settings(schema, member, prefix)
    for name, child in node.get("properties", {}).items():
        yield f"{prefix}{name}"
        yield from _settings(schema, child, f"{prefix}{name}.")


@documents
def test_modules_and_files_exist(document: Path) -> None:
    """Catches ``python -m benchmarks.tunes``, and ``attfc_train/steps/step.py`` in the text."""
    modules_named = [name.replace(".", "/") for name in re.findall(r"python -m (benchmarks\.\w+)", text_of(document))]
    names = {f"{name}/__main__.py" if (ROOT / name).is_dir() else f"{name}.py" for name in modules_named}
    tops = (*PACKAGES, "tests", "profiles", "benchmarks", "docs")
    names |= {span for span in code_spans(document) if span.startswith(tuple(f"{top}/" for top in tops))}
    assert [name for name in sorted(names) if not (ROOT / name).exists()] == []


def test_the_number_of_cards_is_right() -> None:
    """Catches a card more or less in profiles/gpus/."""
    counts = {
        int(count)
        for document in DOCUMENTS
        for count in re.findall(r"(?<!each of )\b(\d+) (?:known )?cards", text_of(document))
    }
    assert counts == {len(list((ROOT / "profiles" / "gpus").glob("*.json")))}


def rooms() -> list[tuple[str, str]]:
    """The tree in docs/architecture.md: dotted name of every room, and the text behind it."""
    listed, package = [], ""
    for line in re.findall(r"^ {4}.*$", text_of(ROOT / "docs" / "architecture.md").split("## Rooms")[1], re.MULTILINE):
        name, _, text = line.strip().partition(" ")
        if not line.startswith("     "):
            package = name.rstrip("/")
        else:
            listed.append((f"{package}.{name.removesuffix('.py').rstrip('/')}", text.strip()))
    return listed


def test_every_room_is_named() -> None:
    """Catches a new room, and one that is gone. The packages' own ``__init__`` are no rooms."""
    assert {name for name, _ in rooms()} == set(ROW_OF) - set(PACKAGES)


def test_rooms_stand_in_the_order_of_the_import_table() -> None:
    """Catches ``losses/`` below ``heads/``: a room above another one may not import it."""
    rows = [ROW_OF[name] for name, _ in rooms()]
    assert rows == sorted(rows)


def test_every_room_has_its_text() -> None:
    """Catches a room without a word, and a folder in the text that is not in the room: ``tune/  stage/ of trials``."""
    for name, text in rooms():
        assert text, name
        folder = ROOT / name.replace(".", "/")
        assert [inner for inner in re.findall(r"(?<![\w/])[a-z_]+/", text) if not (folder / inner).is_dir()] == [], name


MOST_TOUCHED = 3
"""Files that exist and that an extension may touch."""


def extensions() -> dict[str, list[str]]:
    """What is added -> the files that its list in docs/architecture.md says are touched."""
    part = text_of(ROOT / "docs/architecture.md").split("## Adding things")[1]
    lists = re.split(r"^### +(.+)$", part, flags=re.MULTILINE)[1:]
    return {
        name: [
            file for line in re.findall(r"^\* touched: (.*(?:\n  .*)*)", body, re.MULTILINE) for file in CODE_SPAN.findall(line)
        ]
        for name, body in zip(lists[::2], lists[1::2], strict=True)
    }


def test_what_can_be_added_touches_three_files_at_most() -> None:
    """Catches a fourth file, a file that moved, and a kind of extension that nobody describes."""
    found = {name: [file for file in files if "/" in file] for name, files in extensions().items()}
    assert set(found) == {"Head", "Backbone", "Augmentation", "Schedule driven by the loss", "Data format", "Knob", "Command"}
    assert {name: len(files) for name, files in found.items() if not 1 <= len(files) <= MOST_TOUCHED} == {}
    assert [file for files in found.values() for file in files if not (ROOT / file).is_file()] == []


CITED_ELSEWHERE = re.compile(r"\bDESIGN\b|\bmethods \d|\breference \d+\.\d|shared data")


SOURCES = {path for pattern in ("attfc_*/**/*.py", "benchmarks/**/*.py", "tests/**/*.py") for path in ROOT.glob(pattern)}


@pytest.mark.parametrize("path", sorted(SOURCES - {Path(__file__).resolve()}), ids=lambda path: str(path.relative_to(ROOT)))
def test_code_cites_papers_and_pages_that_are_here(path: Path) -> None:
    """Catches "DESIGN 5", which the repository does not hold, and a page of docs/ that was renamed."""
    text = text_of(path)
    assert CITED_ELSEWHERE.findall(text) == []
    assert [page for page in re.findall(r"docs/[a-z-]+\.md", text) if not (ROOT / page).exists()] == []
