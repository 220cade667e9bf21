"""Reads a configuration that is a Python file, without executing any of it.

Such a file makes an object (``config = edict()``) and gives it values (``config.lr = 0.1``). Read are literals, tuples, lists
and dicts of them, arithmetic, and values that stand above; everything else is passed over and named, and a value that depends
on it is not known. How much a file can cost is bounded: its size, its depth, and the size of every number and text.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from attfc_train.data.reading import read_file, refuse_foreign
from attfc_train.data.report import shown
from attfc_train.errors import DataError, ProfileError
from attfc_train.units import Bytes

MOST_BYTES: Final[Bytes] = 256 * 1024
_MOST_NUMBER: Final = 10**18
_MOST_ITEMS: Final = 10_000
_MOST_DEPTH: Final = 40
_MOST_POWER: Final = 64

_ARITHMETIC: Final[dict[type[ast.operator], Callable[[Any, Any], Any]]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
_SIGNS: Final[dict[type[ast.unaryop], Callable[[Any], Any]]] = {ast.UAdd: operator.pos, ast.USub: operator.neg}
_MAKERS: Final = ("EasyDict", "edict", "dict")
"""Calls without arguments, or with names and values, that make the object."""


class _Unknown(Exception):
    """An expression that is not evaluated; the text says what."""


@dataclass
class LiteralConfig:
    """What a file says."""

    path: Path
    values: dict[str, Any] = field(default_factory=dict)
    """By name: what ``config.NAME = ...`` has given last."""
    unknown: dict[str, str] = field(default_factory=dict)
    """Names whose value was not evaluated, with the line and why."""
    passed_over: list[str] = field(default_factory=list)
    """Other statements that were not looked at."""

    def updated(self, other: LiteralConfig) -> LiteralConfig:
        """Return these values with those of another file in their place, as the trainer puts a file over its base."""
        kept = {name: value for name, value in self.values.items() if name not in other.unknown}
        unknown = {name: why for name, why in self.unknown.items() if name not in other.values}
        return LiteralConfig(
            other.path, {**kept, **other.values}, {**unknown, **other.unknown}, self.passed_over + other.passed_over
        )


def read_config(path: Path) -> LiteralConfig:
    """Return what a file of ``config.NAME = VALUE`` lines says.

    Raises:
        ProfileError: it is no such file, or too large.
    """
    rule = f"'{shown(str(path))}' must be a config of arcface_torch: a Python file of config.NAME = VALUE lines"
    try:
        content = read_file(path, MOST_BYTES + 1)
        refuse_foreign(path, "must be a Python file", content)
    except DataError as error:
        raise ProfileError(rule, error.got, error.remedy) from error
    if len(content) > MOST_BYTES:
        raise ProfileError(rule, f"more than {MOST_BYTES // 1024} KiB", "Give the config alone.")
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = f" in line {error.lineno}" if isinstance(error, SyntaxError) else ""
        got = f"{getattr(error, 'msg', None) or type(error).__name__}{line}"
        raise ProfileError(rule, got, "Give the .py file itself.") from error
    config = _Reader(path).read(tree)
    if not config.values and not config.unknown:
        raise ProfileError(rule, "no such line", "Give a file of its configs folder.")
    return config


class _Reader:
    """A walk over the statements of a file; values that were assigned stay for those below."""

    def __init__(self, path: Path) -> None:
        self._config = LiteralConfig(path)
        self._objects: set[str] = set()
        """Names that hold the config."""
        self._names: dict[str, Any] = {}
        """Other variables."""

    def read(self, tree: ast.Module) -> LiteralConfig:
        """Return the config of a whole file."""
        for statement in tree.body:
            self._statement(statement)
        return self._config

    def _statement(self, statement: ast.stmt) -> None:
        if isinstance(statement, ast.Assign):
            for target in statement.targets:
                self._assign(target, statement.value, statement.lineno)
        elif isinstance(statement, ast.AnnAssign) and statement.value is not None:
            self._assign(statement.target, statement.value, statement.lineno)
        elif isinstance(statement, ast.AugAssign):
            changed = ast.BinOp(statement.target, statement.op, statement.value)
            self._assign(statement.target, changed, statement.lineno)
        elif not _says_nothing(statement):
            self._pass_over(statement)

    def _assign(self, target: ast.expr, value: ast.expr, line: int) -> None:
        if isinstance(target, ast.Name) and _makes_object(value):
            self._objects.add(target.id)
            assert isinstance(value, ast.Call)
            for keyword in value.keywords:
                self._set(keyword.arg or "**", keyword.value, line)
            return
        name = self._key(target)
        if name is not None:
            self._set(name, value, line)
            return
        try:
            if not isinstance(target, ast.Name):
                raise _Unknown
            self._objects.discard(target.id)
            self._names[target.id] = self._value(value)
        except _Unknown:
            self._config.passed_over.append(f"line {line}: {_text(target)} = {_text(value)}")
            self._forget(target, line)

    def _set(self, name: str, value: ast.expr, line: int) -> None:
        try:
            self._config.values[name] = self._value(value)
            self._config.unknown.pop(name, None)
        except _Unknown as unknown:
            self._config.values.pop(name, None)
            self._config.unknown[name] = f"line {line}: {unknown}"

    def _key(self, target: ast.expr) -> str | None:
        """Return the name that ``config.NAME`` or ``config["NAME"]`` means; None for anything else."""
        if isinstance(target, ast.Attribute) and self._is_object(target.value):
            return target.attr
        if isinstance(target, ast.Subscript) and self._is_object(target.value) and isinstance(target.slice, ast.Constant):
            return target.slice.value if isinstance(target.slice.value, str) else None
        return None

    def _is_object(self, node: ast.expr) -> bool:
        return isinstance(node, ast.Name) and node.id in self._objects

    def _pass_over(self, statement: ast.stmt) -> None:
        """Name a statement that is not executed; what it may assign is not known any more."""
        self._config.passed_over.append(f"line {statement.lineno}: {_text(statement)}")
        self._forget(statement, statement.lineno)

    def _forget(self, changed: ast.AST, line: int) -> None:
        """Take what is assigned or deleted somewhere in a piece of the file for not known."""
        for node in ast.walk(changed):
            if not isinstance(getattr(node, "ctx", None), ast.Store | ast.Del):
                continue
            name = self._key(node) if isinstance(node, ast.expr) else None
            if name is not None:
                self._config.values.pop(name, None)
                self._config.unknown[name] = f"line {line}: in a statement that is not executed"
            elif isinstance(node, ast.Name):
                self._names.pop(node.id, None)

    def _value(self, node: ast.expr, depth: int = 0) -> Any:
        """Return the value of an expression.

        Raises:
            _Unknown: it is not of the kinds that are evaluated, or too large.
        """
        if depth > _MOST_DEPTH:
            raise _Unknown("too deep")
        if isinstance(node, ast.Constant):
            return _bounded(node.value)
        if isinstance(node, ast.Tuple | ast.List):
            return [self._value(each, depth + 1) for each in node.elts[: _MOST_ITEMS + 1]]
        if isinstance(node, ast.Dict):
            return {self._value(key, depth + 1): self._value(each, depth + 1) for key, each in _items(node)}
        if isinstance(node, ast.UnaryOp) and type(node.op) in _SIGNS:
            return _SIGNS[type(node.op)](_number(self._value(node.operand, depth + 1)))
        if isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC:
            return _computed(node.op, self._value(node.left, depth + 1), self._value(node.right, depth + 1))
        return self._looked_up(node)

    def _looked_up(self, node: ast.expr) -> Any:
        name = self._key(node)
        if name is not None and name in self._config.values:
            return self._config.values[name]
        if isinstance(node, ast.Name) and node.id in self._names:
            return self._names[node.id]
        raise _Unknown(f"{_text(node)} is not evaluated")


def _items(node: ast.Dict) -> Iterator[tuple[ast.expr, ast.expr]]:
    for key, value in zip(node.keys, node.values, strict=True):
        if not isinstance(key, ast.Constant):
            raise _Unknown(f"{_text(node)} is not evaluated")
        yield key, value


def _computed(kind: ast.operator, left: Any, right: Any) -> Any:
    if isinstance(left, str) and isinstance(right, str) and isinstance(kind, ast.Add):
        return _bounded(left + right)
    one, other = _number(left), _number(right)
    if isinstance(kind, ast.Pow) and abs(other) > _MOST_POWER:
        raise _Unknown("a power that is too large")
    try:
        return _bounded(_ARITHMETIC[type(kind)](one, other))
    except (ArithmeticError, ValueError) as error:
        raise _Unknown(f"arithmetic that fails ({error})") from error


def _number(value: Any) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _Unknown("arithmetic with something else than numbers")
    return value


def _bounded(value: Any) -> Any:
    """Return a literal; a complex number, bytes and what is too large are not taken."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | float) and abs(value) <= _MOST_NUMBER:  # False for what is not a number, too
        return value
    if isinstance(value, str) and len(value) <= _MOST_ITEMS:
        return value
    raise _Unknown("a value that is too large, or of another kind")


def _makes_object(node: ast.expr) -> bool:
    if not isinstance(node, ast.Call) or node.args:
        return False
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    return name in _MAKERS


def _says_nothing(statement: ast.stmt) -> bool:
    """Return whether a statement changes no value: imports, and texts that stand alone."""
    is_text = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    is_import = isinstance(statement, ast.Import) or (
        isinstance(statement, ast.ImportFrom) and all(alias.name != "*" for alias in statement.names)
    )
    return is_text or is_import or isinstance(statement, ast.Pass)


def _text(node: ast.AST) -> str:
    """Return the beginning of a piece of the file, on one line."""
    try:
        text = " ".join(ast.unparse(node).split())
    except (RecursionError, ValueError):
        text = "an expression"
    return shown(text if len(text) <= 60 else f"{text[:57]}...")
