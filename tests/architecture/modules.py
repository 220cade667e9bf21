"""The packages as syntax trees: what imports what, without importing anything."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("attfc_train", "attfc_planner")


@cache
def modules() -> dict[str, Path]:
    """Every module by dotted name; a package is its ``__init__.py``."""
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def tree(name: str) -> ast.Module:
    return ast.parse(modules()[name].read_text(encoding="utf-8"))


def imports(name: str) -> set[str]:
    """Everything that a module imports, inside functions and for type checking too."""
    return {target for node in ast.walk(tree(name)) for target in _targets(node)}


def imports_when_loaded(name: str) -> set[str]:
    """What loading the module itself imports: not what stands in functions or under ``if TYPE_CHECKING``."""
    found, waiting = set(), list(ast.iter_child_nodes(tree(name)))
    while waiting:
        node = waiting.pop()
        found |= _targets(node)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            waiting.extend(node.orelse)
            continue
        waiting.extend(ast.iter_child_nodes(node))
    return found


def _targets(node: ast.AST) -> set[str]:
    if isinstance(node, ast.Import):
        return {alias.name for alias in node.names}
    if isinstance(node, ast.ImportFrom):
        assert node.level == 0, f"line {node.lineno}: relative imports are not used here"
        assert node.module is not None
        names = {f"{node.module}.{alias.name}" for alias in node.names}
        return {name if name in modules() else node.module for name in names}
    return set()
