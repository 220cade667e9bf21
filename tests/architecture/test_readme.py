"""README.md says what is there: the exit codes of `attfc_train.errors`, files that exist, nothing left to fill in."""

from __future__ import annotations

import inspect
import re
import signal

from attfc_train import errors
from attfc_train.errors import AttfcError, Interrupted
from tests.architecture.modules import ROOT

CLASSES = {name: error for name, error in inspect.getmembers(errors, inspect.isclass) if issubclass(error, AttfcError)}
ROW = re.compile(r"^\| *([\d, ]+?) *\| *(\w+) *\| *(.*?) *\|$", re.MULTILINE)


def test_the_readme_lists_every_error_and_its_code() -> None:
    listed = {name: codes for codes, name, _ in ROW.findall((ROOT / "README.md").read_text(encoding="utf-8"))}
    assert listed.pop("Interrupted") == f"{128 + signal.SIGINT}, {128 + signal.SIGTERM}"
    assert listed == {name: str(error.exit_code) for name, error in CLASSES.items() if error is not Interrupted}


def test_every_error_has_its_own_code() -> None:
    codes = [error.exit_code for error in CLASSES.values() if error is not Interrupted]
    assert len(set(codes)) == len(codes)
    assert all(0 < code < 126 for code in codes), "126 and above belong to the shell"
    assert Interrupted(signal.SIGTERM, "a", "b", "c").exit_code == 143


def test_an_error_is_one_line() -> None:
    assert str(AttfcError("the rule\nmust hold", "a\tvalue", "Do this.")) == "the rule must hold, but got a value. Do this."


def test_nothing_is_left_to_fill_in() -> None:
    assert re.findall(r"^[A-Z]+_[A-Z]+$", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE) == []


def test_the_files_that_are_named_exist() -> None:
    part = (ROOT / "README.md").read_text(encoding="utf-8").split("## Where things are")[1]
    folder, missing = ROOT, []
    for line in re.findall(r"^    .*$", part, re.MULTILINE):
        indent = len(line) - len(line.lstrip())
        names = re.findall(r"[a-z_]+(?:\.py|/)", line)
        if indent == 4 and names:
            folder = ROOT / names[0]
        base = [ROOT, folder, *(path for path in folder.iterdir() if path.is_dir())]
        missing += [name for name in names if not any((place / name).exists() for place in base)]
    assert missing == []
