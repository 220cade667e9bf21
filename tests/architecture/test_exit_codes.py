"""README.md's table of exit codes is `attfc_train.errors`."""

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
