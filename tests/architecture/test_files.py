"""One concept, one file, small enough to read in one go."""

from __future__ import annotations

import ast
import statistics

import pytest

from tests.architecture.modules import modules, tree

MAX_LINES = 300
LONGER: dict[str, str] = {}
"""Modules that may be longer, each with its reason."""

PRINTING = {"attfc_train.exits"}
"""The rest logs, or draws with rich."""

MAX_MEDIAN_FUNCTION_LINES = 12


@pytest.mark.parametrize("name", sorted(modules()))
def test_length(name: str) -> None:
    lines = len(modules()[name].read_text(encoding="utf-8").splitlines())
    assert lines <= MAX_LINES or name in LONGER, f"{lines} lines: which of its concepts deserves its own file?"


def test_the_reasons_for_length_are_current() -> None:
    assert [name for name in LONGER if len(modules()[name].read_text(encoding="utf-8").splitlines()) <= MAX_LINES] == []


@pytest.mark.parametrize("name", sorted(modules()))
def test_every_module_says_what_it_is_for(name: str) -> None:
    assert ast.get_docstring(tree(name))


@pytest.mark.parametrize("name", sorted(set(modules()) - PRINTING))
def test_nothing_prints(name: str) -> None:
    """Except where a module is run as a program."""
    parts = [part for part in tree(name).body if not (isinstance(part, ast.If) and "__main__" in ast.unparse(part.test))]
    names = [node for part in parts for node in ast.walk(part) if isinstance(node, ast.Name)]
    assert [node.lineno for node in names if node.id == "print"] == []


def test_functions_are_short() -> None:
    functions = [node for name in modules() for node in ast.walk(tree(name)) if isinstance(node, ast.FunctionDef)]
    assert statistics.median(map(_lines, functions)) <= MAX_MEDIAN_FUNCTION_LINES


def _lines(function: ast.FunctionDef) -> int:
    """Without the docstring."""
    documentation = ast.get_docstring(function, clean=False)
    assert function.end_lineno is not None
    return function.end_lineno - function.lineno + 1 - (documentation.count("\n") + 1 if documentation else 0)
